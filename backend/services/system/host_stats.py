"""How busy this machine is: processor, memory, disk, GPUs. Never waits for a measurement.

The processor's load is the average since the reading before, so readings are shared for a moment.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from backend.core.planning.hardware import Gpu, detect_hardware

SHARED_SECONDS = 0.4
GIB = 1024**3
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class HostReading:
    """One look at the machine. Loads in percent; the GPU numbers add up all cards and are 0 without one."""

    cpu_percent: float
    ram_used_gb: float
    ram_total_gb: float
    ram_percent: float
    disk_percent: float
    gpus: tuple[Gpu, ...]
    disk_free_gb: float
    findings: tuple[str, ...] = ()  #: what could not be asked this time

    @property
    def gpu_percent(self) -> float:
        """The load of the busiest card."""
        return max((gpu.utilisation or 0.0 for gpu in self.gpus), default=0.0)

    @property
    def vram_used_mb(self) -> float:
        """Memory in use on all cards."""
        return round(sum(gpu.memory_used or 0 for gpu in self.gpus) / MIB, 1)

    @property
    def vram_total_mb(self) -> float:
        """Memory of all cards."""
        return round(sum(gpu.memory_total or 0 for gpu in self.gpus) / MIB, 1)

    @property
    def vram_percent(self) -> float:
        """How full the cards' memory is."""
        return round(100 * self.vram_used_mb / self.vram_total_mb, 1) if self.vram_total_mb else 0.0


class HostStats:
    """Takes readings; safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        """Watch the disk that holds `folder`, or that would hold it."""
        self._folder = folder
        self._lock = threading.Lock()
        self._reading: HostReading | None = None
        self._taken = 0.0
        # Cards do not appear while a server runs, so a machine without one is asked once.
        self.has_gpu = bool(detect_hardware().gpus)
        psutil.cpu_percent(interval=None)  # the first call only starts the measurement

    def read(self) -> HostReading:
        """Return a reading that is at most a moment old."""
        with self._lock:
            if self._reading is None or time.monotonic() - self._taken > SHARED_SECONDS:
                self._reading = self._take()
                self._taken = time.monotonic()
            return self._reading

    def _take(self) -> HostReading:
        memory = psutil.virtual_memory()
        folder = next(path for path in (self._folder, *self._folder.parents) if path.exists())
        disk = psutil.disk_usage(str(folder))
        machine = detect_hardware() if self.has_gpu else None
        return HostReading(
            cpu_percent=round(psutil.cpu_percent(interval=None), 1),
            ram_used_gb=round((memory.total - memory.available) / GIB, 3),
            ram_total_gb=round(memory.total / GIB, 3),
            ram_percent=round(memory.percent, 1),
            disk_percent=round(disk.percent, 1),
            gpus=machine.gpus if machine else (),
            disk_free_gb=round(disk.free / GIB, 3),
            findings=machine.findings if machine else (),
        )
