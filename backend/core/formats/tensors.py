"""What the headers of all weight formats share: types, shapes, and the error for an unreadable file."""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes per value of each safetensors type.
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
#: Floating-point types; integers would need a scale that no LoRA file carries.
FLOAT_TYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


class UnreadableWeights(Exception):
    """The file has no readable weights; the message says why in one sentence."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as described by a header."""

    dtype: str  #: the format's own name: `BF16`, `Q4_K`
    shape: tuple[int, ...]  #: in PyTorch's order
