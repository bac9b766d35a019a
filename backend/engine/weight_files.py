"""The weight files of one component: which they are, what they hold under which names, and their numbers.

Decides by the content of the component's folder: safetensors, one or several, also with scaled eight-bit floats, or
one GGUF file. Headers are read when a folder is looked at, numbers only while a component is filled. Knows no models.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from backend.core.errors import LoraInvalid, ModelDamaged
from backend.core.gguf_header import MAGIC, BadGguf, read_gguf_header
from backend.core.lora.header import read_header
from backend.core.model_table import ModelSpec
from backend.engine.gguf_file import PACKED_TYPES, READABLE_TYPES, GgufFile
from backend.engine.original_names import PREFIXES

#: Names in a safetensors header of the types that are read: numbers, and eight-bit floats with or without scales.
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
#: What follows a module's name where its weight is to be multiplied by a scale: ComfyUI's word, and diffusers'.
_SCALES = (".scale_weight", ".weight_scale")
#: What says nothing about the weights: scales for activations, marks of a format, a tokenizer beside an encoder.
_ASIDE = (".scale_input", ".input_scale", ".comfy_quant", "scaled_fp8", "spiece_model")


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in one file; not read."""

    path: Path
    key: str  #: its name in the file
    dtype: str  #: as the file's format names it
    shape: tuple[int, ...]
    gguf: bool = False
    scale: StoredTensor | None = None  #: what the numbers are to be multiplied by

    @property
    def packed(self) -> bool:
        """Whether it is quantised in a way in which it can be computed with."""
        return self.gguf and self.dtype in PACKED_TYPES

    @property
    def readable(self) -> bool:
        """Whether its type is one that is read here."""
        return self.dtype in (READABLE_TYPES if self.gguf else _FLOATS)


@dataclass(frozen=True, slots=True)
class ComponentFiles:
    """All weight files of a component."""

    paths: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]  #: by name, without a prefix that all names have


def damaged(spec: ModelSpec, reason: str) -> ModelDamaged:
    """Make the error; the reason names files relative to the model's folder, because clients may read it."""
    return ModelDamaged(f"{spec.id} is damaged: {reason}")


def read_headers(spec: ModelSpec, folder: Path, names: tuple[str, ...]) -> ComponentFiles:
    """Read the headers of a component's files, named relative to the model's folder.

    Raises:
        ModelDamaged: one is missing, cut off, or something else than its name says; the message names it.
    """
    found: dict[str, StoredTensor] = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            raise damaged(spec, f"{name} is missing")
        try:
            stat = path.stat()
            found |= _header(path, (stat.st_size, stat.st_mtime_ns))
        except (LoraInvalid, BadGguf) as error:
            raise damaged(spec, f"{name} cannot be used. {error}") from error
        except OSError as error:
            raise damaged(spec, f"{name} cannot be read ({type(error).__name__})") from error
    return ComponentFiles(tuple(folder / name for name in names), _understood(spec, names[0], found))


@lru_cache(maxsize=64)  # before every task the folder is looked at again, and the many tensors take their time
def _header(path: Path, _state: tuple[int, int]) -> Mapping[str, StoredTensor]:
    with path.open("rb") as file:
        is_gguf = file.read(len(MAGIC)) == MAGIC
    if is_gguf:
        stored = read_gguf_header(path).tensors
        return {key: StoredTensor(path, key, info.dtype, info.shape, gguf=True) for key, info in stored.items()}
    tensors = read_header(path).tensors
    return {key: StoredTensor(path, key, info.dtype, info.shape) for key, info in tensors.items()}


def _understood(spec: ModelSpec, name: str, found: dict[str, StoredTensor]) -> dict[str, StoredTensor]:
    """Take off what stands before all names, and give scales to what they scale."""
    for prefix in PREFIXES:
        if found and all(key.startswith(prefix) or key.endswith(_ASIDE) for key in found):
            found = {key.removeprefix(prefix): tensor for key, tensor in found.items()}
    scales = {key: tensor for key, tensor in found.items() if key.endswith(_SCALES)}
    weights = {key: one for key, one in found.items() if key not in scales and not key.endswith(_ASIDE)}
    for key, scale in scales.items():
        weight = f"{key.rpartition('.')[0]}.weight"
        one = weights.get(weight)
        rows = one.shape[:1] if one is not None else ()
        if one is None or not scale.readable or not (prod(scale.shape) == 1 or scale.shape in (rows, (*rows, 1))):
            raise damaged(spec, f"{name} has a scale that belongs to no weight: {key[:120]}")
        weights[weight] = replace(one, scale=scale)
    return weights


class OpenWeights:
    """Open files of a component while its numbers are read; a context."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open: dict[Path, Any] = {}

    def __enter__(self) -> OpenWeights:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()
        self._stack.close()

    def numbers(self, tensor: StoredTensor) -> torch.Tensor:
        """Return a tensor as floats, with its scale in it."""
        if tensor.gguf:
            return self._gguf(tensor.path).numbers(tensor.key)
        value: torch.Tensor = self._safetensors(tensor.path).get_tensor(tensor.key)
        if tensor.scale is None:
            return value
        scale = self.numbers(tensor.scale).to(torch.float32)
        return value.to(torch.float32) * scale.reshape(-1, *(1 for _ in tensor.shape[1:]))

    def packed(self, tensor: StoredTensor) -> torch.Tensor:
        """Return a quantised matrix as it is."""
        return self._gguf(tensor.path).packed(tensor.key)

    def _gguf(self, path: Path) -> GgufFile:
        if path not in self._open:
            self._open[path] = GgufFile(path)
        file: GgufFile = self._open[path]
        return file

    def _safetensors(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = self._stack.enter_context(safe_open(path, framework="pt"))
        return self._open[path]
