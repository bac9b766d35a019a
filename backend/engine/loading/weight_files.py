"""Reads the weight files of one component: safetensors, also sharded or with scaled eight-bit floats, or one GGUF file.

Headers are read when a folder is checked, values only while a component is filled; packed GGUF matrices stay in the
form that diffusers computes with. Knows no models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFParameter
from gguf import GGMLQuantizationType
from safetensors import safe_open

from backend.core.catalogue.table import ModelSpec
from backend.core.errors.base import WanError
from backend.core.errors.models import ModelDamaged, ModelUnsupported
from backend.core.formats.compatibility import Fault, scale_fault
from backend.core.formats.gguf import read_gguf_header
from backend.core.formats.tensors import FLOAT_TYPES, TensorInfo, UnreadableWeights, UnsupportedWeights
from backend.core.formats.weights import Container, read_weights, scaled_weight
from backend.engine.loading.original_names import PREFIXES

#: GGUF types that are not quantised: read as they are.
_FLOATS = FLOAT_TYPES & {kind.name for kind in GGMLQuantizationType}
#: Those that numpy supports.
_PLAIN: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
#: Types whose matrices stay packed in memory: diffusers unpacks them while it computes.
PACKED_TYPES = frozenset(kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES) - _FLOATS
#: Values unpacked at once; unpacking a whole embedding table would hold two more copies of it in memory.
_AT_ONCE = 4 * 2**20


class GgufFile:
    """An open GGUF file; its values are memory-mapped and read on demand."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            UnreadableWeights: the file is truncated or not a GGUF file.
        """
        self._header = read_gguf_header(path)
        self._bytes = np.memmap(path, np.uint8, mode="r")

    def numbers(self, name: str, rows: slice = slice(None)) -> torch.Tensor:
        """Return a tensor, or rows of it, as floats: packed types become float32, others keep their type."""
        info, kind = self._header.tensors[name], self._kind(name)
        plain = _PLAIN.get(info.dtype)
        packed = self._rows(name)[rows]
        values = gguf.dequantize(packed, kind) if plain is None else packed.view(plain)
        # Values that were not unpacked are a view of the read-only file.
        return torch.from_numpy(np.require(values, requirements="W")).reshape(-1, *info.shape[1:])

    def packed(self, name: str) -> torch.Tensor:
        """Return a matrix in the form that diffusers computes with; its bytes are those of the file."""
        rows = torch.from_numpy(np.array(self._rows(name)))
        packed: torch.Tensor = GGUFParameter(rows, quant_type=self._kind(name))
        return packed

    def _kind(self, name: str) -> GGMLQuantizationType:
        return GGMLQuantizationType[self._header.tensors[name].dtype]

    def _rows(self, name: str) -> Any:
        """Return a tensor's bytes, one row per matrix row: no two rows share a block."""
        first, last = self._header.spans[name]
        return self._bytes[first:last].reshape(self._header.tensors[name].shape[0], -1)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor in one file; its values are not read."""

    path: Path
    key: str  #: its name in the file
    dtype: str  #: by the file format's name
    shape: tuple[int, ...]
    container: Container = Container.SAFETENSORS
    scale: StoredTensor | None = None  #: factor of the values

    @property
    def packed(self) -> bool:
        """Whether it is quantised in a type that diffusers computes with."""
        return self.container is Container.GGUF and self.dtype in PACKED_TYPES


@dataclass(frozen=True, slots=True)
class ComponentFiles:
    """All weight files of a component."""

    paths: tuple[Path, ...]
    tensors: Mapping[str, StoredTensor]  #: by name, without a prefix shared by all names


def damaged(spec: ModelSpec, reason: str) -> ModelDamaged:
    """Return the error; the reason names files relative to the model's folder, because clients may read it."""
    return ModelDamaged(f"{spec.id} is damaged: {reason}")


def refused(spec: ModelSpec, where: str, fault: Fault) -> WanError:
    """Return the error for weights that cannot be used; `where` names a file or a component."""
    if fault.supported:
        return damaged(spec, f"in {where}, {fault.reason}")
    return ModelUnsupported(f"{spec.id} is not supported: in {where}, {fault.reason}")


