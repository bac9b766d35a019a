"""Latents to frames, a few at a time.

The causal VAE turns the first latent frame into one picture and each further one into four, and keeps
what it must remember in a list we own; so frames can leave as they are made. Equal to `vae.decode` of
diffusers 0.42.1 to the bit. Knows nothing about files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify

from backend.core.errors import NonFiniteLatents
from backend.engine.failures import device_errors
from backend.engine.offload import VAE
from backend.engine.pipeline_loader import WanComponents

Frames = npt.NDArray[np.uint8]
Latents = torch.Tensor


def count_chunks(num_frames: int) -> int:
    """How many chunks `stream_frames` yields for a clip of 4k+1 frames."""
    return (num_frames - 1) // 4 + 1


@torch.no_grad()
def stream_frames(components: WanComponents, latents: torch.Tensor) -> Iterator[Frames]:
    """Yield the clip as uint8 RGB [n, height, width, 3] with n = 1, 4, 4, ...

    A value is `round(255 * clamp(x / 2 + 1/2, 0, 1))`, half to even: what `WanPipeline(output_type="pil")`
    gives. (`export_to_video` on "np" frames cuts instead of rounding and is darker by half a level.)

    Args:
        components: the loaded model; only its VAE is used.
        latents: float32 [1, C, T, h, w] as the denoising loop leaves them.

    Raises:
        NonFiniteLatents: the decoder gave values that are not numbers.
        OutOfMemory: the decoder did not fit.
    """
    with device_errors("decoding"), components.layout.using(VAE):
        yield from _chunks(components.vae, latents)


def _chunks(vae: Any, latents: torch.Tensor) -> Iterator[Frames]:
    with device_errors("decoding"):
        hidden = vae.post_quant_conv(_denormalise(vae, latents))
    memory: list[object] = [None] * sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())
    for index in range(hidden.shape[2]):
        with device_errors(f"decoding chunk {index + 1}"):
            pixels = vae.decoder(
                hidden[:, :, index : index + 1], feat_cache=memory, feat_idx=[0], first_chunk=index == 0
            )
            if vae.config.patch_size is not None:
                pixels = unpatchify(pixels, patch_size=vae.config.patch_size)
            # A value that is no number would become an arbitrary level, and nobody would notice.
            finite = bool(torch.isfinite(pixels).all())
            frames = to_uint8(torch.clamp(pixels, min=-1.0, max=1.0)[0])
        if not finite:
            raise NonFiniteLatents(f"The decoder produced values that are not numbers, in chunk {index + 1}")
        yield frames


def to_uint8(video: torch.Tensor) -> Frames:
    """Turn [3, n, H, W] in -1..1 into uint8 [n, H, W, 3] on the tensor's own device, then fetch it."""
    unit = (video.permute(1, 2, 3, 0) * 0.5 + 0.5).clamp(0, 1).float()
    levels: Frames = (unit * 255).round().to(torch.uint8).contiguous().cpu().numpy()
    return levels


def _denormalise(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Undo the per-channel normalisation with the pipeline's own operations (the order decides the last bit)."""
    config = vae.config
    latents = latents.to(dtype=vae.dtype)
    shape = (1, config.z_dim, 1, 1, 1)
    mean = torch.tensor(config.latents_mean).view(shape).to(latents.device, latents.dtype)
    inverse_std = 1.0 / torch.tensor(config.latents_std).view(shape).to(latents.device, latents.dtype)
    return latents / inverse_std + mean
