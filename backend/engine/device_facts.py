"""What torch says about the cards of this process, one question at a time, so that a test can answer in its place.

Believes and decides nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch

#: What torch raises when a card, a driver or a library fails; an allocator without memory is one of them.
FAILURES: Final = (RuntimeError, AssertionError, OSError, ValueError, MemoryError)


@dataclass(frozen=True, slots=True)
class Card:
    """A card as torch sees it."""

    index: int
    name: str
    capability: tuple[int, int]

    @property
    def device(self) -> str:
        """Its name in torch."""
        return f"cuda:{self.index}"


class DeviceFacts(Protocol):
    """What a build of torch says about the cards; every answer may raise one of `FAILURES`."""

    @property
    def build(self) -> str:
        """Version of torch, such as 2.13.0+cu130."""

    @property
    def cuda(self) -> str | None:
        """Version of CUDA that it was built with; None = without."""

    def available(self) -> bool:
        """Whether torch believes that it can use a card."""

    def start(self) -> None:
        """Start CUDA; raises what is wrong where `available` only says no."""

    def cards(self) -> Sequence[Card]:
        """The cards."""

    def architectures(self) -> Sequence[str]:
        """The instruction sets in this build: sm_NN as machine code, compute_NN as PTX for the driver to translate."""

    def compute(self, device: str) -> None:
        """Compute something small whose result is known; raises when the device fails or computes wrong."""


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
            warnings.simplefilter("ignore")  # `start` raises the same in words
            return torch.cuda.is_available()

    def start(self) -> None:
        """See `DeviceFacts`."""
        torch.cuda.current_device()

    def cards(self) -> Sequence[Card]:
        """See `DeviceFacts`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own opinion about cards that are newer than it
            return [
                Card(index, torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index))
                for index in range(torch.cuda.device_count())
            ]

    def architectures(self) -> Sequence[str]:
        """See `DeviceFacts`."""
        return torch.cuda.get_arch_list()

    def compute(self, device: str) -> None:
        """See `DeviceFacts`: a sine, a product and a sum, so that kernels of torch and of its libraries run."""
        host = torch.sin(torch.arange(64 * 64, dtype=torch.float32).reshape(64, 64))
        there = torch.sin(torch.arange(64 * 64, dtype=torch.float32, device=device).reshape(64, 64))
        error = float(((there @ there).cpu() - host @ host).abs().max())
        # Sums of 64 products of numbers below 1; TF32 keeps ten bits of each factor: 64 * 2 / 2^11.
        if not error <= 64 * 2 / 2**11:
            raise RuntimeError(f"a product of matrices is off by {error:.3g}")


def in_one_line(error: BaseException) -> str:
    """Return what an exception says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
