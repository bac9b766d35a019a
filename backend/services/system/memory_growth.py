"""Whether a worker's memory grows from task to task, as it does when something is never given back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import psutil

from backend.services.system.findings import FailureType, HealthFinding, RecoveryAction
from backend.store.workers import WorkerInfo, WorkerState

MIB: Final = 1024**2
GROWTH: Final = "growth:"  # beginning of the names of these findings
#: Readings, each after at least one more task, that a verdict needs; older ones are forgotten.
FEWEST, MOST = 8, 32
#: Growth of the smallest readings that is no fluctuation: this many bytes, or this share of the machine's memory.
GROWTH_BYTES, GROWTH_SHARE = 512 * MIB, 0.02


def resident_bytes(worker: WorkerInfo) -> int | None:
    """Return the memory of a worker's process on this machine; None when it is gone."""
    with suppress(psutil.Error):
        return int(psutil.Process(worker.pid).memory_info().rss)
    return None


@dataclass(slots=True)
class _Readings:
    model: str | None
    tasks: int
    sizes: list[int] = field(default_factory=list)


class MemoryGrowth:
    """Remembers one reading per idle moment between two tasks."""

    def __init__(
        self,
        completed_by: Callable[[str], int],
        measure: Callable[[WorkerInfo], int | None] = resident_bytes,
        total: int | None = None,
    ) -> None:
        self._completed_by = completed_by
        self._measure = measure
        self._limit = max(GROWTH_BYTES, int(GROWTH_SHARE * (total or psutil.virtual_memory().total)))
        self._workers: dict[str, _Readings] = {}

    def look(self, workers: list[WorkerInfo]) -> list[HealthFinding]:
        """Take a reading of every idle worker of this machine that did something; return those that grow."""
        self._workers = {one.id: self._workers[one.id] for one in workers if one.id in self._workers}
        for worker in workers:
            if worker.state is WorkerState.IDLE:
                self._read(worker)
        return [finding for worker in workers for finding in self._judge(worker)]

    def _read(self, worker: WorkerInfo) -> None:
        readings, tasks = self._workers.get(worker.id), self._completed_by(worker.id)
        if readings is None or readings.model != worker.model:  # another model needs another amount
            readings = self._workers[worker.id] = _Readings(worker.model, -1)
        size = None if tasks == readings.tasks else self._measure(worker)
        if size is not None:
            readings.tasks = tasks
            readings.sizes = [*readings.sizes, size][-MOST:]

    def _judge(self, worker: WorkerInfo) -> list[HealthFinding]:
        sizes = self._workers[worker.id].sizes if worker.id in self._workers else []
        if len(sizes) < FEWEST:
            return []
        # The smallest readings: what a run needs for a moment is given back, what leaks is in all of them.
        half = len(sizes) // 2
        growth = min(sizes[half:]) - min(sizes[:half])
        if growth < self._limit:
            return []
        return [
            HealthFinding(
                f"{GROWTH}{worker.id}",
                f"The memory of the worker of {worker.device} grew by {growth / MIB:.0f} MiB over the last "
                f"{len(sizes)} idle moments between its tasks",
                FailureType.RESOURCES,
                "Report this with the server's log; a restart gives the memory back.",
                RecoveryAction.RESTART_WORKER,
                worker.id,
            )
        ]
