"""Chooses the device a worker computes on by trial: a card counts as usable once it has computed correctly.

Knows how cards, drivers and builds of torch can be incompatible, and the remedies. Decides nothing about memory,
precision or models.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Final

from backend.core.errors.surroundings import DeviceUnusable
from backend.core.planning.hardware import HardwareProfile
from backend.engine.device.facts import FAILURES, Card, DeviceFacts, in_one_line, runs_on, suitable_wheel

#: Time limit for finding and trying cards, in seconds: starting CUDA takes seconds, a hung driver never returns.
TRIAL_SECONDS: Final = 120.0
CPU: Final = "cpu"
PROCESSOR: Final = "processor"


@dataclass(frozen=True, slots=True)
class DeviceVerdict:
    """The device to use, with the reason and warnings."""

    device: str  #: torch's name for it
    name: str  #: the card's name, or "processor"
    reason: str  #: why this one, as a sentence without a full stop
    warnings: tuple[str, ...] = ()  #: what should work but does not, each with a remedy


def choose_device(
    setting: str, facts: DeviceFacts, hardware: HardwareProfile, *, seconds: float = TRIAL_SECONDS
) -> DeviceVerdict:
    """Return a device that works; "auto" falls back to the CPU with a reason, any other setting is binding.

    Args:
        setting: "auto", "cpu", "cuda" or "cuda:N".
        facts: what torch reports.
        hardware: what NVML reports, for cards that torch does not see.
        seconds: time limit for the cards; a trial that hangs longer is abandoned.

    Raises:
        DeviceUnusable: the requested device cannot be used or does not exist.
    """
    if setting == CPU:
        return DeviceVerdict(CPU, PROCESSOR, "the processor was chosen in WAN22_DEVICE")
    number = _card_number(setting)
    found = _Trials(facts, hardware)
    usable = found.first_in_time(number, seconds)
    if usable is not None:
        return DeviceVerdict(usable.device, usable.name, f"{usable.name} passed its trial", tuple(found.failures))
    if setting == "auto":
        if found.failures:
            reason = "no card can be used, so videos are generated on the processor"
            return DeviceVerdict(CPU, PROCESSOR, reason, tuple(found.failures))
        return DeviceVerdict(CPU, PROCESSOR, "no NVIDIA card was found, so videos are generated on the processor")
    why = "; ".join(found.failures) or f"torch {facts.build} sees no such card"
    raise DeviceUnusable(f"WAN22_DEVICE asks for {setting}, which cannot be used: {why}", suggestions=found.steps())


def _card_number(setting: str) -> int | None:
    """Return the card number in a setting; None = any card."""
    match = re.fullmatch(r"auto|cuda(?::(\d+))?", setting)
    if match is None:
        raise DeviceUnusable(
            f"WAN22_DEVICE: there is no device {setting!r}", suggestions=("Use auto, cpu, cuda or cuda:N.",)
        )
    return None if match[1] is None else int(match[1])


class _Trials:
    """Tries cards, and collects a sentence about each failure."""

    def __init__(self, facts: DeviceFacts, hardware: HardwareProfile) -> None:
        self._facts = facts
        self._hardware = hardware
        self.failures: list[str] = []
        self._advice: list[str] = []

    def first_in_time(self, number: int | None, seconds: float) -> Card | None:
        """Return the result of `first`, or None if it takes too long."""
        answers: list[Card | None] = []
        errors: list[BaseException] = []

        def ask() -> None:
            try:
                answers.append(self.first(number))
            except BaseException as error:  # thread boundary: raised again in the waiting thread
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
        """Return the first card that passes, or None; `number` restricts the trial to one card."""
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
            reported = f"NVIDIA's library sees {hardware.gpus[0].name}" if hardware.gpus else "it reports one"
            self._fail(f"torch {facts.build} lists no card although {reported}", "Check CUDA_VISIBLE_DEVICES.")
        for card in cards:
            if number in (None, card.index) and self._passes(card):
                return card
        return None

    def steps(self) -> tuple[str, ...]:
        """Return the remedies, and the way to run without a card."""
        return (*self._advice, "Set WAN22_DEVICE to auto to use whatever works.")

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
        lacks_driver = (
            "no NVIDIA driver" in words or "No CUDA GPUs" in words
        )  # torch's messages on a machine without a card
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
        step = "Check whether another program fills or blocks the card; update the driver."
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
