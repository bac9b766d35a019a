"""Routes about the server itself: health, statistics, liveness, readiness."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.responses import Response

from backend import __version__
from backend.api.deps import Services, ServicesDep
from backend.api.diagnosis import diagnose
from backend.api.errors import error_answer, request_id_of
from backend.api.schemas import ErrorBody
from backend.api.system_schemas import (
    Alive,
    BriefHealth,
    Ports,
    Ready,
    SocketStats,
    SystemHealth,
    SystemInfo,
    SystemStats,
    WorkerView,
)
from backend.api.views import system_stats
from backend.api.websocket import TOPICS
from backend.core.domain import iso, utcnow
from backend.store.workers import WorkerInfo

router = APIRouter(tags=["system"])
probes = APIRouter(tags=["system"])

NOT_READY = 503


@router.get(
    "/system/health",
    response_model=SystemHealth,
    response_model_exclude_none=True,
    summary="Whether everything works",
)
def system_health(services: ServicesDep) -> SystemHealth:
    """Ask the database, the workers and the disk, and say what is wrong with them."""
    return health_answer(services)


@router.get("/system/stats", response_model=SystemStats, summary="How busy the machine is")
def stats(services: ServicesDep) -> SystemStats:
    """Return loads and memory at once; the processor's load is the average since the last look."""
    return system_stats(services.stats.read())


@router.get("/system/ports", response_model=Ports, summary="Where this server listens")
async def ports(services: ServicesDep) -> Ports:
    """Return the port in use, for clients that were built for another one."""
    return Ports(backend_port=services.settings.port, frontend_port=services.settings.port)


@router.get("/health", response_model=BriefHealth, summary="Whether everything works, in brief")
def brief_health(services: ServicesDep) -> BriefHealth:
    """Return the same state as the full health route, without the details."""
    return BriefHealth(status=diagnose(services).health, timestamp=iso(utcnow()), version=__version__)


@router.get("/ws/stats", response_model=SocketStats, summary="Who listens over WebSocket")
async def socket_stats(services: ServicesDep) -> SocketStats:
    """Count the WebSocket clients and their subscriptions."""
    sockets = services.sockets
    return SocketStats(
        active_connections=sockets.active_connections,
        subscription_counts=sockets.subscription_counts(),
        available_topics=list(TOPICS),
    )


@probes.get("/live", response_model=Alive, summary="Whether this process answers")
async def live() -> Alive:
    """Answer; nothing else is looked at."""
    return Alive()


@probes.get(
    "/ready",
    response_model=Ready,
    summary="Whether tasks can be taken and run",
    responses={503: {"model": ErrorBody, "description": "The reason why not"}},
)
def ready(services: ServicesDep, request: Request) -> Ready | Response:
    """Say whether the database answers and a worker lives; if not, why."""
    diagnosis = diagnose(services)
    if diagnosis.can_run:
        return Ready(workers=len(diagnosis.workers))
    return error_answer(
        NOT_READY,
        "not_ready",
        diagnosis.message,
        request_id=request_id_of(request.scope),
        suggestions=("Look at the server's log, or run `wan22 doctor`.",),
        headers={"Retry-After": "2"},
    )


def worker_view(worker: WorkerInfo) -> WorkerView:
    """Show one worker."""
    told = {} if worker.equipment is None else asdict(worker.equipment)
    told.pop("machine", None)  # estimates show it, where it counts
    return WorkerView(
        worker_id=worker.id,
        device=worker.device,
        state=worker.state,
        detail=worker.detail,
        seen_at=iso(worker.seen_at),
        **told,
    )


def health_answer(services: Services, *, indicator_words: bool = False) -> SystemHealth:
    """Build the health answer; the health indicator knows other words for what is not fine."""
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
        endpoints={"health": "/api/v1/system/health", "docs": "/docs", "websocket": "/ws", "api_base": "/api/v1"},
        connectivity={
            "cors_enabled": bool(settings.cors_origins),
            "allowed_origins": settings.cors_origins,
            "websocket_available": True,
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
