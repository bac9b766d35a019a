"""Named points at which a test can make this process die, stall or run out of memory.

`WAN22_FAULTS="denoise.step:3=kill"` sends SIGKILL to the process at the third passage of that point;
`=hang` blocks there for ever, `=oom` behaves as a device without memory, `=ram` as a host without.
Without the variable a point costs one dictionary look-up.
"""

from __future__ import annotations

import os
import signal
import threading


class DeviceFull(MemoryError):
    """What a test gets for the memory of a device, on whatever device it runs."""


def _read(text: str) -> dict[str, dict[int, str]]:
    plan: dict[str, dict[int, str]] = {}
    for entry in filter(None, text.split(",")):
        place, _, action = entry.partition("=")
        point, _, count = place.partition(":")
        plan.setdefault(point, {})[int(count or 1)] = action
    return plan


_PLAN = _read(os.environ.get("WAN22_FAULTS", ""))
_passed: dict[str, int] = {}


def fault_point(name: str) -> None:
    """Pass a named point; do what `WAN22_FAULTS` says about it."""
    if name not in _PLAN:
        return
    _passed[name] = _passed.get(name, 0) + 1
    action = _PLAN[name].get(_passed[name])
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "oom":
        raise DeviceFull(f"no memory at {name}, as a test wished")
    if action == "ram":
        raise MemoryError(f"no memory of the host at {name}, as a test wished")
    if action == "hang":
        threading.Event().wait()
