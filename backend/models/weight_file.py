"""What is in a file of weights, whichever of the two formats it has: names, shapes and types, and nothing else.

Decides by the content, never by the ending, and says in words what a file is that is not read. Knows no models.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import prod
from pathlib import Path
from typing import Final

from backend.core.errors import LoraInvalid
from backend.core.lora.header import read_header
from backend.core.lora.match import TensorInfo

SHARD_INDEX = ".safetensors.index.json"
_GGUF_MAGIC: Final = b"GGUF"
_MAX_INDEX_BYTES = 32 * 2**20
#: Ends of the names of tensors that only say how others were scaled down to 8 bits.
_SCALES: Final = (".scale_weight", ".scale_input", ".weight_scale", ".input_scale", ".comfy_quant")
_SCALED_MARK = "scaled_fp8"
_WORDS: Final = {
    "F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8_e4m3fn", "F8_E5M2": "fp8_e5m2",
}  # fmt: skip


class Container(StrEnum):
    """The two formats that are read; neither can hold code."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"


class NoWeights(Exception):
    """The file is not read; the text says in one sentence what it is."""


@dataclass(frozen=True, slots=True)
class WeightHeader:
    """One file, or the shards of one."""

    container: Container
    files: tuple[Path, ...]  #: the file, or the index and the shards that it lists
    tensors: dict[str, TensorInfo]  #: without those that hold scales of others
    scaled: bool  #: whether there are such scales
    metadata: dict[str, str]
    size: int  #: bytes of all files

    @property
    def precision(self) -> tuple[str, ...]:
        """The types of the numbers, those with the most numbers first: `bf16`, `fp8_e4m3fn scaled`, `Q4_K`."""
        numbers: dict[str, int] = {}
        for info in self.tensors.values():
            numbers[info.dtype] = numbers.get(info.dtype, 0) + prod(info.shape)
        ranked = sorted(numbers, key=lambda dtype: (-numbers[dtype], dtype))
        scaled = " scaled" if self.scaled else ""
        words = {name: word + scaled if word.startswith("fp8") else word for name, word in _WORDS.items()}
        known = words if self.container is Container.SAFETENSORS else {}
        return tuple(known.get(dtype, dtype) for dtype in ranked)


def read_weights(path: Path) -> WeightHeader:
    """Read the header of a file, or those of all shards that an index (`….safetensors.index.json`) lists.

    Raises:
        NoWeights: it is something else: a pickle, a pointer, a page, a part of a file.
    """
    if path.name.endswith(SHARD_INDEX):
        return _read_shards(path)
    try:
        with path.open("rb") as file:
            start = file.read(len(_GGUF_MAGIC))
            size = file.seek(0, 2)
    except OSError as error:
        raise NoWeights(f"The file cannot be read ({type(error).__name__})") from None
    if start == _GGUF_MAGIC:
        return _read_gguf(path, size)
    try:
        header = read_header(path)
    except LoraInvalid as error:
        raise NoWeights(error.message) from None
    tensors, scaled = _without_scales(header.tensors)
    return WeightHeader(Container.SAFETENSORS, (path,), tensors, scaled, header.metadata, size)


def _read_gguf(path: Path, size: int) -> WeightHeader:
    from backend.core.gguf_header import BadGguf, read_gguf_header  # the package behind it loads numpy

    try:
        header = read_gguf_header(path)
    except BadGguf as error:
        raise NoWeights(str(error)) from None
    texts = {name: value for name, value in header.fields.items() if isinstance(value, str)}
    return WeightHeader(Container.GGUF, (path,), header.tensors, False, texts, size)


def _read_shards(index: Path) -> WeightHeader:
    tensors: dict[str, TensorInfo] = {}
    size = 0
    scaled = False
    shards = [index.parent / name for name in shard_names(index)]
    for shard in shards:
        if not shard.is_file():
            raise NoWeights(f"The shard {shard.name} is missing")
        part = read_weights(shard)
        if part.container is not Container.SAFETENSORS or not part.tensors.keys().isdisjoint(tensors):
            raise NoWeights(f"The shard {shard.name} does not belong to its index")
        tensors |= part.tensors
        scaled = scaled or part.scaled
        size += part.size
    return WeightHeader(Container.SAFETENSORS, (index, *shards), tensors, scaled, {}, size + index.stat().st_size)


def shard_names(index: Path) -> list[str]:
    """Return the files that an index lists, all of them plain names beside it.

    Raises:
        NoWeights: it cannot be read, or lists something else.
    """
    try:
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise NoWeights("The index of the shards is too large to be one")
        names = sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise NoWeights("The index of the shards cannot be read") from None
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise NoWeights("The index of the shards lists something that is not a safetensors file beside it")
    return names


def _without_scales(tensors: dict[str, TensorInfo]) -> tuple[dict[str, TensorInfo], bool]:
    kept = {name: info for name, info in tensors.items() if not name.endswith((*_SCALES, _SCALED_MARK))}
    return kept, len(kept) < len(tensors)


def number_count(tensors: Iterable[TensorInfo]) -> int:
    """Count the numbers in tensors."""
    return sum(prod(info.shape) for info in tensors)
