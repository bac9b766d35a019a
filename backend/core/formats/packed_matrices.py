"""Which matrices of an expert from a GGUF file stay quantised in memory, and the memory they take.

Computed from the header before anything is loaded. Knows no folders, no plans and no devices.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the package behind it loads numpy
    from backend.core.formats.gguf import GgufHeader

#: Peak bytes per number while a matrix of this type is unpacked: diffusers' temporaries, plus the numbers in half
#: precision beside those used to compute, in float32 at most. Counted tensor by tensor (diffusers 0.42.1). Only these
#: types stay packed.
UNPACKING: Final = {
    "Q8_0": 6.0,
    "Q6_K": 6.0,
    "Q5_K": 7.2,
    "Q5_1": 10.0,
    "Q5_0": 10.0,
    "Q4_K": 6.0,
    "Q4_1": 6.0,
    "Q4_0": 6.0,
    "Q3_K": 6.0,
    "Q2_K": 6.0,
    "IQ4_XS": 12.3,
    "IQ4_NL": 12.0,
}
#: Parts of the names, Wan's and diffusers', of matrices that are unpacked when read: they compute in float32, or are
#: the kernel of a convolution.
_UNPACKED: Final = ("time_embedding.", "time_embedder.", "patch_embedding.")
_BLOCKS: Final = "blocks."


@dataclass(frozen=True, slots=True)
class PackedMatrices:
    """The quantised matrices of one expert: their bytes and their numbers."""

    blocks: int  #: bytes of the matrices inside blocks
    block_numbers: int
    rest: int  #: bytes of the other matrices
    rest_numbers: int
    unpacking: int  #: temporary bytes while the most demanding matrix is used

    @property
    def bytes(self) -> int:
        """Total bytes."""
        return self.blocks + self.rest

    @property
    def numbers(self) -> int:
        """Total numbers."""
        return self.block_numbers + self.rest_numbers

    @classmethod
    def of(cls, header: GgufHeader) -> PackedMatrices | None:
        """Count what stays packed of an expert with this header; None when nothing does."""
        blocks = rest = block_numbers = rest_numbers = 0
        unpacking = 0.0
        for name, info in header.tensors.items():
            sides = [side for side in info.shape if side != 1]
            by_name = name.endswith(".weight") and not any(part in name for part in _UNPACKED)
            if not by_name or info.dtype not in UNPACKING or len(sides) != 2:
                continue
            first, last = header.spans[name]
            numbers = prod(sides)
            if _BLOCKS in name:
                blocks, block_numbers = blocks + last - first, block_numbers + numbers
            else:
                rest, rest_numbers = rest + last - first, rest_numbers + numbers
            unpacking = max(unpacking, UNPACKING[info.dtype] * numbers)
        return cls(blocks, block_numbers, rest, rest_numbers, int(unpacking)) if unpacking else None

    @classmethod
    def of_all(cls, experts: Iterable[PackedMatrices | None]) -> PackedMatrices | None:
        """Return the expert that saves least, to stand for all of a model; None when any expert saves nothing."""
        found = list(experts)
        packed = [one for one in found if one is not None]
        if not packed or len(packed) < len(found):
            return None
        least = max(packed, key=lambda one: (one.bytes - 2 * one.numbers, one.bytes))
        return cls(
            least.blocks,
            least.block_numbers,
            least.rest,
            least.rest_numbers,
            max(one.unpacking for one in packed),
        )
