"""What other programs do with the device: the memory they hold, and how much of its time they use.

Asks torch, NVML and the kernel. Decides nothing.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

import psutil
import pynvml
import torch

from backend.core.planning.memory_level import MemoryReading, Place


class OtherPrograms:
    """The other programs on one device; on a CPU, those of the machine."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._process = psutil.Process()
        self._before: _Processor | None = None
        self._card: Any = None  # NVML's handle, once it is known
        self._seen = 0  # time of the newest sample of NVML

    def memory(self) -> MemoryReading | None:
        """Return what they hold of the device's memory; on a CPU of the host's. None = it cannot be read.

        The few hundred MiB that the driver needs for this process count as theirs.
        """
        if self._device.type != "cuda":
            host = psutil.virtual_memory()
            used = host.total - host.available - self._process.memory_info().rss
            return MemoryReading(Place.RAM, max(0, used), host.total)
        try:
            free, total = torch.cuda.mem_get_info(self._device)
            own = torch.cuda.memory_reserved(self._device)
        except RuntimeError:  # the card is gone; the computing thread reports it
            return None
        return MemoryReading(Place.VRAM, max(0, total - free - own), total)

    def load(self) -> float | None:
        """Return how much of the device's time they used since the last call, in percent. None = it cannot be read."""
        return self._of_card() if self._device.type == "cuda" else self._of_processor()

    def _of_processor(self) -> float | None:
        times, own = psutil.cpu_times(), self._process.cpu_times()
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        before, self._before = self._before, _Processor(time.monotonic(), busy, own.user + own.system)
        if before is None or self._before.moment <= before.moment:
            return None
        seconds = (self._before.moment - before.moment) * (psutil.cpu_count() or 1)
        others = (self._before.busy - before.busy) - (self._before.own - before.own)
        return min(100.0, max(0.0, 100.0 * others / seconds))

    def _of_card(self) -> float | None:
        try:
            if self._card is None:
                pynvml.nvmlInit()
                identity = torch.cuda.get_device_properties(self._device).uuid
                self._card = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{identity}".encode())
            running = {one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(self._card)}
            if os.getpid() not in running:  # in a container the numbers are others, and our own load would count
                return None
            samples = pynvml.nvmlDeviceGetProcessUtilization(self._card, self._seen)
        except pynvml.NVMLError_NotFound:  # nobody used it since
            return 0.0
        except (pynvml.NVMLError, OSError, RuntimeError):
            return None
        self._seen = max([self._seen, *(one.timeStamp for one in samples)])
        highest: dict[int, float] = {}
        for one in samples:
            if one.pid != os.getpid():
                highest[one.pid] = max(highest.get(one.pid, 0.0), float(one.smUtil))
        return min(100.0, sum(highest.values()))


@dataclass(frozen=True, slots=True)
class _Processor:
    moment: float
    busy: float  #: seconds of all cores since the machine's start
    own: float  #: of these, of this process
