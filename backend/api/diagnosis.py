"""Whether this server works, found out by asking: the database, the workers, the disk.

One look that all health routes share, so that they cannot contradict each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from backend.api.deps import Services
from backend.api.host_stats import HostReading
from backend.core.domain import TaskStatus
from backend.core.errors import WanError
from backend.store.workers import WorkerInfo

DISK_WARNING_PERCENT = 95.0
MEMORY_WARNING_PERCENT = 95.0


class Health(StrEnum):
    """How well the server is; the words of the start-up check."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"  # answers and keeps tasks, but something is missing
    UNHEALTHY = "unhealthy"  # cannot keep tasks

    @property
    def indicator(self) -> str:
        """The same in the words of the health indicator."""
        return {Health.HEALTHY: "healthy", Health.DEGRADED: "warning", Health.UNHEALTHY: "critical"}[self]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one look found."""

    health: Health
    database_connected: bool
    workers: tuple[WorkerInfo, ...]
    active_tasks: int | None
    issues: tuple[str, ...]  #: what keeps the server from working
    warnings: tuple[str, ...]  #: what will, if nothing is done
    reading: HostReading

    @property
    def message(self) -> str:
        """The state in a sentence."""
        return "; ".join(self.issues or self.warnings) or "All systems work"


def diagnose(services: Services) -> Diagnosis:
    """Look at everything that a task needs."""
    issues: list[str] = []
    workers: list[WorkerInfo] = []
    active: int | None = None
    database_connected = True
    try:
        counts = services.tasks.counts()
        active = counts.get(TaskStatus.PENDING, 0) + counts.get(TaskStatus.PROCESSING, 0)
        workers = services.living_workers()
    except WanError as error:
        database_connected = False
        issues.append(f"The database cannot be used: {error.message}")
    if database_connected and not workers:
        issues.append(_why_no_worker(services))
    reading = services.stats.read()
    warnings = _shortages(reading) + [text for one in workers if one.equipment for text in one.equipment.warnings]
    health = Health.HEALTHY if not issues else Health.DEGRADED if database_connected else Health.UNHEALTHY
    return Diagnosis(
        health, database_connected, tuple(workers), active, tuple(issues), tuple(dict.fromkeys(warnings)), reading
    )


def _why_no_worker(services: Services) -> str:
    if services.supervisor is None:
        return "No worker is connected: tasks wait until one is started with `wan22 worker`"
    state = services.supervisor.state
    reason = f": {state.reason}" if state.reason else ""
    return f"The worker is not ready ({state.status}){reason}"


def _shortages(reading: HostReading) -> list[str]:
    found = []
    if reading.disk_percent > DISK_WARNING_PERCENT:
        found.append(f"The disk is {reading.disk_percent:.0f} % full")
    if reading.ram_percent > MEMORY_WARNING_PERCENT:
        found.append(f"Memory is {reading.ram_percent:.0f} % full")
    return found
