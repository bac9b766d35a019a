"""Whether this server works, in the words of the health routes: one look at the components that all of them share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from backend.api.components import DATABASE, WORKERS
from backend.api.deps import Services
from backend.api.host_stats import HostReading
from backend.core.domain import TaskStatus
from backend.core.errors import WanError
from backend.core.system_integration import ComponentStatus, SystemState
from backend.store.workers import WorkerInfo


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
    system: SystemState

    @property
    def can_run(self) -> bool:
        """Whether tasks can be taken and run."""
        return self.database_connected and bool(self.workers)

    @property
    def message(self) -> str:
        """The state in a sentence."""
        return "; ".join(self.issues or self.warnings) or "All systems work"


def diagnose(services: Services) -> Diagnosis:
    """Look at every component; what the health routes say is what the status of the system says."""
    system = services.system.look()
    database_connected = system[DATABASE].ready
    workers, active = _workers_and_tasks(services) if database_connected else ([], None)
    issues = [
        component.sentence
        for component in system.components
        if component.status in (ComponentStatus.FAILED, ComponentStatus.NOT_STARTED)
        or (component.name == WORKERS and not workers)
    ]
    if not database_connected:
        issues = [system[DATABASE].sentence]  # nobody can say more without it
    warnings = [one.sentence for one in system.components if one.status is ComponentStatus.DEGRADED]
    if not database_connected or system.status is ComponentStatus.FAILED:
        health = Health.UNHEALTHY
    else:
        health = Health.DEGRADED if issues or warnings else Health.HEALTHY
    return Diagnosis(
        health,
        database_connected,
        tuple(workers),
        active,
        tuple(issues),
        tuple(warnings),
        services.stats.read(),
        system,
    )


def _workers_and_tasks(services: Services) -> tuple[list[WorkerInfo], int | None]:
    try:
        counts = services.tasks.counts()
        return services.living_workers(), counts.get(TaskStatus.PENDING, 0) + counts.get(TaskStatus.PROCESSING, 0)
    except WanError:  # gone since it was asked; the next look says so
        return [], None
