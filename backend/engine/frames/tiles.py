"""A picture cut into overlapping tiles: where they lie, how their edges are joined, and where finished ones wait.

The cut and the joining are those of `AutoencoderKLWan.tiled_decode` (diffusers 0.42.1), to the bit, but done chunk by
chunk, so that of a tile only what its neighbours need has to be kept. Knows nothing about decoding.
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

#: The next tile begins after this part of one: diffusers' 192 of 256 pixels.
_STRIDE = (3, 4)


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its place in the grid, and its first row and column in latents."""

    row: int
    column: int
    top: int
    left: int


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The tiles of one picture; a side in latents times `scale` is one in what the decoder gives."""

    height: int  #: of the picture, in latents
    width: int
    side: int  #: of a tile, in latents
    scale: int

    @classmethod
    def of(cls, vae: Any, latents: torch.Tensor, pixels: int) -> TileGrid | None:
        """Cut latents [1, C, T, h, w] into tiles of about so many pixels; None where one tile holds all of it."""
        factor, patch = vae.spatial_compression_ratio, vae.config.patch_size or 1
        height, width = latents.shape[-2:]
        side = max(pixels // factor, _STRIDE[1])
        return cls(height, width, side, factor // patch) if max(height, width) > side else None

    @property
    def stride(self) -> int:
        """From one tile to the next, in latents."""
        return self.side * _STRIDE[0] // _STRIDE[1]

    @property
    def overlap(self) -> int:
        """Rows and columns that two tiles share, in what the decoder gives."""
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
        """How many tiles there are."""
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
        """Return the part of a joined tile [..., H, W] that goes into the picture."""
        bottom = min(self.stride, self.height - tile.top) * self.scale
        right = min(self.stride, self.width - tile.left) * self.scale
        return decoded[..., :bottom, :right]


class Scratch:
    """Arrays by key in a file without a name: not in this process's memory, and gone when it ends, however it ends."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[Hashable, tuple[int, int]] = {}
        self._end = 0

    @classmethod
    @contextmanager
    def in_folder(cls, folder: Path | None) -> Iterator[Scratch]:
        """Open one for the block, in a folder or in the system's own for such files."""
        with tempfile.TemporaryFile(dir=folder) as file:
            yield cls(file)

    def put(self, key: Hashable, array: npt.NDArray[Any]) -> None:
        """Keep an array; one that is not larger takes the place of the one that had this key.

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
        """Return the array that was put last; it cannot be written to."""
        self._file.seek(self._places[key][0])
        size = prod(shape) * np.dtype(dtype).itemsize
        return np.frombuffer(self._file.read(size), dtype).reshape(shape)


class Seams:
    """Joins each tile to the one above and the one on its left, which come before it."""

    def __init__(self, grid: TileGrid, scratch: Scratch) -> None:
        self._grid = grid
        self._scratch = scratch
        self._shapes: dict[Hashable, tuple[int, ...]] = {}

    def join(self, decoded: torch.Tensor, tile: Tile, chunk: int) -> torch.Tensor:
        """Blend a tile's chunk [1, C, n, H, W] in place and return it; keeps the edges that later tiles need."""
        # One tile after the other reads an edge and puts its own in the same place.
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
    """Let `after` begin as `before` ends: line i of n is before * (1 - i/n) + after * i/n."""
    extent = min(before.shape[dim], after.shape[dim], extent)
    shape = [1] * after.dim()
    shape[dim] = extent
    rise = [line / extent for line in range(extent)]
    # The weights are rounded once, from double precision, as diffusers' numbers are.
    up = torch.tensor(rise, dtype=after.dtype, device=after.device).view(shape)
    down = torch.tensor([1 - one for one in rise], dtype=after.dtype, device=after.device).view(shape)
    start = after.narrow(dim, 0, extent)
    end = before.narrow(dim, before.shape[dim] - extent, extent)
    start.copy_(end * down + start * up)
