"""Load of this machine: CPU, memory, disk, GPUs. Never blocks on a measurement.

The CPU load is the average since the previous reading, so readings are cached briefly.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from backend.core.planning.hardware import Gpu, detect_hardware
from backend.models.lora.catalogue import Lora
from backend.services.planning.resource_check import ResourceUsage
from backend.store.performance.samples import Load

SHARED_SECONDS = 0.4
GIB = 1024**3
MIB = 1024**2
#: Upper limits of a low and of a medium memory impact of a LoRA, in MiB.
LOW_IMPACT_MB, MEDIUM_IMPACT_MB = 100.0, 300.0
#: A LoRA counts as loadable if it needs less than this share of the free memory.
SAFE_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class HostReading:
    """One snapshot of the machine. Loads in percent; the GPU memory figures sum all cards and are 0 without one."""

    cpu_percent: float
    ram_used_gb: float
    ram_total_gb: float
    ram_percent: float
    disk_percent: float
    gpus: tuple[Gpu, ...]
    disk_free_gb: float
    findings: tuple[str, ...] = ()  #: what could not be measured

    @property
    def gpu_percent(self) -> float:
        """Load of the busiest card."""
        return max((gpu.utilisation or 0.0 for gpu in self.gpus), default=0.0)

    @property
    def vram_used_mb(self) -> float:
        """Memory in use on all cards, in MiB."""
        return round(sum(gpu.memory_used or 0 for gpu in self.gpus) / MIB, 1)

    @property
    def vram_total_mb(self) -> float:
        """Total memory of all cards, in MiB."""
        return round(sum(gpu.memory_total or 0 for gpu in self.gpus) / MIB, 1)

    @property
    def vram_percent(self) -> float:
        """Share of GPU memory in use."""
        return round(100 * self.vram_used_mb / self.vram_total_mb, 1) if self.vram_total_mb else 0.0

    @property
    def load(self) -> Load:
        """The figures that are kept over time; a card's are None without one."""
        figures = (self.gpu_percent, self.vram_used_mb, self.vram_total_mb, self.vram_percent)
        of_card = figures if self.gpus else (None, None, None, None)
        return Load(self.cpu_percent, self.ram_used_gb, self.ram_total_gb, self.ram_percent, *of_card)


class HostStats:
    """Takes readings; thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Monitor the disk that holds `folder`, or would hold it once created."""
        self._folder = folder
        self._lock = threading.Lock()
        self._reading: HostReading | None = None
        self._taken = 0.0
        # Cards do not appear while a server runs, so a machine without one is probed once.
        self.has_gpu = bool(detect_hardware().gpus)
        psutil.cpu_percent(interval=None)  # the first call only starts the measurement

    def read(self) -> HostReading:
        """Return a reading that is at most `SHARED_SECONDS` old."""
        with self._lock:
            if self._reading is None or time.monotonic() - self._taken > SHARED_SECONDS:
                self._reading = self._take()
                self._taken = time.monotonic()
            return self._reading

    def usage(self) -> ResourceUsage:
        """Return the usage for the resource check; memory as available to this process."""
        reading, machine = self.read(), detect_hardware()
        available = machine.memory_available or 0
        cards = bool(reading.gpus) and reading.vram_total_mb > 0
        return ResourceUsage(
            cpu=reading.cpu_percent / 100,
            ram=1 - min(available, machine.memory) / machine.memory,
            ram_free_gb=round(available / GIB, 3),
            vram=reading.vram_used_mb / reading.vram_total_mb if cards else None,
            vram_free_gb=round((reading.vram_total_mb - reading.vram_used_mb) / 1024, 3) if cards else None,
            disk_free_gb=reading.disk_free_gb,
        )

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


@dataclass(frozen=True, slots=True)
class MemoryImpact:
    """Memory that a LoRA needs in addition to its model, in MiB."""

    needed_mb: float
    free_mb: float  #: of the GPUs, or of the machine if it has none
    on_gpu: bool

    @property
    def fits(self) -> bool:
        """Whether it fits with a safety margin."""
        return self.needed_mb < SAFE_SHARE * self.free_mb

    @property
    def impact(self) -> str:
        """Size class: low, medium or high."""
        return "low" if self.needed_mb < LOW_IMPACT_MB else "medium" if self.needed_mb < MEDIUM_IMPACT_MB else "high"


def memory_impact_of(lora: Lora, reading: HostReading) -> MemoryImpact:
    """Estimate the memory of a LoRA: its values, once per expert that loads them."""
    on_gpu = bool(reading.gpus)
    # A file not assigned to one expert is loaded for both.
    copies = 2 if not lora.is_pair and lora.files[0].expert is None else 1
    # Two bytes per value in bfloat16 on a GPU, four in float32 on a CPU.
    needed = round(lora.values * copies * (2 if on_gpu else 4) / MIB, 3)
    free = reading.vram_total_mb - reading.vram_used_mb
    return MemoryImpact(needed, free if on_gpu else (reading.ram_total_gb - reading.ram_used_gb) * 1024, on_gpu)
