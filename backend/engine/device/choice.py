"""Which device a worker computes on, decided by trying: a card is believed in when it computes right.

Knows the ways in which cards, drivers and builds of torch do not go together, and what helps. Decides nothing about
memory, precision or models.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Final

from backend.core.errors import DeviceUnusable
from backend.core.planning.hardware import HardwareProfile
from backend.engine.device.facts import FAILURES, Card, DeviceFacts, in_one_line, runs_on, suitable_wheel

#: How long cards may take to be found and tried: starting CUDA takes seconds; a driver that hangs takes for ever.
TRIAL_SECONDS: Final = 120.0
CPU: Final = "cpu"
PROCESSOR: Final = "processor"


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
            self._does_not_start(in_one_line(error))
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
            self._fail(sentence, suitable_wheel(capability, self._hardware.driver))
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
            step = f"Update the NVIDIA driver, or: {suitable_wheel(capability, hardware.driver)}"
        self._fail(f"torch {self._facts.build} cannot start CUDA: {words}", step)

    def _passes(self, card: Card) -> bool:
        try:
            self._facts.compute(card.device)
        except FAILURES as error:
            words = in_one_line(error)
        else:
            return True
        sets = list(self._facts.architectures())
        step = "Look whether another program fills or blocks the card; update the driver."
        sentence = f"{card.name} failed its trial: {words}"
        if not runs_on(card.capability, sets):
            step = suitable_wheel(card.capability, self._hardware.driver)
            major, minor = card.capability
            sentence = (
                f"{card.name} has compute capability {major}.{minor}, for which torch {self._facts.build} "
                f"has no code ({', '.join(sets) or 'none at all'}): {words}"
            )
        self._fail(sentence, step)
        return False
