"""What the headers of all weight formats share: types, shapes, and the errors for files that cannot be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Bytes per value of each safetensors type.
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
    "C64": 8, "F8_E8M0": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
}  # fmt: skip
#: Bits per value of the safetensors types whose values share bytes.
_SHARED_BITS: Final = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
#: Floating-point types; integers would need a scale that no LoRA file carries.
FLOAT_TYPES = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})


def stored_bytes(dtype: str, count: int) -> int | None:
    """Return the bytes of so many values of a safetensors type; None for an unknown type."""
    if dtype in DTYPE_BYTES:
        return DTYPE_BYTES[dtype] * count
    bits = _SHARED_BITS.get(dtype)
    return None if bits is None else -(-bits * count // 8)


class UnreadableWeights(Exception):
    """The file has no readable weights; the message says why in one sentence."""


class UnsupportedWeights(UnreadableWeights):
    """The file may be intact, but its format or a type in it is not supported; the message says which."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as described by a header."""

    dtype: str  #: the format's own name: `BF16`, `Q4_K`
    shape: tuple[int, ...]  #: in PyTorch's order
