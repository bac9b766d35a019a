"""Routes and shapes of resources: their usage limits, and whether a generation can start now."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp
from backend.core.domain import iso, utcnow
from backend.core.errors.requests import InvalidRequest
from backend.core.planning.memory_level import ResourceLimits
from backend.services.planning.resource_check import Resource
from backend.services.system.container import Services

router = Routes(prefix="/system", tags=["system"])


class Constraints(BaseModel):
    """The limits above which a resource counts as short, as shares of its total (0.1 to 1.0)."""

    max_concurrent_generations: int = Field(
        description="The number of live workers: each generates one video at a time"
    )
    vram_warning_threshold: float
    vram_critical_threshold: float
    cpu_warning_threshold: float
    ram_warning_threshold: float
    ram_critical_threshold: float


class ConstraintsBody(BaseModel):
    """New limits; omitted fields keep their values."""

    model_config = ConfigDict(extra="forbid")

    max_concurrent_generations: int | None = Field(None, description="Only the number of live workers is accepted")
    vram_warning_threshold: float | None = None
    vram_critical_threshold: float | None = None
    cpu_warning_threshold: float | None = None
    ram_warning_threshold: float | None = None
    ram_critical_threshold: float | None = None


class ResourceStatus(BaseModel):
    """Which resources suffice."""

    workers_available: bool
    vram_available: bool | None = Field(None, description="Absent without a card")
    ram_available: bool
    cpu_available: bool
    disk_available: bool


class ResourceAnswer(BaseModel):
    """Whether a generation can start now."""

    can_start_generation: bool = Field(description="Whether a task queued now would run")
    message: str
    resource_status: ResourceStatus
    current_usage: dict[str, float]
    blocking_issues: list[str]
    warnings: list[str]
    workers: int
    idle_workers: int = Field(description="Workers that would start a task immediately")
    timestamp: Timestamp


@router.get("/constraints", summary="Resource limits")
def constraints(services: ServicesDep) -> Constraints:
    """Return the limits in force."""
    return _constraints(services, services.limits.current())


@router.post("/constraints", summary="Change the resource limits")
def change_constraints(body: ConstraintsBody, services: ServicesDep) -> Constraints:
    """Apply and store new limits. The number of videos generated at once is the number of workers."""
    values: dict[str, Any] = body.model_dump(exclude_unset=True)
    wanted, alive = values.pop("max_concurrent_generations", None), len(services.living_workers())
    if wanted is not None and wanted != alive:
        raise InvalidRequest(
            f"max_concurrent_generations is the number of live workers, which is {alive}",
            suggestions=("Start another one with `wan22 worker`, or stop one.",),
            details={"field": "max_concurrent_generations", "minimum": alive, "maximum": alive},
        )
    return _constraints(services, services.limits.change(values))


@router.get("/resource-check", summary="Whether a generation can start now")
def can_start(services: ServicesDep) -> ResourceAnswer:
    """Compare workers, memory and disk with the limits. A task is accepted in any case, and waits until it can run."""
    check = services.check_resources()
    usage = check.usage
    numbers = {
        "cpu_percent": 100 * usage.cpu,
        "ram_percent": 100 * usage.ram,
        "ram_free_gb": usage.ram_free_gb,
        "disk_free_gb": usage.disk_free_gb,
    }
    if usage.vram is not None and usage.vram_free_gb is not None:
        numbers |= {"vram_percent": 100 * usage.vram, "vram_free_gb": usage.vram_free_gb}
    good = "A generation can start" if check.idle_workers else "A generation can start when a worker is free"
    return ResourceAnswer(
        can_start_generation=not check.blocking,
        message="; ".join(check.blocking) or good,
        resource_status=ResourceStatus(
            workers_available=check.suffices(Resource.WORKERS),
            vram_available=None if usage.vram is None else check.suffices(Resource.VRAM),
            ram_available=check.suffices(Resource.RAM),
            cpu_available=check.suffices(Resource.CPU),
            disk_available=check.suffices(Resource.DISK),
        ),
        current_usage={name: round(value, 2) for name, value in numbers.items()},
        blocking_issues=check.blocking,
        warnings=check.warnings,
        workers=len(check.workers),
        idle_workers=check.idle_workers,
        timestamp=iso(utcnow()),
    )


def _constraints(services: Services, limits: ResourceLimits) -> Constraints:
    return Constraints(max_concurrent_generations=len(services.living_workers()), **limits.to_json())
