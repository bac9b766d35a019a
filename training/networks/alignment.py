"""Turns an autoencoder's latents so that what they hold comes first and unused directions are empty.

An autoencoder with more channels than its pictures need spreads them over all of its channels; noise then
fills directions that mean nothing, and a small transformer wastes itself on carrying it. A linear map undoes
that exactly: it is folded into the 1x1x1 convolutions beside the latents, so that nothing else changes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from training.networks.latents import EncodedClips

#: Exponent on a direction's variance: 1 leaves it, 0 makes all alike; between, fine detail weighs less.
_KEPT_CONTRAST = 0.5


@torch.no_grad()
def align(autoencoder: Any, clips: EncodedClips, used: int) -> EncodedClips:
    """Turn the autoencoder in place and give the clips in its new latents, of which the first `used` matter.

    The new latents need no normalisation: their mean is zero and their variances add up to `used`.
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
    """Fold `there @ (z - mean)` into the encoder's end and `back @ z + mean` into the decoder's beginning."""
    out, into, channels = autoencoder.quant_conv, autoencoder.post_quant_conv, len(mean)
    # The other half of the encoder's outputs is the logarithm of a variance, which nobody asks for.
    out.weight[:channels] = torch.einsum("ij,jcthw->icthw", there.to(out.weight), out.weight[:channels])
    out.bias[:channels] = there.to(out.bias) @ (out.bias[:channels] - mean.to(out.bias))
    into.bias += torch.einsum("oi,i->o", into.weight[:, :, 0, 0, 0], mean.to(into.bias))
    into.weight.copy_(torch.einsum("ojthw,ji->oithw", into.weight, back.to(into.weight)))
