"""Reports torch's facts and the device's abilities as JSON lines: `python -m backend.engine.self_test`.

Runs in its own process, because a crashing kernel takes its process down and the caller may lack torch. Each line is
one object; a kernel is named before it is tried, so that the reader knows which one crashed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any

import torch

from backend.core.errors.surroundings import DeviceUnusable
from backend.core.planning.abilities import NATIVE, AttentionSetting, KernelVerdict
from backend.core.planning.hardware import detect_hardware
from backend.engine.device.attention import names_for, try_by_name
from backend.engine.device.choice import choose_device
from backend.engine.device.facts import FAILURES, DeviceFacts, TorchDevices
from backend.engine.device.precision import choose_precision

Emit = Callable[[dict[str, Any]], None]
#: Tries one kernel, given its name, the setting, the device, the dtype, and the seconds of torch's own kernel.
Try = Callable[[str, AttentionSetting, torch.device, torch.dtype, float | None], KernelVerdict]


def report_abilities(
    device: str,
    setting: AttentionSetting,
    emit: Emit,
    *,
    skip: Collection[str] = (),
    facts: DeviceFacts | None = None,
    try_kernel: Try = try_by_name,
) -> None:
    """Probe torch, the device, its precision and its kernels, and pass each finding to `emit` as one line.

    Args:
        device: the value of WAN22_DEVICE.
        setting: which kernels to try.
        emit: receives one line.
        skip: kernels that are not tried.
        facts: what torch reports; None = the torch of this process.
        try_kernel: tries one kernel.
    """
    facts = facts or TorchDevices()
    emit({"torch": facts.build, "cuda": facts.cuda, "architectures": _architectures(facts)})
    try:
        verdict = choose_device(device, facts, detect_hardware())
    except DeviceUnusable as error:
        emit({"unusable": error.message, "next_steps": list(error.next_steps)})
        return
    emit(asdict(verdict))
    there = torch.device(verdict.device)
    precision = choose_precision(there)
    emit({"precision": asdict(precision)})
    dtype: torch.dtype = getattr(torch, precision.precision)
    native_seconds: float | None = None
    for name in names_for(setting, there.type):
        if name in skip:
            continue
        emit({"trying": name})
        found = try_kernel(name, setting, there, dtype, native_seconds)
        emit({"kernel": asdict(found)})
        if name == NATIVE:
            native_seconds = found.seconds
    emit({"done": True})


def _architectures(facts: DeviceFacts) -> list[str]:
    try:
        return list(facts.architectures())
    except FAILURES:
        return []


def main(*, facts: DeviceFacts | None = None, try_kernel: Try = try_by_name) -> None:
    """Report to standard output; the process's arguments choose the device and the kernels."""
    parser = argparse.ArgumentParser(prog="python -m backend.engine.self_test")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--attention", type=AttentionSetting, default=AttentionSetting.AUTO)
    parser.add_argument("--skip", action="append", default=[])
    given = parser.parse_args()
    report_abilities(given.device, given.attention, to_stdout, skip=given.skip, facts=facts, try_kernel=try_kernel)


def to_stdout(line: dict[str, Any]) -> None:
    """Write a line and flush it: the next kernel may crash the process."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
