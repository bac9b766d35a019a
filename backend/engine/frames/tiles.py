"""A picture cut into overlapping tiles: their positions, the blending of their edges, and scratch space for results.

Cuts and blends exactly like `AutoencoderKLWan.tiled_decode` (diffusers 0.42.1), to the bit, but chunk by chunk, so
only the edges that a tile's neighbours need are kept. Knows nothing about decoding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

#: Stride as a fraction of a tile: diffusers' 192 of 256 pixels.
_STRIDE = (3, 4)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its position in the grid, and its first row and column in latents."""

    row: int
    column: int
    top: int
    left: int


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of one picture; a length in latents times `scale` is the length in the decoder's output."""

    height: int  #: of the picture, in latents
    width: int
    side: int  #: of a tile, in latents
    scale: int

    @classmethod
    def of(cls, vae: Any, latents: torch.Tensor, pixels: int) -> TileGrid | None:
        """Cut latents [1, C, T, h, w] into tiles of about `pixels` a side; None if one tile holds the whole picture."""
        factor, patch = vae.spatial_compression_ratio, vae.config.patch_size or 1
        height, width = latents.shape[-2:]
        side = max(pixels // factor, _STRIDE[1])
        return cls(height, width, side, factor // patch) if max(height, width) > side else None

    @property
    def stride(self) -> int:
        """The distance from one tile to the next, in latents."""
        return self.side * _STRIDE[0] // _STRIDE[1]

    @property
    def overlap(self) -> int:
        """Rows or columns that neighbouring tiles share, in the decoder's output."""
        return (self.side - self.stride) * self.scale

    @property
    def rows(self) -> range:
        """The first row of each row of tiles."""
        return range(0, self.height, self.stride)

    @property
    def columns(self) -> range:
        """The first column of each column of tiles."""
        return range(0, self.width, self.stride)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.rows) * len(self.columns)

    def __iter__(self) -> Iterator[Tile]:
        """Yield the tiles row by row."""
        for row, top in enumerate(self.rows):
            for column, left in enumerate(self.columns):
                yield Tile(row, column, top, left)

    def cut(self, latents: torch.Tensor, tile: Tile) -> torch.Tensor:
        """Return a tile's part of latents [..., h, w]."""
        return latents[..., tile.top : tile.top + self.side, tile.left : tile.left + self.side]

    def own(self, decoded: torch.Tensor, tile: Tile) -> torch.Tensor:
        """Return the part of a blended tile [..., H, W] that goes into the picture."""
        bottom = min(self.stride, self.height - tile.top) * self.scale
        right = min(self.stride, self.width - tile.left) * self.scale
        return decoded[..., :bottom, :right]


class Scratch:
    """Arrays by key in an unnamed file: outside this process's memory, and gone however the process ends."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[Hashable, tuple[int, int]] = {}
        self._end = 0

    @classmethod
    @contextmanager
    def in_folder(cls, folder: Path | None) -> Iterator[Scratch]:
        """Open one for the block; None = in the system's temporary folder."""
        with tempfile.TemporaryFile(dir=folder) as file:
            yield cls(file)

    def put(self, key: Hashable, array: npt.NDArray[Any]) -> None:
        """Store an array under a key; it overwrites the previous one in place unless it is larger.

        Raises:
            OSError: the disk is full.
        """
        offset, room = self._places.get(key, (self._end, 0))
        if array.nbytes > room:
            offset, room = self._end, array.nbytes
            self._end += room
            self._places[key] = offset, room
        self._file.seek(offset)
        self._file.write(np.ascontiguousarray(array).data)

    def get(self, key: Hashable, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return the array last stored under a key, read-only."""
        self._file.seek(self._places[key][0])
        size = prod(shape) * np.dtype(dtype).itemsize
        return np.frombuffer(self._file.read(size), dtype).reshape(shape)


class Seams:
    """Blends each tile into its upper and left neighbours, which are decoded before it."""

    def __init__(self, grid: TileGrid, scratch: Scratch) -> None:
        self._grid = grid
        self._scratch = scratch
        self._shapes: dict[Hashable, tuple[int, ...]] = {}

    def join(self, decoded: torch.Tensor, tile: Tile, chunk: int) -> torch.Tensor:
        """Blend a tile's chunk [1, C, n, H, W] in place and return it; stores the edges that later tiles need."""
        # Each tile reads an edge, then stores its own under the same key.
        below, right = ("below", tile.column, chunk), ("right", chunk)
        if tile.row > 0:
            _blend(self._edge(below, decoded), decoded, self._grid.overlap, dim=-2)
        if tile.column > 0:
            _blend(self._edge(right, decoded), decoded, self._grid.overlap, dim=-1)
        if tile.row + 1 < len(self._grid.rows):
            self._keep(below, decoded[..., -self._grid.overlap :, :])
        if tile.column + 1 < len(self._grid.columns):
            self._keep(right, decoded[..., -self._grid.overlap :])
        return decoded

    def _keep(self, key: Hashable, edge: torch.Tensor) -> None:
        self._shapes[key] = tuple(edge.shape)
        self._scratch.put(key, edge.float().contiguous().cpu().numpy())

    def _edge(self, key: Hashable, like: torch.Tensor) -> torch.Tensor:
        kept = self._scratch.get(key, self._shapes[key], np.float32)
        return torch.from_numpy(kept.copy()).to(like.device, like.dtype)


def _blend(before: torch.Tensor, after: torch.Tensor, extent: int, *, dim: int) -> None:
    """Blend the start of `after` with the end of `before`: line i of n is before * (1 - i/n) + after * i/n."""
    extent = min(before.shape[dim], after.shape[dim], extent)
    shape = [1] * after.dim()
    shape[dim] = extent
    rise = [line / extent for line in range(extent)]
    # The weights are rounded once, from double precision, as in diffusers.
    up = torch.tensor(rise, dtype=after.dtype, device=after.device).view(shape)
    down = torch.tensor([1 - one for one in rise], dtype=after.dtype, device=after.device).view(shape)
    start = after.narrow(dim, 0, extent)
    end = before.narrow(dim, before.shape[dim] - extent, extent)
    start.copy_(end * down + start * up)
