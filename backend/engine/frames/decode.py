"""Decodes latents into frames, a few at a time.

The causal VAE turns the first latent frame into one picture and each further one into four, and keeps its state in a
list that we own, so frames are yielded as they are decoded. Bit-identical to `vae.decode` of diffusers 0.42.1. Knows
nothing about files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d, unpatchify

from backend.core.errors.generation import NonFiniteLatents
from backend.core.faults import fault_point
from backend.core.planning.memory_ladder import MemoryUse
from backend.engine.failures import device_errors
from backend.engine.frames.tiles import Scratch, Seams, TileGrid
from backend.engine.loading.pipeline_loader import WanComponents
from backend.engine.memory.offload import VAE

Frames = npt.NDArray[np.uint8]
Latents = torch.Tensor
#: Called after each chunk of each tile.
TileDone = Callable[[], None]


def count_chunks(num_frames: int) -> int:
    """Return the number of chunks that `stream_frames` yields for a clip of 4k+1 frames."""
    return (num_frames - 1) // 4 + 1


def tile_grid(components: WanComponents, latents: torch.Tensor) -> TileGrid | None:
    """Return the tiles that the current plan asks for; None if the clip is decoded in one piece."""
    plan = components.plan
    return TileGrid.of(components.vae, latents, plan.tile_size) if plan.tiled_decode else None


@torch.no_grad()
def stream_frames(
    components: WanComponents,
    latents: torch.Tensor,
    *,
    scratch: Path | None = None,
    tile_done: TileDone = lambda: None,
) -> Iterator[Frames]:
    """Yield the clip as uint8 RGB [n, height, width, 3] with n = 1, 4, 4, ...

    A value is `round(255 * clamp(x / 2 + 1/2, 0, 1))`, half to even: what `WanPipeline(output_type="pil")`
    gives. (`export_to_video` on "np" frames truncates instead of rounding and is darker by half a level.)

    With a tiled plan, each tile is decoded over the whole clip and the tiles are joined at the end: a causal decoder's
    state (9.5 kB per pixel in Wan2.1's) is larger than the picture, so memory holds the state of one tile while
    finished pixels wait on disk. Equal to `vae.tiled_decode`.

    Args:
        components: the loaded model; only its VAE is used.
        latents: float32 [1, C, T, h, w] as the denoising loop leaves them.
        scratch: folder for the finished tiles; None = the system's temporary folder.
        tile_done: called after each chunk of each tile; may raise to stop.

    Raises:
        NonFiniteLatents: the decoder produced NaN or infinity.
        OutOfMemory: the decoder did not fit.
        OSError: the disk has no room for the tiles.
    """
    layout = components.layout
    with device_errors("decoding", MemoryUse.DECODE), layout.using(VAE):
        grid = tile_grid(components, latents)
        latents = latents.to(layout.vae_device)
        if grid is None:
            yield from _chunks(components.vae, latents)
        else:
            with Scratch.in_folder(scratch) as kept:
                yield from _tiles(components.vae, latents, grid, kept, tile_done)


def _chunks(vae: Any, latents: torch.Tensor) -> Iterator[Frames]:
    with device_errors("decoding", MemoryUse.DECODE):
        hidden = vae.post_quant_conv(_denormalise(vae, latents))
    memory = _memory(vae)
    for index in range(hidden.shape[2]):
        with device_errors(f"decoding chunk {index + 1}", MemoryUse.DECODE):
            fault_point("decode.chunk")
            frames = _finish(vae, _decode(vae, hidden[:, :, index : index + 1], memory, index), index)
        yield frames


def _tiles(vae: Any, latents: torch.Tensor, grid: TileGrid, kept: Scratch, tile_done: TileDone) -> Iterator[Frames]:
    latents = _denormalise(vae, latents)
    seams = Seams(grid, kept)
    chunks = latents.shape[2]
    shapes: dict[tuple[int, int, int], tuple[int, ...]] = {}
    for number, tile in enumerate(grid):
        part, memory = grid.cut(latents, tile), _memory(vae)
        for index in range(chunks):
            with device_errors(f"decoding chunk {index + 1} of tile {number + 1}", MemoryUse.DECODE):
                fault_point("decode.tile")
                hidden = vae.post_quant_conv(part[:, :, index : index + 1])
                joined = seams.join(_decode(vae, hidden, memory, index), tile, index)
                pixels = _finish(vae, grid.own(joined, tile), index)
                del joined
            key = tile.row, tile.column, index
            kept.put(key, pixels)
            shapes[key] = pixels.shape
            tile_done()
    for index in range(chunks):
        rows = []
        for row in range(len(grid.rows)):
            keys = [(row, column, index) for column in range(len(grid.columns))]
            rows.append(np.concatenate([kept.get(key, shapes[key], np.uint8) for key in keys], axis=2))
        yield np.concatenate(rows, axis=1)


def _memory(vae: Any) -> list[object]:
    """Return the initial state of a causal decoder."""
    return [None] * sum(isinstance(module, WanCausalConv3d) for module in vae.decoder.modules())


def _decode(vae: Any, hidden: torch.Tensor, memory: list[object], index: int) -> torch.Tensor:
    pixels: torch.Tensor = vae.decoder(hidden, feat_cache=memory, feat_idx=[0], first_chunk=index == 0)
    return pixels


def _finish(vae: Any, pixels: torch.Tensor, index: int) -> Frames:
    """Turn the decoder's output into frames.

    Raises:
        NonFiniteLatents: a value is NaN or infinite; it would silently become an arbitrary level.
    """
    if vae.config.patch_size is not None:
        pixels = unpatchify(pixels.contiguous(), patch_size=vae.config.patch_size)
    if not bool(torch.isfinite(pixels).all()):
        raise NonFiniteLatents(f"The decoder produced values that are not numbers, in chunk {index + 1}")
    return to_uint8(torch.clamp(pixels, min=-1.0, max=1.0)[0])


def to_uint8(video: torch.Tensor) -> Frames:
    """Turn [3, n, H, W] in -1..1 into uint8 [n, H, W, 3] on the tensor's device, then copy it to the host."""
    unit = (video.permute(1, 2, 3, 0) * 0.5 + 0.5).clamp(0, 1).float()
    levels: Frames = (unit * 255).round().to(torch.uint8).contiguous().cpu().numpy()
    return levels


def _denormalise(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Undo the per-channel normalisation with the pipeline's own operations (their order decides the last bit)."""
    config = vae.config
    latents = latents.to(dtype=vae.dtype)
    shape = (1, config.z_dim, 1, 1, 1)
    mean = torch.tensor(config.latents_mean).view(shape).to(latents.device, latents.dtype)
    inverse_std = 1.0 / torch.tensor(config.latents_std).view(shape).to(latents.device, latents.dtype)
    return latents / inverse_std + mean
