"""Asks the engine, in a process of its own, what it can do here; remembers the answer for as long as it can hold.

Needs no torch, so the command line can ask too. A process that dies or hangs while it tries a kernel is the verdict on
that kernel, and another one goes on with the next.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from backend.core.files import write_json
from backend.core.planning.abilities import (
    NATIVE,
    Abilities,
    AttentionSetting,
    KernelVerdict,
    PrecisionVerdict,
    Verdict,
    choose_kernel,
)

PROGRAM: Final = ("-m", "backend.engine.self_test")
#: How long one process may take: importing torch on a busy machine, and a few seconds of trying.
SECONDS: Final = 180.0
#: What decides the answer, beside the device and the driver.
_PACKAGES: Final = ("torch", "diffusers", "flash-attn", "flash-attn-3", "sageattention", "xformers")


@dataclass(slots=True)
class EngineAnswer:
    """What the engine told."""

    facts: dict[str, Any] = field(default_factory=dict)  #: torch, cuda, architectures, device, reason, warnings
    precision: PrecisionVerdict | None = None
    kernels: dict[str, KernelVerdict] = field(default_factory=dict)
    trying: str | None = None  #: the kernel it was at when its process ended
    done: bool = False
    failure: str | None = None  #: why there is no whole answer
    late: bool = False  #: a process did not end in time

    @property
    def device(self) -> str | None:
        """The device that works; None = not known."""
        name: str | None = self.facts.get("device")
        return name

    @property
    def unusable(self) -> str | None:
        """Why the device that was asked for cannot be used."""
        text: str | None = self.facts.get("unusable")
        return text

    def read(self, line: str) -> None:
        """Take one line of the engine's in; what is none is left out (libraries print too)."""
        try:
            told = json.loads(line)
        except ValueError:
            return
        if not isinstance(told, dict):
            return
        if "precision" in told:
            self.precision = PrecisionVerdict(**told["precision"])
        elif "trying" in told:
            self.trying = told["trying"]
        elif "kernel" in told:
            found = KernelVerdict.from_json(told["kernel"])
            self.kernels[found.kernel] = found
            self.trying = None
        elif "done" in told:
            self.done = True
        else:
            self.facts |= told


def ask_engine(
    device: str, wish: AttentionSetting, *, program: Sequence[str] = PROGRAM, seconds: float = SECONDS
) -> EngineAnswer:
    """Let the engine try a device ("auto" or a name) and the kernels that the wish allows.

    Args:
        device: as in the setting.
        wish: as in the setting.
        program: arguments of the interpreter that start it.
        seconds: how long each process may take.
    """
    answer = EngineAnswer()
    while True:
        skipped = [f"--skip={name}" for name in answer.kernels if name != NATIVE]
        arguments = [*program, f"--device={device}", f"--attention={wish.value}", *skipped]
        end = _run([sys.executable, *arguments], seconds, answer)
        if answer.done or answer.unusable is not None:
            return answer
        if answer.trying in (None, NATIVE):
            answer.failure = f"the engine could not be asked: its process {end}"
            return answer
        answer.kernels[answer.trying] = KernelVerdict(answer.trying, Verdict.FAILED, f"its process {end}")
        answer.trying = None


def _run(command: list[str], seconds: float, answer: EngineAnswer) -> str:
    """Run one process, take in what it told, and return how it ended."""
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as words:
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=told, stderr=words, timeout=seconds, check=False
            ).returncode
            end = f"ended with {signal.Signals(-code).name if code < 0 else f'exit status {code}'}"
        except subprocess.TimeoutExpired:
            code, end = 1, f"did not end within {seconds:g} s"
            answer.late = True
        except OSError as error:
            return f"could not be started: {error.strerror}"
        told.seek(0)
        for line in told:
            answer.read(line)
        words.seek(0)
        last = words.read().strip().splitlines()[-1:] if code > 0 else []
    return f"{end} ({last[0]})" if last else end


def find_abilities(
    file: Path, device: str, device_name: str, driver: str | None, wish: AttentionSetting, *, ask: Any = ask_engine
) -> Abilities:
    """Return what a device can do: as it was found out before, if nothing has changed since, or by trying now.

    On a processor there is nothing to try unless a kernel is named: torch's own attention, in float32.

    Args:
        file: where the answer is kept.
        device: its name in torch.
        device_name: its name in words, by which it is recognised.
        driver: version of its driver.
        wish: as in the setting.
        ask: `ask_engine`.
    """
    if device == "cpu" and wish in (AttentionSetting.AUTO, AttentionSetting.SPEED, AttentionSetting.NATIVE):
        return Abilities(PrecisionVerdict("float32", "a processor computes in float32"), (), NATIVE)
    kept = recorded_abilities(file, device_name, driver, wish)
    if kept is not None:
        return kept
    answer = ask(device, wish)
    kernels = tuple(answer.kernels.values())
    chosen, warnings = choose_kernel(wish, kernels)
    failure = answer.failure or answer.unusable
    if failure is not None or answer.precision is None:
        # Not kept: the next start asks again. The precision is the one that the models were published in.
        precision = answer.precision or PrecisionVerdict(
            "float32" if device == "cpu" else "bfloat16", "it was not tried"
        )
        sentence = f"The device was not tried in full: {failure}. Run `wan22 doctor`."
        return Abilities(precision, kernels, NATIVE, (sentence,))
    found = Abilities(answer.precision, kernels, chosen, warnings)
    _keep(file, _key(device_name, driver, wish), found)
    return found


def recorded_abilities(file: Path, device_name: str, driver: str | None, wish: AttentionSetting) -> Abilities | None:
    """Return what a device was found able to do before, if nothing has changed since; None = that is not known."""
    try:
        record = json.loads(file.read_text())
        same = record["key"] == _key(device_name, driver, wish)
        return Abilities.from_json(record["abilities"]) if same else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _key(device_name: str, driver: str | None, wish: AttentionSetting) -> dict[str, Any]:
    return {"device": device_name, "driver": driver, "wish": wish.value} | {name: _version(name) for name in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _keep(file: Path, key: dict[str, Any], found: Abilities) -> None:
    """Write the answer down; a disk that takes no file is reported elsewhere."""
    with suppress(OSError):
        write_json(file, {"key": key, "abilities": found.to_json()})