def read_headers(spec: ModelSpec, folder: Path, names: tuple[str, ...]) -> ComponentFiles:
    """Read the headers of a component's files, named relative to the model's folder.

    Raises:
        ModelDamaged: a file is missing, truncated, or not what its name says; the message names it.
        ModelUnsupported: a file is in another format, or a scale in another form.
    """
    weights: dict[str, StoredTensor] = {}
    scales: dict[str, StoredTensor] = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            raise damaged(spec, f"{name} is missing")
        try:
            stat = path.stat()
            own_weights, own_scales = _header(path, (stat.st_size, stat.st_mtime_ns))
        except UnsupportedWeights as error:
            raise ModelUnsupported(f"{spec.id} is not supported: {name} cannot be used. {error}") from error
        except UnreadableWeights as error:
            raise damaged(spec, f"{name} cannot be used. {error}") from error
        except OSError as error:
            raise damaged(spec, f"{name} cannot be read ({type(error).__name__})") from error
        weights |= own_weights
        scales |= own_scales
    return ComponentFiles(tuple(folder / name for name in names), _understood(spec, names[0], weights, scales))


@lru_cache(maxsize=64)  # the folder is checked before every task, and parsing many tensors takes time
def _header(path: Path, _state: tuple[int, int]) -> tuple[Mapping[str, StoredTensor], Mapping[str, StoredTensor]]:
    """Return a file's weights, and their scales."""
    header = read_weights(path)

    def stored(tensors: Mapping[str, TensorInfo]) -> Mapping[str, StoredTensor]:
        return {key: StoredTensor(path, key, it.dtype, it.shape, header.container) for key, it in tensors.items()}

    return stored(header.tensors), stored(header.scales)


def _understood(
    spec: ModelSpec, name: str, weights: dict[str, StoredTensor], scales: dict[str, StoredTensor]
) -> dict[str, StoredTensor]:
    """Remove a prefix shared by all names, and attach scales to their weights."""
    for prefix in PREFIXES:
        if weights and all(key.startswith(prefix) for key in (*weights, *scales)):
            weights = {key.removeprefix(prefix): tensor for key, tensor in weights.items()}
            scales = {key.removeprefix(prefix): tensor for key, tensor in scales.items()}
    for key, scale in scales.items():
        weight = scaled_weight(key)
        fault = scale_fault(key, weight, scale, weights)
        if fault is not None:
            raise refused(spec, name, fault)
        weights[weight] = replace(weights[weight], scale=scale)
    return weights


class OpenWeights:
    """A context that holds a component's open files while its values are read."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open: dict[Path, Any] = {}

    def __enter__(self) -> OpenWeights:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.clear()
        self._stack.close()

    def numbers(self, tensor: StoredTensor) -> torch.Tensor:
        """Return a tensor as floats, with its scale applied."""
        if tensor.container is Container.GGUF:
            return self._gguf(tensor.path).numbers(tensor.key)
        value: torch.Tensor = self._safetensors(tensor.path).get_tensor(tensor.key)
        if tensor.scale is None:
            return value
        return value.to(torch.float32) * self._scale(tensor.scale, len(tensor.shape))

    def copy(self, tensor: StoredTensor, target: torch.Tensor) -> None:
        """Copy a tensor's values into `target`, in its precision and on its device, a group of rows at a time.

        The values are those of `numbers`, without ever holding a whole unpacked copy beside the target.
        """
        target = target.view(tensor.shape)
        if tensor.container is Container.GGUF:
            file = self._gguf(tensor.path)
            for rows in _groups(tensor.shape):
                target[rows].copy_(file.numbers(tensor.key, rows))
            return
        value = self._safetensors(tensor.path).get_tensor(tensor.key)
        if tensor.scale is None:
            target.copy_(value)
            return
        scale = self._scale(tensor.scale, len(tensor.shape)).expand(tensor.shape[0], *(-1 for _ in tensor.shape[1:]))
        for rows in _groups(tensor.shape):
            target[rows].copy_(value[rows].to(torch.float32) * scale[rows])

    def _scale(self, scale: StoredTensor, dimensions: int) -> torch.Tensor:
        """Return a tensor's scale, shaped to broadcast: one number, or one for each row."""
        return self.numbers(scale).to(torch.float32).reshape(-1, *(1 for _ in range(dimensions - 1)))

    def packed(self, tensor: StoredTensor) -> torch.Tensor:
        """Return a matrix in its quantised form."""
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


def _groups(shape: tuple[int, ...]) -> Iterator[slice]:
    """Divide a tensor into the groups of rows that are unpacked together."""
    rows = max(1, _AT_ONCE // max(1, prod(shape[1:])))
    for first in range(0, shape[0], rows):
        yield slice(first, first + rows)
