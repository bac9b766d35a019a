"""The tiny video autoencoders: their architecture and the loss that teaches them sharp shapes and true colours.

Owns the `AutoencoderKLWan` configurations. Latents have a quarter of the frames and either 16 channels at an eighth
of the width and height, as in Wan 2.2 A14B, or 48 channels at a sixteenth, as in TI2V-5B.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, WanResample, WanResidualBlock
from torch import Tensor, nn
from torch.nn import functional as nnf

from training.networks.workspace import mixed_precision
from training.world.scenes import FRAMES, SIZE, render
from training.world.split import SceneSource

CHANNELS = 16
#: Channels of the residual autoencoder, as in TI2V-5B.
RESIDUAL_CHANNELS = 48
#: Noise added to the latents in place of the KL term: neighbouring latents must decode alike.
LATENT_NOISE = 0.05
#: Share of the steps spent on single frames, where learning is cheap.
STILL_SHARE = 0.565


@dataclass(frozen=True)
class Crops:
    """The training data of an autoencoder: the crop, and the number of frames and clips in each step."""

    #: Side of a clip and of the crop in pixels. The network is convolutional, so a crop teaches as much.
    size: int = SIZE
    side: int = 48
    #: (frames, clips) of the first steps, which train on single frames.
    stills: tuple[int, int] = (1, 12)
    #: Then these in rotation. Without long clips, backgrounds drift late in a clip.
    clips: tuple[tuple[int, int], ...] = ((5, 4), (1, 12), (9, 2), (17, 1), (5, 4), (13, 1), (9, 2), (17, 1))
    #: Share of the clips whose shape starts anywhere.
    roaming: float = 0.0


def build_residual() -> Any:
    """Build an untrained autoencoder of the TI2V-5B kind (2.4 M parameters): residual, on 2x2 pixel patches."""
    return _prepared(
        AutoencoderKLWan(
            base_dim=12,
            decoder_base_dim=16,
            z_dim=RESIDUAL_CHANNELS,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            is_residual=True,
            patch_size=2,
            in_channels=12,
            out_channels=12,
            scale_factor_spatial=16,
            latents_mean=[0.0] * RESIDUAL_CHANNELS,
            latents_std=[1.0] * RESIDUAL_CHANNELS,
        )
    )


def build() -> Any:
    """Build an untrained autoencoder of the A14B kind (2.6 M parameters)."""
    return _prepared(
        AutoencoderKLWan(
            base_dim=16,
            z_dim=CHANNELS,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * CHANNELS,
            latents_std=[1.0] * CHANNELS,
        )
    )


def _prepared(autoencoder: Any) -> Any:
    """Initialise every residual block as the identity."""
    for module in autoencoder.modules():
        if isinstance(module, WanResidualBlock):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    channels_last(autoencoder)
    forget_the_past(autoencoder)
    return autoencoder


def channels_last(autoencoder: Any) -> None:
    """Convert the weights to channels-last, which is a third faster in bfloat16 on a CPU."""
    for module in autoencoder.modules():
        if isinstance(module, nn.Conv3d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last_3d)
        elif isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def forget_the_past(autoencoder: Any) -> None:
    """Initialise temporal convolutions to use the newest frame alone, and the resampling ones to copy it.

    Single frames never train the taps on earlier frames; random taps would set the network far back at the first
    clips.
    """
    for module in autoencoder.modules():
        if isinstance(module, WanCausalConv3d):
            module.weight[:, :, :-1] = 0.0
        if isinstance(module, WanResample) and hasattr(module, "time_conv"):
            weight = module.time_conv.weight
            same = torch.eye(weight.shape[1])
            # In upsampling, one half of the outputs is the earlier frame and the other half the later one.
            weight[:, :, -1, 0, 0] = torch.cat([same] * (weight.shape[0] // weight.shape[1]))
            nn.init.zeros_(module.time_conv.bias)


class AutoencoderLoss:
    """Reconstruction loss on random crops of training clips."""

    def __init__(self, autoencoder: Any, crops: Crops, steps: int, device: torch.device) -> None:
        self._autoencoder, self._crops, self._steps, self._device = autoencoder, crops, steps, device

    def __call__(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the named losses of one step."""
        moving = step - round(self._steps * STILL_SHARE)
        frames, count = self._crops.stills if moving < 0 else self._crops.clips[moving % len(self._crops.clips)]
        pixels, coverage = (part.to(self._device) for part in _draw(self._crops, rng, frames, count))
        with mixed_precision(self._device):
            mean = self._autoencoder.encode(pixels).latent_dist.mode()
            noisy = mean + LATENT_NOISE * torch.randn_like(mean)
            decoded = self._autoencoder.decode(noisy).sample
        error = (decoded.float() - pixels).abs()
        error = error + 0.5 * error**2
        # The regions are averaged separately: shapes fill a tenth of the picture and their edges far less,
        # so a plain average would leave colours wrong and corners round.
        inside, edge, outside = _parts(coverage)
        return {
            "inside": _average(error, inside),
            "edge": _average(error, edge),
            "outside": _average(error, outside),
            "bound": 1e-3 * torch.relu(mean.float() ** 2 - 4).mean(),
        }


def _draw(crops: Crops, rng: np.random.Generator, frames: int, count: int) -> tuple[Tensor, Tensor]:
    """Return pixels (count, 3, frames, side, side) in -1..1 and coverage (count, 1, frames, side, side)."""
    source = SceneSource(rng)
    pixels, coverages = [], []
    for _ in range(count):
        roaming = bool(crops.roaming) and rng.random() < crops.roaming
        clip = render(source.draw(), rng, crops.size, roaming=roaming)
        first = int(rng.integers(FRAMES - frames + 1))
        top, left = (int(corner) for corner in rng.integers(crops.size - crops.side + 1, size=2))
        window = np.s_[..., first : first + frames, top : top + crops.side, left : left + crops.side]
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
