"""Routes about the server itself: health, statistics, liveness, readiness.

All of them are answered from one diagnosis of the components.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from backend import __version__
from backend.api.http.addressing import current_links
from backend.api.http.deps import ServicesDep
from backend.api.http.errors import error_answer
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Timestamp
from backend.core.domain import TaskStatus, iso, utcnow
from backend.core.errors.base import WanError
from backend.core.errors.surroundings import NotReady
from backend.core.system_integration import ComponentStatus, SystemState
from backend.services.system.container import DATABASE, STORAGE, WORKERS, Services
from backend.services.system.host_stats import HostReading
from backend.store.workers import WorkerInfo, WorkerState

router = Routes(tags=["system"])
probes = Routes(tags=["system"])

NOT_READY = 503


def system_stats(reading: HostReading, *, always_numbers: bool = False) -> SystemStats:
    """Show how busy the machine is; `always_numbers` writes 0 for a card that is not there, as old clients expect."""
    shows_card = always_numbers or bool(reading.gpus)
    return SystemStats(
        cpu_percent=reading.cpu_percent,
        ram_used_gb=reading.ram_used_gb,
        ram_total_gb=reading.ram_total_gb,
        ram_percent=reading.ram_percent,
        gpu_percent=reading.gpu_percent if shows_card else None,
        vram_used_mb=reading.vram_used_mb if shows_card else None,
        vram_total_mb=reading.vram_total_mb if shows_card else None,
        vram_percent=reading.vram_percent if shows_card else None,
        gpu_available=bool(reading.gpus),
        memory_percent=reading.ram_percent,
        disk_usage=reading.disk_percent,
        timestamp=iso(utcnow()),
    )


class SystemStats(BaseModel):
    """How busy this machine is, in the units of the field names; several cards are added up.

    Without a card, `gpu_percent` and the `vram_` fields are absent.
    """

    cpu_percent: float
    ram_used_gb: float
    ram_total_gb: float
    ram_percent: float
    gpu_percent: float | None = None
    vram_used_mb: float | None = None
    vram_total_mb: float | None = None
    vram_percent: float | None = None
    gpu_available: bool
    memory_percent: float
    disk_usage: float
    timestamp: Timestamp


class WorkerView(BaseModel):
    """One worker process."""

    worker_id: str
    device: str
    state: str
    detail: str | None = None
    seen_at: Timestamp
    device_reason: str | None = Field(default=None, description="Why it computes on this device")
    attention: str | None = None
    convolution: str | None = None
    precision: str | None = None
    warnings: list[str] = Field(default_factory=list, description="What does not work there, and what helps")


class SystemInfo(BaseModel):
    """What the health indicator shows."""

    cpu_percent: float
    ram_percent: float
    vram_percent: float | None = None
    issues: list[str]
    warnings: list[str]
    recommendations: list[str]
    resource_constraints: list[str]


class SystemHealth(BaseModel):
    """Whether the system works; unknown numbers are absent."""

    status: str = Field(description="healthy, degraded or unhealthy; healthy, warning or critical without the prefix")
    health_status: str = Field(description="healthy, warning or critical")
    message: str
    backend_online: bool
    database_connected: bool
    gpu_available: bool
    worker_alive: bool
    memory_usage: float
    gpu_memory_usage: float | None = None
    active_tasks: int | None = None
    uptime: float
    port: int
    timestamp: Timestamp
    version: str
    api_version: str
    system: str
    service: str
    endpoints: dict[str, str]
    connectivity: dict[str, Any]
    server_info: dict[str, Any]
    system_info: SystemInfo
    workers: list[WorkerView]


class BriefHealth(BaseModel):
    """Whether the system works, in brief."""

    status: str = Field(description="healthy, degraded or unhealthy")
    timestamp: Timestamp
    version: str


class Ports(BaseModel):
    """Where this server listens; page and API share one port."""

    backend_port: int
    frontend_port: int
    status: str = "ok"


class Alive(BaseModel):
    """This process answers."""

    status: str = "alive"
    instance: str = Field(description="Id of this run of the server, as in `server.json` of its home folder")


class Ready(BaseModel):
    """This server can take and run tasks."""

    status: str = "ready"
    workers: int


class Health(StrEnum):
    """The condition of the server, in the words of the start-up check."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"  # answers and keeps tasks, but something is missing
    UNHEALTHY = "unhealthy"  # cannot keep tasks

    @property
    def indicator(self) -> str:
        """The same in the words of the health indicator."""
        return {Health.HEALTHY: "healthy", Health.DEGRADED: "warning", Health.UNHEALTHY: "critical"}[self]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of one inspection."""

    health: Health
    database_connected: bool
    workers: tuple[WorkerInfo, ...]
    active_tasks: int | None
    issues: tuple[str, ...]  #: what keeps the server from working
    warnings: tuple[str, ...]  #: what will, if nothing is done
    reading: HostReading
    can_keep: bool  #: whether videos can be written

    @property
    def can_run(self) -> bool:
        """Whether tasks can be taken and run."""
        return (
            self.database_connected
            and self.can_keep
            and any(worker.state is not WorkerState.WAITING for worker in self.workers)
        )

    @property
    def message(self) -> str:
        """The state in a sentence."""
        return "; ".join(self.issues or self.warnings) or "All systems work"


def diagnose(services: Services, system: SystemState | None = None) -> Diagnosis:
    """Judge the components from `system`, or from the last inspection: a probe reads no folder."""
    system = system or services.system.snapshot()
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
        system[STORAGE].status is not ComponentStatus.FAILED,
    )


def _workers_and_tasks(services: Services) -> tuple[list[WorkerInfo], int | None]:
    try:
        counts = services.tasks.counts()
        return services.living_workers(), counts.get(TaskStatus.PENDING, 0) + counts.get(TaskStatus.PROCESSING, 0)
    except WanError:  # gone since it was asked; the next look says so
        return [], None


@router.get("/system/health", summary="Whether everything works")
def system_health(services: ServicesDep, request: Request) -> SystemHealth:
    """Ask the database, the workers and the disk, and say what is wrong with them."""
    return health_answer(services, request)


@router.get("/system/stats", summary="How busy the machine is")
def stats(services: ServicesDep) -> SystemStats:
    """Return loads and memory at once; the processor's load is the average since the last look."""
    return system_stats(services.stats.read())


