"""Whether the numbers in a safetensors file are numbers: looks for NaN and infinity without torch.

A floating-point value is none when all bits of its exponent are set, so a mask over the raw bytes tells.
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from backend.core.errors import LoraInvalid
from backend.core.formats.safetensors import DTYPE_BYTES, SafetensorsHeader

#: For each type: the unsigned type of the same width, and the bits that are all set in what is no number
#: (IEEE 754; E4M3 has no infinity, and its only NaN has every bit but the sign set).
_MASKS: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "F64": (np.uint64, 0x7FF0000000000000),
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
    "F8_E4M3": (np.uint8, 0x7F),
}
_CHUNK_VALUES = 2**22


def check_numbers(path: Path, header: SafetensorsHeader) -> None:
    """Read every floating-point tensor once.

    Raises:
        LoraInvalid: one holds NaN or infinity, or the file cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            for name, info in header.tensors.items():
                if info.dtype in _MASKS and _has_none(view, header.spans[name], info.dtype):
                    raise LoraInvalid(f"The tensor {name[:120]} holds values that are not numbers")
    except OSError as error:
        raise LoraInvalid(f"The file cannot be read ({type(error).__name__})") from error


def _has_none(view: mmap.mmap, span: tuple[int, int], dtype: str) -> bool:
    kind, bits = _MASKS[dtype]
    width, mask = DTYPE_BYTES[dtype], kind(bits)
    begin, end = span
    for at in range(begin, end, _CHUNK_VALUES * width):
        # A copy, because a view into the map would keep it open.
        raw = view[at : min(end, at + _CHUNK_VALUES * width)]
        values = np.frombuffer(raw, dtype=np.dtype(kind).newbyteorder("<"))
        if bool(((values & mask) == mask).any()):
            return True
    return False
