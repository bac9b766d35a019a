"""Measures the memory of a device and of this process: current use and peaks; frees caches.

Asks torch and the kernel. Judges nothing.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from backend.core.planning.hardware import detect_hardware
from backend.core.planning.memory_level import MemoryPeaks, MemoryReading, Place

#: Writing 5 here resets the kernel's peak resident size of this process (proc(5), since Linux 4.0).
_FORGET_PEAK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_KIB = 1024


class DeviceMemory:
    """Memory readings for a worker; used by the watching and by the computing thread."""

    def __init__(self, device: torch.device) -> None:
        """Measure `device`; on a CPU this process alone."""
        self._device = device
        self._process = psutil.Process()
        self._usable = detect_hardware().memory
        self._peak_is_known = False

    def readings(self) -> tuple[MemoryReading, ...]:
        """Return the current use: of the whole card by all processes, and of host memory by this process."""
        ram = MemoryReading(Place.RAM, int(self._process.memory_info().rss), self._usable)
        if self._device.type != "cuda":
            return (ram,)
        try:
            free, total = torch.cuda.mem_get_info(self._device)
        except RuntimeError:  # the card is gone; the computing thread reports it
            return (ram,)
        return MemoryReading(Place.VRAM, total - free, total), ram

    def begin(self) -> None:
        """Reset the peaks."""
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        try:
            _FORGET_PEAK.write_text("5")
            self._peak_is_known = True
        except OSError:
            self._peak_is_known = False

    def peaks(self) -> MemoryPeaks:
        """Return the peaks since `begin`: tensors on the card, resident memory of this process."""
        vram = torch.cuda.max_memory_allocated(self._device) if self._device.type == "cuda" else None
        return MemoryPeaks(vram, _highest_resident_size() if self._peak_is_known else None)

    def release(self) -> None:
        """Release cached memory."""
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _highest_resident_size() -> int | None:
    with suppress(OSError, ValueError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIB
    return None
