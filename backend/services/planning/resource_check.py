"""Whether a generation can start now: compares workers, memory and disk with the operator's limits.

Judges numbers measured elsewhere. Refuses nothing: a task is accepted in any case, and waits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from backend.core.planning.memory_level import ResourceLimits
from backend.store.workers import WorkerInfo, WorkerState

#: Free disk space in GiB: below the first a warning is raised, below the second nothing should start (a saved state of
#: the largest clip and its file take about 0.3 GiB).
DISK_WARNING_GIB: Final = 2.0
DISK_CRITICAL_GIB: Final = 0.5


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """Current usage; shares from 0 to 1, sizes in GiB."""

    cpu: float
    ram: float
    ram_free_gb: float
    vram: float | None  #: None without a card
    vram_free_gb: float | None
    disk_free_gb: float


class Resource(StrEnum):
    """A resource that a generation needs."""

    WORKERS = "workers"
    VRAM = "vram"
    RAM = "ram"
    CPU = "cpu"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class Shortage:
    """One resource that is short."""

    resource: Resource
    sentence: str
    blocking: bool  #: whether it keeps a generation from starting


@dataclass(frozen=True, slots=True)
class ResourceCheck:
    """The current usage, and what is short."""

    usage: ResourceUsage
    workers: tuple[WorkerInfo, ...]
    shortages: tuple[Shortage, ...]

    @property
    def blocking(self) -> list[str]:
        """Why nothing can start; empty if a task queued now would run."""
        return [shortage.sentence for shortage in self.shortages if shortage.blocking]

    @property
    def warnings(self) -> list[str]:
        """What is running short without blocking yet."""
        return [shortage.sentence for shortage in self.shortages if not shortage.blocking]

    @property
    def idle_workers(self) -> int:
        """Number of workers that would take a task at once."""
        return sum(worker.state is WorkerState.IDLE for worker in self.workers)

    def suffices(self, resource: Resource) -> bool:
        """Whether there is enough of a resource to start."""
        return not any(shortage.blocking and shortage.resource is resource for shortage in self.shortages)


def check_resources(
    usage: ResourceUsage, workers: Sequence[WorkerInfo], limits: ResourceLimits, no_worker: str
) -> ResourceCheck:
    """Compare the usage with the limits; `no_worker` is the sentence for a system without a live worker."""
    found = [] if workers else [Shortage(Resource.WORKERS, no_worker, blocking=True)]
    found += _vram(usage, workers, limits)
    if usage.ram >= limits.ram_warning_threshold:
        sentence = f"{usage.ram:.0%} of the memory is in use, {usage.ram_free_gb:.1f} GiB are free"
        found.append(Shortage(Resource.RAM, sentence, blocking=usage.ram >= limits.ram_critical_threshold))
    if usage.cpu >= limits.cpu_warning_threshold:
        found.append(Shortage(Resource.CPU, f"{usage.cpu:.0%} of the processor is in use", blocking=False))
    if usage.disk_free_gb < DISK_WARNING_GIB:
        sentence = f"{usage.disk_free_gb:.1f} GiB are free on the disk"
        found.append(Shortage(Resource.DISK, sentence, blocking=usage.disk_free_gb < DISK_CRITICAL_GIB))
    return ResourceCheck(usage, tuple(workers), tuple(found))


def _vram(usage: ResourceUsage, workers: Sequence[WorkerInfo], limits: ResourceLimits) -> list[Shortage]:
    """Judge the cards; memory held by our own workers' models is theirs to use, so it blocks nothing."""
    if usage.vram is None or usage.vram_free_gb is None or usage.vram < limits.vram_warning_threshold:
        return []
    sentence = f"{usage.vram:.0%} of the VRAM is in use, {usage.vram_free_gb:.1f} GiB are free"
    holding = sorted({worker.model for worker in workers if worker.model is not None})
    if holding:
        return [Shortage(Resource.VRAM, f"{sentence}; part of it is held by {', '.join(holding)}", blocking=False)]
    critical = usage.vram >= limits.vram_critical_threshold
    return [
        Shortage(Resource.VRAM, f"{sentence}; no worker holds a model, so other programs use it", blocking=critical)
    ]
