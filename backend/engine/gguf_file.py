"""One GGUF file: the types and shapes of its tensors, and their numbers, packed as they are or as plain floats.

The format is read by the `gguf` package; packed matrices become what diffusers computes with. Knows no models.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFParameter
from gguf import GGMLQuantizationType

MAGIC = b"GGUF"
#: Numbers that are no quantisation: they are read as they are.
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
#: Types whose matrices stay packed in memory, by name: diffusers unpacks them while it computes.
PACKED_TYPES = frozenset(kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES) - _FLOATS
READABLE_TYPES = PACKED_TYPES | _FLOATS
#: Converters note here the shape of a tensor that has more dimensions than their format's library allows.
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."


class BadGguf(Exception):
    """The file is no whole GGUF file; the text says why in one sentence."""


class GgufFile:
    """An open file; its numbers are mapped and read when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            BadGguf: it is cut off, or something else.
        """
        try:
            with path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise BadGguf("The file is no GGUF file")
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # numbers that overflow in a damaged header
                self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError, KeyError, OverflowError, MemoryError, RuntimeWarning) as error:
            raise BadGguf("The file is cut off, or its header is damaged") from error
        self._tensors: dict[str, Any] = {tensor.name: tensor for tensor in self._reader.tensors}

    def types(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return the type's name (`Q4_K`, `F16`) and the shape in PyTorch's order of every tensor."""
        return {
            name: (GGMLQuantizationType(one.tensor_type).name, self._shape(one)) for name, one in self._tensors.items()
        }

    def numbers(self, name: str) -> torch.Tensor:
        """Return a tensor as floats: what is packed becomes float32, what is not stays as it is."""
        tensor = self._tensors[name]
        kind = GGMLQuantizationType(tensor.tensor_type)
        data = np.ascontiguousarray(tensor.data)
        if kind not in (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.F64):
            data = gguf.dequantize(data, kind)
        return torch.from_numpy(np.array(data)).reshape(self._shape(tensor))

    def packed(self, name: str) -> torch.Tensor:
        """Return a matrix in the form in which diffusers computes with it; its bytes are those of the file."""
        tensor = self._tensors[name]
        packed: torch.Tensor = GGUFParameter(torch.from_numpy(np.array(tensor.data)), quant_type=tensor.tensor_type)
        return packed

    def _shape(self, tensor: Any) -> tuple[int, ...]:
        shape = tuple(int(side) for side in reversed(tensor.shape))
        noted = self._reader.get_field(_ORIGINAL_SHAPE + tensor.name)
        if noted is None:
            return shape
        original = tuple(int(noted.parts[index][0]) for index in noted.data)
        return original if np.prod(original) == np.prod(shape) else shape
