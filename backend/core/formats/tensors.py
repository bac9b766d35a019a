"""What the headers of all weight files have in common: types, shapes, and the error of a file that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes of one value of each type that safetensors files have.
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
#: Types whose values are numbers on a scale; integers would need a scale that no LoRA file carries.
FLOAT_TYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


class UnreadableWeights(Exception):
    """The file holds no weights that can be read; the text says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as a header describes it."""

    dtype: str  #: as the format names it: `BF16`, `Q4_K`
    shape: tuple[int, ...]  #: in PyTorch's order
