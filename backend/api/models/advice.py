"""Routes about the use of the models, and advice when one of them cannot be used. Unknown values are absent."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp
from backend.core.catalogue.table import find_model
from backend.core.domain import iso, utcnow
from backend.core.requests.frame_size import parse_resolution
from backend.services.models.fallback import Alternative, Level, Want

router = Routes(prefix="/models", tags=["models"])

Days = Annotated[int, Query(description="Days to look back", ge=1, le=3650)]


class Period(BaseModel):
    """The counted period."""

    start_date: Timestamp
    end_date: Timestamp
    days: int


class SystemUse(BaseModel):
    """All models together."""

    total_uses: int = Field(description="Tasks that ended")
    average_uses_per_day: float
    most_used_model: str | None = None
    active_models: int = Field(description="Models that a task ended with")
    success_rate: float | None = Field(
        None, description="Share of the tasks that completed; cancelled ones do not count"
    )


class ModelUseView(BaseModel):
    """One model."""

    total_uses: int
    completed: int
    failed: int
    cancelled: int
    success_rate: float | None = None
    average_generation_time: float | None = Field(None, description="Seconds, over the videos still in the gallery")
    uses_per_day: float
    last_used: Timestamp


class ModelAnalytics(BaseModel):
    """The use of the models."""

    time_period: Period
    system_analytics: SystemUse
    model_analytics: dict[str, ModelUseView]
    timestamp: Timestamp


class FallbackAsked(BaseModel):
    """The intended request, and how long the client would wait."""

    model_config = ConfigDict(extra="forbid")

    requested_model: str = Field(description="A model's id or one of its aliases", max_length=128)
    quality: Level = Field(Level.MEDIUM, description="high: prefer waiting to another model")
    speed: Level = Field(Level.MEDIUM, description="high: prefer another model to waiting")
    resolution: str | None = Field(None, description="WIDTHxHEIGHT; the model's own when left out", max_length=32)
    max_wait_minutes: float | None = Field(None, ge=0, le=100_000, description="Longest acceptable wait")


class AlternativeView(BaseModel):
    """Another installed model that takes the same inputs and fits."""

    suggested_model: str
    compatibility_score: float = Field(description="Share of: takes the same inputs, makes the size, is of full size")
    performance_difference: float | None = Field(None, description="Its time as a multiple of the wanted model's")
    availability_status: str
    reason: str


class StrategyView(BaseModel):
    """What to do."""

    strategy_type: str = Field(
        description="queue_and_wait, alternative_model, download_and_retry, reduce_requirements or hybrid_approach"
    )
    recommended_action: str
    alternative_model: str | None = None
    estimated_wait_time: float | None = Field(None, description="Seconds until the running download ends")
    user_message: str
    can_queue_request: bool = Field(description="Whether the request would be accepted unchanged")


class WaitView(BaseModel):
    """How long the download that runs will take."""

    seconds: float
    basis: str = "measured speed of the download"


class FallbackAnswer(BaseModel):
    """The suggestion."""

    requested_model: str
    alternative_suggestion: AlternativeView | None
    fallback_strategy: StrategyView
    wait_time_estimate: WaitView | None
    timestamp: Timestamp


@router.get("/analytics", summary="Use of the models")
def analytics(services: ServicesDep, time_period_days: Days = 30) -> ModelAnalytics:
    """Count the tasks that ended, by model: how many, how many became a video, how long those took."""
    usage = services.usage.of_last(time_period_days)
    records = usage.records
    completed = sum(record.completed for record in records)
    ended = completed + sum(record.failed for record in records)
    uses = sum(record.uses for record in records)
    return ModelAnalytics(
        time_period=Period(start_date=iso(usage.since), end_date=iso(usage.until), days=time_period_days),
        system_analytics=SystemUse(
            total_uses=uses,
            average_uses_per_day=round(uses / time_period_days, 3),
            most_used_model=records[0].model if records else None,
            active_models=len(records),
            success_rate=round(completed / ended, 4) if ended else None,
        ),
        model_analytics={
            record.model: ModelUseView(
                total_uses=record.uses,
                completed=record.completed,
                failed=record.failed,
                cancelled=record.cancelled,
                success_rate=None if record.success_rate is None else round(record.success_rate, 4),
                average_generation_time=None if record.mean_seconds is None else round(record.mean_seconds, 2),
                uses_per_day=round(record.uses / time_period_days, 3),
                last_used=iso(record.last_used),
            )
            for record in records
        },
        timestamp=iso(utcnow()),
    )


@router.post("/fallback/suggest", response_model_exclude_none=False, summary="Advice for a model that cannot be used")
def suggest(asked: FallbackAsked, services: ServicesDep) -> FallbackAnswer:
    """Suggest what to do when the requested model is not installed or does not fit; queues and downloads nothing."""
    spec = find_model(asked.requested_model)
    found = services.fallbacks.suggest(
        Want(
            spec,
            size=None if asked.resolution is None else parse_resolution(asked.resolution),
            quality=asked.quality,
            speed=asked.speed,
            max_wait_seconds=None if asked.max_wait_minutes is None else 60 * asked.max_wait_minutes,
        )
    )
    other, wait = found.alternative, found.wait_seconds
    return FallbackAnswer(
        requested_model=spec.id,
        alternative_suggestion=None if other is None else _alternative(other),
        fallback_strategy=StrategyView(
            strategy_type=found.strategy,
            recommended_action=found.action,
            alternative_model=None if other is None else other.spec.id,
            estimated_wait_time=wait,
            user_message=found.message,
            can_queue_request=found.can_queue,
        ),
        wait_time_estimate=None if wait is None else WaitView(seconds=wait),
        timestamp=iso(utcnow()),
    )


def _alternative(other: Alternative) -> AlternativeView:
    return AlternativeView(
        suggested_model=other.spec.id,
        compatibility_score=other.compatibility,
        performance_difference=other.time_ratio,
        availability_status="available",
        reason=other.reason,
    )
