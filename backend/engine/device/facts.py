"""What torch reports about this process's cards, and which builds and wheels of torch suit a card and its driver.

`DeviceFacts` asks one question at a time, so that tests can substitute the answers. Decides nothing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch

#: What torch raises when a card, a driver or a library fails, running out of memory included.
FAILURES: Final = (RuntimeError, AssertionError, OSError, ValueError, MemoryError)
_REPEATS: Final = 5
_INSTRUCTION_SET: Final = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")
#: Major version of the first Linux driver for CUDA 13.0 and for 12.x (CUDA toolkit release notes, driver tables).
_DRIVER_OF_CUDA_13: Final = 580
_DRIVER_OF_CUDA_12: Final = 525
#: The first cards that need CUDA 12.8 or newer, and the oldest that CUDA 13 supports.
_BLACKWELL: Final = (10, 0)
_TURING: Final = (7, 5)


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU as torch reports it."""

    index: int
    name: str
    capability: tuple[int, int]

    @property
    def device(self) -> str:
        """Torch's name for it."""
        return f"cuda:{self.index}"


class DeviceFacts(Protocol):
    """What a build of torch reports about the cards; every method may raise one of `FAILURES`."""

    @property
    def build(self) -> str:
        """The version of torch, such as 2.13.0+cu130."""

    @property
    def cuda(self) -> str | None:
        """The CUDA version that torch was built with; None = a build without CUDA."""

    def available(self) -> bool:
        """Whether torch claims that it can use a card."""

    def start(self) -> None:
        """Start CUDA; raises the reason where `available` only returns False."""

    def cards(self) -> Sequence[Card]:
        """Return the visible cards."""

    def architectures(self) -> Sequence[str]:
        """Return the build's instruction sets: sm_NN as machine code, compute_NN as PTX that the driver compiles."""

    def compute(self, device: str) -> None:
        """Compute something small with a known result; raises if the device fails or the result is wrong."""


class TorchDevices:
    """The torch of this process."""

    @property
    def build(self) -> str:
        """See `DeviceFacts`."""
        return str(torch.__version__)

    @property
    def cuda(self) -> str | None:
        """See `DeviceFacts`."""
        return torch.version.cuda

    def available(self) -> bool:
        """See `DeviceFacts`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `start` raises the same as an error
            return torch.cuda.is_available()

    def start(self) -> None:
        """See `DeviceFacts`."""
        torch.cuda.current_device()

    def cards(self) -> Sequence[Card]:
        """See `DeviceFacts`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about cards newer than itself
            return [
                Card(index, torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index))
                for index in range(torch.cuda.device_count())
            ]

    def architectures(self) -> Sequence[str]:
        """See `DeviceFacts`."""
        return torch.cuda.get_arch_list()

    def compute(self, device: str) -> None:
        """See `DeviceFacts`: a sine and a matrix product, so that kernels of torch and of its libraries run."""
        host = torch.sin(torch.arange(64 * 64, dtype=torch.float32).reshape(64, 64))
        there = torch.sin(torch.arange(64 * 64, dtype=torch.float32, device=device).reshape(64, 64))
        error = float(((there @ there).cpu() - host @ host).abs().max())
        # Sums of 64 products of values below 1; TF32 keeps ten bits of each factor: 64 * 2 / 2^11.
        if not error <= 64 * 2 / 2**11:
            raise RuntimeError(f"a matrix product is off by {error:.3g}")


def in_one_line(error: BaseException) -> str:
    """Return the first line of an exception's message."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def timed(
    call: Callable[[], torch.Tensor], device: torch.device, clock: Callable[[], float]
) -> tuple[torch.Tensor, float]:
    """Return a call's result and the shortest of a few runs, in seconds; an untimed first call also loads and plans."""
    result, taken = call(), []
    for _ in range(_REPEATS):
        _synchronize(device)
        began = clock()
        result = call()
        _synchronize(device)
        taken.append(clock() - began)
    return result, min(taken)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether a build with these instruction sets has code for a card.

    Machine code runs on cards with the same major version and at least its minor version; architecture-specific code
    (sm_90a) on that one alone. PTX compiles for every card that is not older (CUDA C++ Programming Guide, chapters
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
    """Return advice on which wheel of torch suits a card and a driver."""
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
