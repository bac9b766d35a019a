"""Tests in a separate process what the engine can do here, and keeps the result until something relevant changes.

Needs no torch, so the command line can use it too. A process that dies or hangs while testing a kernel fails that
kernel, and another process continues with the next one.
"""

from __future__ import annotations

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

from backend.core.files import parse_json, read_json, write_json
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
#: Time limit of one process, in seconds: importing torch on a busy machine, and a few seconds of tests.
SECONDS: Final = 180.0
#: Packages whose version affects the result, besides the device and the driver.
_PACKAGES: Final = ("torch", "diffusers", "flash-attn", "flash-attn-3", "sageattention", "xformers")


@dataclass(slots=True)
class EngineAnswer:
    """The engine's report."""

    facts: dict[str, Any] = field(default_factory=dict)  #: torch, cuda, architectures, device, reason, warnings
    precision: PrecisionVerdict | None = None
    kernels: dict[str, KernelVerdict] = field(default_factory=dict)
    trying: str | None = None  #: the kernel under test when its process ended
    done: bool = False
    failure: str | None = None  #: why the report is incomplete
    late: bool = False  #: a process timed out

    @property
    def device(self) -> str | None:
        """The working device; None = unknown."""
        name: str | None = self.facts.get("device")
        return name

    @property
    def unusable(self) -> str | None:
        """Why the requested device cannot be used; None = it can."""
        text: str | None = self.facts.get("unusable")
        return text

    def read(self, line: str) -> None:
        """Read one line of the engine's output; other lines are skipped (libraries print too)."""
        try:
            reported = parse_json(line)
        except ValueError:
            return
        if not isinstance(reported, dict):
            return
        if "precision" in reported:
            self.precision = PrecisionVerdict(**reported["precision"])
        elif "trying" in reported:
            self.trying = reported["trying"]
        elif "kernel" in reported:
            found = KernelVerdict.from_json(reported["kernel"])
            self.kernels[found.kernel] = found
            self.trying = None
        elif "done" in reported:
            self.done = True
        else:
            self.facts |= reported


def ask_engine(
    device: str, wish: AttentionSetting, *, program: Sequence[str] = PROGRAM, seconds: float = SECONDS
) -> EngineAnswer:
    """Let the engine test a device ("auto" or a name) and the kernels that the attention setting allows.

    Args:
        device: as in the setting.
        wish: the attention setting.
        program: arguments of the interpreter that start the test.
        seconds: time limit of each process.
    """
    answer = EngineAnswer()
    while True:
        skipped = [f"--skip={name}" for name in answer.kernels if name != NATIVE]
        arguments = [*program, f"--device={device}", f"--attention={wish.value}", *skipped]
        end = _run([sys.executable, *arguments], seconds, answer)
        if answer.done or answer.unusable is not None:
            return answer
        if answer.trying in (None, NATIVE):
            answer.failure = f"the engine could not be queried: its process {end}"
            return answer
        answer.kernels[answer.trying] = KernelVerdict(answer.trying, Verdict.FAILED, f"its process {end}")
        answer.trying = None


def _run(command: list[str], seconds: float, answer: EngineAnswer) -> str:
    """Run one process, read its report, and return how it ended."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        try:
            code = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, timeout=seconds, check=False
            ).returncode
            end = f"ended with {signal.Signals(-code).name if code < 0 else f'exit status {code}'}"
        except subprocess.TimeoutExpired:
            code, end = 1, f"did not end within {seconds:g} s"
            answer.late = True
        except OSError as error:
            return f"could not be started: {error.strerror}"
        output.seek(0)
        for line in output:
            answer.read(line)
        errors.seek(0)
        last = errors.read().strip().splitlines()[-1:] if code > 0 else []
    return f"{end} ({last[0]})" if last else end


def find_abilities(
    file: Path, device: str, device_name: str, driver: str | None, wish: AttentionSetting, *, ask: Any = ask_engine
) -> Abilities:
    """Return what a device can do: the recorded result if nothing has changed since, or that of a new test.

    On a processor there is nothing to test unless a kernel is named: it uses torch's own attention, in float32.

    Args:
        file: where the result is kept.
        device: its name in torch.
        device_name: its product name, by which it is recognised.
        driver: version of its driver.
        wish: the attention setting.
        ask: `ask_engine`, or a substitute.
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
        # Not recorded: the next start tests again. The precision is the one that the models were published in.
        precision = answer.precision or PrecisionVerdict(
            "float32" if device == "cpu" else "bfloat16", "it was not tested"
        )
        sentence = f"The device was not fully tested: {failure}. Run `wan22 doctor`."
        return Abilities(precision, kernels, NATIVE, (sentence,))
    found = Abilities(answer.precision, kernels, chosen, warnings)
    _keep(file, _key(device_name, driver, wish), found)
    return found


def recorded_abilities(file: Path, device_name: str, driver: str | None, wish: AttentionSetting) -> Abilities | None:
    """Return the recorded result for a device, if nothing has changed since; None = unknown."""
    try:
        record = read_json(file)
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
    """Record the result; a file that cannot be written is reported elsewhere."""
    with suppress(OSError):
        write_json(file, {"key": key, "abilities": found.to_json()})
