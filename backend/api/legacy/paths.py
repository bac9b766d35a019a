"""Paths without `/api/v1` for older clients.

Same handlers and shapes; only the health route differs, because the only client of its short path expects
other status words.
"""

from __future__ import annotations

import time

from fastapi import Request

from backend import __version__
from backend.api.gallery import imports, marks, selection, videos
from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.loras import routes as lora
from backend.api.system.health import SystemHealth, SystemStats, diagnose, health_answer, system_stats
from backend.api.tasks import control, generation, prompts, queue

router = Routes(include_in_schema=False)
router.include_router(control.router)
router.include_router(queue.router)
router.include_router(selection.router)
router.include_router(marks.router)
router.include_router(imports.router)
router.include_router(videos.router)
router.include_router(lora.router)
router.include_router(prompts.router)
router.post("/generation/submit")(generation.submit)


@router.get("/system/stats")
def numeric_stats(services: ServicesDep) -> SystemStats:
    """Return the loads with 0 for a card that is not there: old clients format every field without looking."""
    return system_stats(services.stats.read(), always_numbers=True)


@router.get("/system/health")
def indicator_health(services: ServicesDep, request: Request) -> SystemHealth:
    """Return the health with the status words of the health indicator."""
    return health_answer(services, request, indicator_words=True)


@router.get("/health")
def oldest_health(services: ServicesDep) -> dict[str, str | float]:
    """Return the health as the oldest clients expect it, with a numeric timestamp."""
    return {"status": diagnose(services).health, "timestamp": time.time(), "version": __version__}


@router.get("/api/health")
def old_health(services: ServicesDep) -> dict[str, str]:
    """Return the health as old clients expect it."""
    return {"status": diagnose(services).health, "api_version": __version__}
