"""Which builds of torch have code for a card, and which wheel suits a card and its driver.

Arithmetic on names and versions; asks neither torch nor a card.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_INSTRUCTION_SET: Final = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")
#: Major number of the first Linux driver for CUDA 13.0 and for 12.x (CUDA toolkit release notes, tables of drivers).
_DRIVER_OF_CUDA_13: Final = 580
_DRIVER_OF_CUDA_12: Final = 525
#: The first cards that only CUDA 12.8 and newer knows, and the oldest ones that CUDA 13 still knows.
_BLACKWELL: Final = (10, 0)
_TURING: Final = (7, 5)


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether a build with these instruction sets has code for a card.

    Machine code runs on cards of the same major number and at least its minor one; code that is special to one
    (sm_90a) on that alone. PTX is translated for every card that is not older (CUDA C++ Programming Guide, chapter
    "Compute Capabilities" and "PTX Compatibility").
    """
    for name in architectures:
        match = _INSTRUCTION_SET.fullmatch(name)
        if match is None:
            continue
        kind, built, special = match[1], (int(match[2]), int(match[3])), match[4]
        exact = special == "a"
        if capability == built:
            return True
        if exact:
            continue
        if kind == "compute" and capability >= built and not special:
            return True
        if kind == "sm" and capability[0] == built[0] and capability[1] >= built[1]:
            return True
    return False


def suitable_wheel(capability: tuple[int, int] | None, driver: str | None) -> str:
    """Say which wheel of torch suits a card and a driver."""
    installed = int(match[0]) if (match := re.match(r"\d+", driver or "")) else None
    if capability is not None and capability < _TURING:
        return "Install torch's wheel for CUDA 12.6 (cu126), the last one for cards of this age."
    if installed is None or installed >= _DRIVER_OF_CUDA_13:
        return "Install torch's wheel for CUDA 13.0 (cu130)."
    if installed >= _DRIVER_OF_CUDA_12 and capability is not None and capability < _BLACKWELL:
        return f"Install torch's wheel for CUDA 12.6 (cu126), which the driver {driver} can run."
    return (
        f"Update the NVIDIA driver {driver} to {_DRIVER_OF_CUDA_13} or newer, "
        "then install torch's wheel for CUDA 13.0 (cu130)."
    )
