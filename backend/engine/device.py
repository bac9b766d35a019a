"""Which device a worker computes on, decided by trying: a card is believed in when it computes right.

Knows the ways in which cards, drivers and builds of torch do not go together, and what helps. Decides nothing about
memory, precision or models.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch

from backend.core.errors import DeviceUnusable
from backend.core.hardware import HardwareProfile

#: How long cards may take to be found and tried: starting CUDA takes seconds; a driver that hangs takes for ever.
TRIAL_SECONDS: Final = 120.0
CPU: Final = "cpu"
PROCESSOR: Final = "processor"
#: What torch raises when a card, a driver or a library fails; an allocator without memory is one of them.
FAILURES: Final = (RuntimeError, AssertionError, OSError, ValueError, MemoryError)
_INSTRUCTION_SET = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")
#: Major number of the first Linux driver for CUDA 13.0 and for 12.x (CUDA toolkit release notes, tables of drivers).
_DRIVER_OF_CUDA_13, _DRIVER_OF_CUDA_12 = 580, 525
#: The first cards that only CUDA 12.8 and newer knows, and the oldest ones that CUDA 13 still knows.
_BLACKWELL, _TURING = (10, 0), (7, 5)


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


@dataclass(frozen=True, slots=True)
class DeviceVerdict:
    """The device to use, and what is to be said about it."""

    device: str  #: its name in torch
    name: str  #: the card's name, or "processor"
    reason: str  #: why this one, as a sentence without its full stop
    warnings: tuple[str, ...] = ()  #: what should work and does not, each with what helps


def choose_device(
    wish: str, facts: DeviceFacts, hardware: HardwareProfile, *, seconds: float = TRIAL_SECONDS
) -> DeviceVerdict:
    """Find the device that works; "auto" goes down to the processor and says why, anything else is an order.

    Args:
        wish: "auto", "cpu", "cuda" or "cuda:N".
        facts: what torch says.
        hardware: what NVML says, for cards that torch does not see.
        seconds: how long the cards may take; what hangs after that is left to itself.

    Raises:
        DeviceUnusable: the device that was ordered cannot be used, or there is no such name.
    """
    if wish == CPU:
        return DeviceVerdict(CPU, PROCESSOR, "the processor was chosen in WAN22_DEVICE")
    number = _card_number(wish)
    found = _Trials(facts, hardware)
    usable = found.first_in_time(number, seconds)
    if usable is not None:
        return DeviceVerdict(usable.device, usable.name, f"{usable.name} passed its trial", tuple(found.failures))
    if wish == "auto":
        if found.failures:
            reason = "no card can be used, so videos are made on the processor"
            return DeviceVerdict(CPU, PROCESSOR, reason, tuple(found.failures))
        return DeviceVerdict(CPU, PROCESSOR, "no NVIDIA card was found, so videos are made on the processor")
    why = "; ".join(found.failures) or f"torch {facts.build} sees no such card"
    raise DeviceUnusable(f"WAN22_DEVICE asks for {wish}, which cannot be used: {why}", suggestions=found.steps())


def _card_number(wish: str) -> int | None:
    """Return the number of the card in a wish; None = any."""
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", wish)
    if match is None:
        raise DeviceUnusable(f"WAN22_DEVICE has no device {wish!r}", suggestions=("Use auto, cpu, cuda or cuda:N.",))
    return None if match[1] is None else int(match[1])


class _Trials:
    """Tries cards, and keeps sentences about those that fail."""

    def __init__(self, facts: DeviceFacts, hardware: HardwareProfile) -> None:
        self._facts = facts
        self._hardware = hardware
        self.failures: list[str] = []
        self._advice: list[str] = []

    def first_in_time(self, number: int | None, seconds: float) -> Card | None:
        """Return what `first` does, or None when it takes too long."""
        answers: list[Card | None] = []
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                answers.append(self.first(number))
            except BaseException as error:  # the boundary of a thread: whoever waits for it raises it
                errors.append(error)

        # A daemon: a call that hangs inside the driver must not keep the process from ending.
        thread = threading.Thread(target=ask, name="device-trial", daemon=True)
        thread.start()
        thread.join(seconds)
        if errors:
            raise errors[0]
        if not answers:
            self._fail(f"the cards did not answer within {seconds:g} s", "Restart the machine, or update the driver.")
            return None
        return answers[0]

    def first(self, number: int | None) -> Card | None:
        """Return the first card that passes, or None; only the card with this number where there is one."""
        facts, hardware = self._facts, self._hardware
        if facts.cuda is None:
            self._without_cuda()
            return None
        try:
            available = facts.available()
            if not available:
                facts.start()
            cards = facts.cards()
        except FAILURES as error:
            self._does_not_start(_words(error))
            return None
        if not cards and (available or hardware.gpus):
            seen = f"NVIDIA's library sees {hardware.gpus[0].name}" if hardware.gpus else "it says that there is one"
            self._fail(f"torch {facts.build} lists no card although {seen}", "Look at CUDA_VISIBLE_DEVICES.")
        for card in cards:
            if number in (None, card.index) and self._passes(card):
                return card
        return None

    def steps(self) -> tuple[str, ...]:
        """What would help, and what would do without."""
        return (*self._advice, "Set WAN22_DEVICE to auto: what is usable is used then.")

    def _fail(self, sentence: str, step: str) -> None:
        self._advice.append(step)
        self.failures.append(f"{sentence}. {step}")

    def _without_cuda(self) -> None:
        names = ", ".join(gpu.name for gpu in self._hardware.gpus)
        if names:
            capability = self._hardware.gpus[0].compute_capability
            sentence = f"torch {self._facts.build} is built without CUDA, so {names} cannot be used"
            self._fail(sentence, _wheel(capability, self._hardware.driver))
        for finding in self._hardware.findings:
            self._fail(finding, "Install or repair the NVIDIA driver.")

    def _does_not_start(self, words: str) -> None:
        hardware = self._hardware
        lacks_driver = "no NVIDIA driver" in words or "No CUDA GPUs" in words  # torch's words for an ordinary machine
        if lacks_driver and not hardware.gpus and not hardware.findings:
            return
        capability = hardware.gpus[0].compute_capability if hardware.gpus else None
        step = "Install or repair the NVIDIA driver."
        if "too old" in words:
            step = f"Update the NVIDIA driver, or: {_wheel(capability, hardware.driver)}"
        self._fail(f"torch {self._facts.build} cannot start CUDA: {words}", step)

    def _passes(self, card: Card) -> bool:
        try:
            self._facts.compute(card.device)
        except FAILURES as error:
            words = _words(error)
        else:
            return True
        sets = list(self._facts.architectures())
        step = "Look whether another program fills or blocks the card; update the driver."
        sentence = f"{card.name} failed its trial: {words}"
        if not runs_on(card.capability, sets):
            step = _wheel(card.capability, self._hardware.driver)
            major, minor = card.capability
            sentence = (
                f"{card.name} has compute capability {major}.{minor}, for which torch {self._facts.build} "
                f"has no code ({', '.join(sets) or 'none at all'}): {words}"
            )
        self._fail(sentence, step)
        return False


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


def _wheel(capability: tuple[int, int] | None, driver: str | None) -> str:
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


def _words(error: BaseException) -> str:
    """Return what an exception says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
