"""What torch says and what the device can do, told line by line as JSON: `python -m backend.engine.self_test`.

A process of its own, because a kernel that crashes takes its process along, and because who asks may have no torch.
Each line is one object; before a kernel is tried it is named, so that its reader knows what the last words are about.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any

import torch

from backend.core.errors import DeviceUnusable
from backend.core.planning.abilities import NATIVE, AttentionSetting, KernelVerdict
from backend.core.planning.hardware import detect_hardware
from backend.engine.device.attention import names_for, try_by_name
from backend.engine.device.choice import choose_device
from backend.engine.device.facts import FAILURES, DeviceFacts, TorchDevices
from backend.engine.device.precision import choose_precision

Emit = Callable[[dict[str, Any]], None]
#: Tries one kernel: its name, the wish, the device, the numbers, and the seconds of torch's own.
Try = Callable[[str, AttentionSetting, torch.device, torch.dtype, float | None], KernelVerdict]


def tell(
    device: str,
    wish: AttentionSetting,
    emit: Emit,
    *,
    skip: Collection[str] = (),
    facts: DeviceFacts | None = None,
    try_kernel: Try = try_by_name,
) -> None:
    """Find everything out and tell it.

    Args:
        device: "auto", or the one to use.
        wish: which kernels to try.
        emit: takes one line.
        skip: kernels that are not tried.
        facts: what torch says; None = the torch of this process.
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
    for name in names_for(wish, there.type):
        if name in skip:
            continue
        emit({"trying": name})
        found = try_kernel(name, wish, there, dtype, native_seconds)
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
    """Tell it on standard output, for the device and the wish in the arguments of the process."""
    parser = argparse.ArgumentParser(prog="python -m backend.engine.self_test")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--attention", type=AttentionSetting, default=AttentionSetting.AUTO)
    parser.add_argument("--skip", action="append", default=[])
    given = parser.parse_args()
    tell(given.device, given.attention, to_stdout, skip=given.skip, facts=facts, try_kernel=try_kernel)


def to_stdout(line: dict[str, Any]) -> None:
    """Write a line at once: the next moment may be the last one."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
