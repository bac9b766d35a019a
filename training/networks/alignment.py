"""Rotates the latents of an autoencoder so that the informative directions come first and the unused ones are empty.

An autoencoder with more channels than its pictures need spreads their content over all of them; noise then fills
meaningless directions, and a small transformer spends its capacity on reproducing it. A linear map undoes this
exactly. It is folded into the 1x1x1 convolutions next to the latents, so that nothing else changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from training.networks.latents import EncodedClips

#: Exponent on the variance of a direction: 1 keeps it, 0 equalises all; in between, fine detail weighs less.
_KEPT_CONTRAST = 0.5


@torch.no_grad()
def align(autoencoder: Any, clips: EncodedClips, used: int) -> EncodedClips:
    """Align the autoencoder in place and return the clips in its new latents.

    Only the first `used` channels carry content. The new latents need no normalisation: their mean is zero and
    their variances add up to `used`.
    """
    mean, deviation = (torch.tensor(values) for values in clips.normalisation)
    sample = clips.latents.float().movedim(1, -1).reshape(-1, len(mean))
    variances, directions = torch.linalg.eigh(sample.double().T @ sample.double() / len(sample))
    # From the strongest direction to the weakest.
    variances, directions = variances.flip(0)[:used], directions.flip(1)[:, :used]
    kept = variances**_KEPT_CONTRAST
    scale = (kept * used / kept.sum() / variances).sqrt()
    there = torch.zeros(len(mean), len(mean))
    back = torch.zeros(len(mean), len(mean))
    there[:used] = (directions * scale).T.float()
    back[:, :used] = (directions / scale).float()
    turned = torch.einsum("ij,njthw->nithw", there, clips.latents.float()).half()
    _fold(autoencoder, there / deviation, back * deviation[:, None], mean)
    return replace(clips, latents=turned, mean=[0.0] * len(mean), deviation=[1.0] * len(mean))


def _fold(autoencoder: Any, there: Tensor, back: Tensor, mean: Tensor) -> None:
    """Fold `there @ (z - mean)` into the last encoder layer and `back @ z + mean` into the first decoder layer."""
    out, into, channels = autoencoder.quant_conv, autoencoder.post_quant_conv, len(mean)
    # The other half of the outputs of the encoder is the log variance, which is never used.
    out.weight[:channels] = torch.einsum("ij,jcthw->icthw", there.to(out.weight), out.weight[:channels])
    out.bias[:channels] = there.to(out.bias) @ (out.bias[:channels] - mean.to(out.bias))
    into.bias += torch.einsum("oi,i->o", into.weight[:, :, 0, 0, 0], mean.to(into.bias))
    into.weight.copy_(torch.einsum("ojthw,ji->oithw", into.weight, back.to(into.weight)))
