"""One GGUF file: the types and shapes of its tensors, and their numbers, packed as they are or as plain floats.

What is where is read by `core.gguf_header`; packed matrices become what diffusers computes with. Knows no models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import gguf
import numpy as np
import torch
from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFParameter
from gguf import GGMLQuantizationType

from backend.core.formats.gguf import read_gguf_header
from backend.core.lora.match import FLOAT_TYPES

#: Numbers that are no quantisation: they are read as they are.
_FLOATS = FLOAT_TYPES & {kind.name for kind in GGMLQuantizationType}
#: Those of them that numpy has.
_PLAIN: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
#: Types whose matrices stay packed in memory, by name: diffusers unpacks them while it computes.
PACKED_TYPES = frozenset(kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES) - _FLOATS
READABLE_TYPES = PACKED_TYPES | _FLOATS


class GgufFile:
    """An open file; its numbers are mapped and read when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            BadGguf: it is cut off, or something else.
        """
        self._header = read_gguf_header(path)
        self._bytes = np.memmap(path, np.uint8, mode="r")

    def numbers(self, name: str, rows: slice = slice(None)) -> torch.Tensor:
        """Return a tensor, or rows of it, as floats: what is packed becomes float32, what is not stays as it is."""
        info, kind = self._header.tensors[name], self._kind(name)
        plain = _PLAIN.get(info.dtype)
        packed = self._rows(name)[rows]
        values = gguf.dequantize(packed, kind) if plain is None else packed.view(plain)
        # What was not unpacked is still the file's, which nobody may write into.
        return torch.from_numpy(np.require(values, requirements="W")).reshape(-1, *info.shape[1:])

    def packed(self, name: str) -> torch.Tensor:
        """Return a matrix in the form in which diffusers computes with it; its bytes are those of the file."""
        rows = torch.from_numpy(np.array(self._rows(name)))
        packed: torch.Tensor = GGUFParameter(rows, quant_type=self._kind(name))
        return packed

    def _kind(self, name: str) -> GGMLQuantizationType:
        return GGMLQuantizationType[self._header.tensors[name].dtype]

    def _rows(self, name: str) -> Any:
        """Return a tensor's bytes, one row for each row of its matrix: no row shares a block with another."""
        first, last = self._header.spans[name]
        return self._bytes[first:last].reshape(self._header.tensors[name].shape[0], -1)
