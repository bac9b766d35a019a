"""Which models have experts in GGUF on this disk, and what of them stays quantised in memory.

Reads headers and nothing else; what cannot be read, or is something else, is said to save nothing.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

from backend.core.catalogue.spec import ModelSpec
from backend.core.formats.gguf import BadGguf, read_gguf_header
from backend.core.formats.packed_matrices import PackedMatrices
from backend.core.formats.weights import SHARD_INDEX, WEIGHT_SUFFIXES, Container

_EXPERTS: Final = ("transformer", "transformer_2")


def packed_experts(folder: Path, spec: ModelSpec) -> PackedMatrices | None:
    """Return what stays packed of each expert in a model's folder; None where one of them is in another form."""
    return PackedMatrices.of_all([_packed(folder / name) for name in _EXPERTS[: spec.experts]])


def _packed(place: Path) -> PackedMatrices | None:
    """Look at the weights of one expert: they are packed where all of them are one GGUF file."""
    try:
        files = [path for path in place.iterdir() if path.name.endswith((*WEIGHT_SUFFIXES, SHARD_INDEX))]
        if len(files) != 1 or files[0].suffix != f".{Container.GGUF}":
            return None
        status = files[0].stat()
        return _read(files[0], (status.st_size, status.st_mtime_ns))
    except OSError:
        return None


@lru_cache(maxsize=32)  # it is asked at every estimate
def _read(path: Path, _state: tuple[int, int]) -> PackedMatrices | None:
    try:
        return PackedMatrices.of(read_gguf_header(path))
    except BadGguf:
        return None