@router.get("/system/ports", summary="Where this server listens")
async def ports(services: ServicesDep) -> Ports:
    """Return the port in use, for clients that were built for another one."""
    return Ports(backend_port=services.settings.port, frontend_port=services.settings.port)


@router.get("/health", summary="Whether everything works, in brief")
def brief_health(services: ServicesDep) -> BriefHealth:
    """Return the same state as the full health route, without the details."""
    return BriefHealth(status=diagnose(services).health, timestamp=iso(utcnow()), version=__version__)


@probes.get("/live", summary="Whether this process answers")
async def live(request: Request) -> Alive:
    """Answer at once; no component is checked."""
    return Alive(instance=request.app.state.instance)


@probes.get(
    "/ready",
    response_model=Ready,
    summary="Whether tasks can be taken and run",
    responses=refusals({503: "The reason why not"}),
)
def ready(services: ServicesDep, request: Request) -> Ready | Response:
    """Say whether the database answers and a worker lives; if not, why."""
    diagnosis = diagnose(services)
    if diagnosis.can_run:
        return Ready(workers=len(diagnosis.workers))
    return error_answer(
        NOT_READY,
        NotReady.code,
        diagnosis.message,
        scope=request.scope,
        suggestions=NotReady.suggestions,
        headers={"Retry-After": "2"},
    )


def worker_view(worker: WorkerInfo) -> WorkerView:
    """Describe a worker."""
    equipment = {} if worker.equipment is None else asdict(worker.equipment)
    equipment.pop("machine", None)  # estimates show it, where it counts
    return WorkerView(
        worker_id=worker.id,
        device=worker.device,
        state=worker.state,
        detail=worker.detail,
        seen_at=iso(worker.seen_at),
        **equipment,
    )


def health_answer(services: Services, request: Request, *, indicator_words: bool = False) -> SystemHealth:
    """Build the health answer; the health indicator uses other words for a problem."""
    found = diagnose(services)
    settings = services.settings
    reading = found.reading
    has_gpu = bool(reading.gpus)
    return SystemHealth(
        status=found.health.indicator if indicator_words else found.health,
        health_status=found.health.indicator,
        message=found.message,
        backend_online=True,
        database_connected=found.database_connected,
        gpu_available=has_gpu,
        worker_alive=bool(found.workers),
        memory_usage=reading.ram_percent,
        gpu_memory_usage=reading.vram_percent if has_gpu else None,
        active_tasks=found.active_tasks,
        uptime=round(services.uptime, 1),
        port=settings.port,
        timestamp=iso(utcnow()),
        version=__version__,
        api_version=__version__,
        system="operational" if not found.issues else found.health,
        service="wan22",
        endpoints={
            name: current_links().to(path)
            for name, path in {
                "health": "/api/v1/system/health",
                "docs": "/docs",
                "websocket": "/ws",
                "api_base": "/api/v1",
            }.items()
        },
        connectivity={
            "cors_enabled": bool(settings.cors_origins),
            "allowed_origins": settings.cors_origins,
            "websocket_available": True,
            "request_origin": request.headers.get("origin", ""),  # both as they arrived, to find out what a proxy does
            "host_header": request.headers.get("host", ""),
        },
        server_info={"configured_port": settings.port, "detected_port": settings.port, "environment": "production"},
        system_info=SystemInfo(
            cpu_percent=reading.cpu_percent,
            ram_percent=reading.ram_percent,
            vram_percent=reading.vram_percent if has_gpu else None,
            issues=list(found.issues),
            warnings=list(found.warnings),
            recommendations=["Run `wan22 doctor`"] if found.issues else [],
            resource_constraints=list(found.warnings),
        ),
        workers=[worker_view(worker) for worker in found.workers],
    )
