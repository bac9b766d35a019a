"""The tiny video autoencoder: how it is built, and what makes it learn sharp shapes and true colours.

Owns the `AutoencoderKLWan` configuration and its loss. Latents have 16 channels at an eighth of the
width and height and a quarter of the frames, as in Wan 2.2 A14B.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample, WanResidualBlock
from torch import Tensor, nn
from torch.nn import functional as nnf

from training.split import SceneSource
from training.world import FRAMES, SIZE, render

CHANNELS = 16
#: Pixels along the side of a training crop: the network is convolutional, a crop teaches as much as a frame.
CROP = 48
#: Noise on the latents stands in for the KL term: neighbours must decode alike.
LATENT_NOISE = 0.05
#: Share of the steps on single frames, where learning is cheap.
STILL_SHARE = 0.565
_STILLS = (1, 12)
#: Then (frames, clips) in turn. Long clips belong here: without them backgrounds drift late in a clip.
_MIX = ((5, 4), (1, 12), (9, 2), (17, 1), (5, 4), (13, 1), (9, 2), (17, 1))


def build() -> Any:
    """Make a fresh autoencoder (2.6 M parameters), each residual block starting as the identity."""
    autoencoder = AutoencoderKLWan(
        base_dim=16,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * CHANNELS,
        latents_std=[1.0] * CHANNELS,
    )
    for module in autoencoder.modules():
        if isinstance(module, WanResidualBlock):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
        if isinstance(module, nn.Conv3d):
            # Channels last is a third faster in bfloat16 on a CPU.
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    forget_the_past(autoencoder)
    return autoencoder


@torch.no_grad()
def forget_the_past(autoencoder: Any) -> None:
    """Start every temporal convolution from the newest frame alone, and the resampling ones as copies.

    Single frames never train the taps on earlier frames; random ones would throw the network far back when
    the first clips come.
    """
    for module in autoencoder.modules():
        if isinstance(module, WanCausalConv3d):
            module.weight[:, :, :-1] = 0.0
        if isinstance(module, WanResample) and hasattr(module, "time_conv"):
            weight = module.time_conv.weight
            same = torch.eye(weight.shape[1])
            # Going up, one half of the outputs is the earlier frame and the other half the later one.
            weight[:, :, -1, 0, 0] = torch.cat([same] * (weight.shape[0] // weight.shape[1]))
            nn.init.zeros_(module.time_conv.bias)


class AutoencoderLoss:
    """Draws crops of training clips and measures how well they come back."""

    def __init__(self, autoencoder: Any, steps: int, device: torch.device) -> None:
        self._autoencoder, self._steps, self._device = autoencoder, steps, device

    def __call__(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Give the losses of one step."""
        moving = step - round(self._steps * STILL_SHARE)
        frames, count = _STILLS if moving < 0 else _MIX[moving % len(_MIX)]
        pixels, coverage = (part.to(self._device) for part in _crops(rng, frames, count))
        with torch.autocast(self._device.type, torch.bfloat16):
            mean = self._autoencoder.encode(pixels).latent_dist.mode()
            noisy = mean + LATENT_NOISE * torch.randn_like(mean)
            decoded = self._autoencoder.decode(noisy).sample
        error = (decoded.float() - pixels).abs()
        error = error + 0.5 * error**2
        # Parts are averaged apart: shapes fill a tenth of the picture and their edges far less,
        # and a plain average would leave colours wrong and corners round.
        inside, edge, outside = _parts(coverage)
        return {
            "inside": _average(error, inside),
            "edge": _average(error, edge),
            "outside": _average(error, outside),
            "bound": 1e-3 * torch.relu(mean.float() ** 2 - 4).mean(),
        }


def _crops(rng: np.random.Generator, frames: int, count: int) -> tuple[Tensor, Tensor]:
    """Pixels (count, 3, frames, CROP, CROP) in -1..1 and coverage (count, 1, frames, CROP, CROP)."""
    source = SceneSource(rng)
    pixels, coverages = [], []
    for _ in range(count):
        clip = render(source.draw(), rng)
        first = int(rng.integers(FRAMES - frames + 1))
        top, left = (int(corner) for corner in rng.integers(SIZE - CROP + 1, size=2))
        window = np.s_[..., first : first + frames, top : top + CROP, left : left + CROP]
        pixels.append(clip.pixels[window])
        coverages.append(clip.coverage[None][window])
    return torch.from_numpy(np.stack(pixels)), torch.from_numpy(np.stack(coverages))


def _parts(coverage: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    widest = nnf.max_pool3d(coverage, (1, 5, 5), 1, (0, 2, 2))
    narrowest = -nnf.max_pool3d(-coverage, (1, 5, 5), 1, (0, 2, 2))
    inside, outside = (narrowest > 0.99).float(), (widest < 0.01).float()
    return inside, 1 - inside - outside, outside


def _average(error: Tensor, part: Tensor) -> Tensor:
    return (error * part).sum() / (3 * part.sum() + 1)
