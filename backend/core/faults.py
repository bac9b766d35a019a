"""Named points at which a test can make this process die, hang or run out of memory.

`WAN22_FAULTS="denoise.step:3=kill"` kills the process when it passes that point for the third time;
`=hang` blocks there for ever, `=oom` simulates a device out of memory, `=ram` a host out of memory, `=error` an error
that nobody foresaw, and a name of `DEVICE_ERRORS` the error that torch raises for it. `denoise.step:*=slow` makes each
passage take a fifth of a second, so that a test can act in the middle of a run on a machine of any speed.
Without the variable a point costs one dictionary lookup.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Final

#: The environment variable of the planned faults.
VARIABLE: Final = "WAN22_FAULTS"

#: The count that stands for every passage, and how long a slow one takes, in seconds.
_EVERY: Final = 0
_SLOW_SECONDS: Final = 0.2

#: What torch says when a device fails, by the name of the fault.
DEVICE_ERRORS: Final = {
    "illegal": "CUDA error: an illegal memory access was encountered\n"
    "CUDA kernel errors might be asynchronously reported at some other API call",
    "ecc": "CUDA error: uncorrectable ECC error encountered",
    "kernel": "CUDA error: no kernel image is available for execution on the device",
}


class DeviceFull(MemoryError):
    """A simulated out-of-memory error of a device, on any device."""


def _read(text: str) -> dict[str, dict[int, str]]:
    plan: dict[str, dict[int, str]] = {}
    for entry in filter(None, text.split(",")):
        place, _, action = entry.partition("=")
        point, _, count = place.partition(":")
        plan.setdefault(point, {})[_EVERY if count == "*" else int(count or 1)] = action
    return plan


_PLAN = _read(os.environ.get(VARIABLE, ""))
_passed: dict[str, int] = {}


def fault_point(name: str) -> None:
    """Pass a named point; inject the fault that `WAN22_FAULTS` plans for this passage."""
    if name not in _PLAN:
        return
    _passed[name] = _passed.get(name, 0) + 1
    action = _PLAN[name].get(_passed[name], _PLAN[name].get(_EVERY))
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "oom":
        raise DeviceFull(f"out of memory at {name}, injected by a test")
    if action == "ram":
        raise MemoryError(f"host out of memory at {name}, injected by a test")
    if action == "error":
        raise ValueError(f"an error at {name}, injected by a test")
    if action in DEVICE_ERRORS:
        raise RuntimeError(DEVICE_ERRORS[action])
    if action == "slow":
        time.sleep(_SLOW_SECONDS)
    if action == "hang":
        sys.stderr.write(f"hangs at {name}\n")  # for a test that must not act before
        sys.stderr.flush()
        threading.Event().wait()
