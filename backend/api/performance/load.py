"""Routes about the load of this machine: now, and over time from stored samples."""

from __future__ import annotations

from typing import Annotated, Final, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp
from backend.core.domain import TaskStatus, iso, utcnow
from backend.services.performance.sampling import MOST_SAMPLES
from backend.services.system.container import Services
from backend.services.system.host_stats import HostReading
from backend.store.performance.samples import LoadHistory, LoadSample

system = Routes(prefix="/system", tags=["system"])
router = Routes(prefix="/performance", tags=["performance"])

T = TypeVar("T")

#: Periods that can be asked for, in hours: a week at most, as long as samples are kept by default.
SHORTEST_HOURS: Final = 0.01
LONGEST_HOURS: Final = 168.0
Hours = Annotated[float, Query(ge=SHORTEST_HOURS, le=LONGEST_HOURS, description="How far to look back")]


class Envelope(BaseModel, Generic[T]):
    """The frame of every answer about performance."""

    success: bool = True
    data: T
    timestamp: Timestamp


def envelope(data: T) -> Envelope[T]:
    """Put an answer into the frame."""
    return Envelope(data=data, timestamp=iso(utcnow()))


class PastStats(BaseModel):
    """How busy this machine was; without a card, `gpu_percent` and the `vram_` fields are absent."""

    cpu_percent: float
    ram_used_gb: float
    ram_total_gb: float
    ram_percent: float
    gpu_percent: float | None = None
    vram_used_mb: float | None = None
    vram_total_mb: float | None = None
    vram_percent: float | None = None
    timestamp: Timestamp


class TimeRange(BaseModel):
    """A period that ends now."""

    start: Timestamp
    end: Timestamp
    hours: float


class StatsHistory(BaseModel):
    """The load over a period."""

    stats: list[PastStats] = Field(description="Oldest first; of more than 1000, the means of equal intervals")
    total_count: int
    time_range: TimeRange


class StatsSaved(BaseModel):
    """A sample that was stored."""

    message: str
    stats: PastStats


class ResourcesNow(BaseModel):
    """What is in use now; absent = there is no card, or it does not say."""

    timestamp: Timestamp
    cpu_usage_percent: float
    ram_usage_mb: float
    ram_available_mb: float
    disk_usage_percent: float
    gpu_usage_percent: float | None = None
    vram_usage_mb: float | None = None
    vram_available_mb: float | None = None
    temperature_celsius: float | None = Field(None, description="Of the hottest card")
    active_tasks: int = Field(description="Running tasks that the caller sees")


class ResourcesPast(BaseModel):
    """What was in use over a period."""

    hours_back: float
    sample_count: int
    samples: list[PastStats] = Field(description="Oldest first")


@system.get("/stats/history", summary="How busy the machine was")
def stats_history(services: ServicesDep, hours: Hours = 1.0) -> StatsHistory:
    """Return the stored samples of the load of this machine, oldest first."""
    history = services.load.history(hours)
    return StatsHistory(
        stats=[past_stats(sample) for sample in history.samples],
        total_count=len(history.samples),
        time_range=time_range(history, hours),
    )


@system.post("/stats/save", summary="Store a sample of the load now")
def save_stats(services: ServicesDep) -> StatsSaved:
    """Measure the load and store it; a sample that is less than a second old is returned instead."""
    return StatsSaved(message="The load was stored", stats=past_stats(services.load.take()))


@router.get("/status", summary="What is in use now")
def status(services: ServicesDep) -> Envelope[ResourcesNow]:
    """Return the load of the processor, the memory, the disk and the cards."""
    return envelope(resources_now(services))


@router.get("/resources/current", summary="What is in use now, on the older path")
def current_resources(services: ServicesDep) -> Envelope[ResourcesNow]:
    """Return the same as the status."""
    return envelope(resources_now(services))


@router.get("/resources/history", summary="What was in use")
def past_resources(
    services: ServicesDep,
    hours_back: Hours = 24.0,
    sample_limit: Annotated[int, Query(ge=1, le=MOST_SAMPLES, description="Most samples to return")] = MOST_SAMPLES,
) -> Envelope[ResourcesPast]:
    """Return the stored samples; of more than `sample_limit`, the means of equal intervals."""
    samples = services.load.history(hours_back, sample_limit).samples
    found = [past_stats(sample) for sample in samples]
    return envelope(ResourcesPast(hours_back=hours_back, sample_count=len(found), samples=found))


def resources_now(services: Services) -> ResourcesNow:
    """Measure what is in use."""
    reading = services.stats.read()
    return ResourcesNow(
        timestamp=iso(utcnow()),
        cpu_usage_percent=reading.cpu_percent,
        ram_usage_mb=round(reading.ram_used_gb * 1024, 1),
        ram_available_mb=round((reading.ram_total_gb - reading.ram_used_gb) * 1024, 1),
        disk_usage_percent=reading.disk_percent,
        gpu_usage_percent=reading.load.gpu_percent,
        vram_usage_mb=reading.load.vram_used_mb,
        vram_available_mb=_free_vram(reading),
        temperature_celsius=max((gpu.temperature for gpu in reading.gpus if gpu.temperature is not None), default=None),
        active_tasks=services.tasks.counts()[TaskStatus.PROCESSING],
    )


def past_stats(sample: LoadSample) -> PastStats:
    """Show a sample."""
    load = sample.load
    return PastStats(
        cpu_percent=round(load.cpu_percent, 1),
        ram_used_gb=round(load.ram_used_gb, 3),
        ram_total_gb=round(load.ram_total_gb, 3),
        ram_percent=round(load.ram_percent, 1),
        gpu_percent=_rounded(load.gpu_percent),
        vram_used_mb=_rounded(load.vram_used_mb),
        vram_total_mb=_rounded(load.vram_total_mb),
        vram_percent=_rounded(load.vram_percent),
        timestamp=iso(sample.taken_at),
    )


def time_range(history: LoadHistory, hours: float) -> TimeRange:
    """Show the period of a history."""
    return TimeRange(start=iso(history.start), end=iso(history.end), hours=hours)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _free_vram(reading: HostReading) -> float | None:
    load = reading.load
    if load.vram_total_mb is None or load.vram_used_mb is None:
        return None
    return round(load.vram_total_mb - load.vram_used_mb, 1)
