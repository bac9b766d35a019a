"""Routes that say what the models were used for, and what to do when one of them cannot be used."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from backend.api.deps import ServicesDep
from backend.api.model_advice_schemas import (
    AlternativeView,
    FallbackAnswer,
    FallbackAsked,
    ModelAnalytics,
    ModelUseView,
    Period,
    StrategyView,
    SystemUse,
    WaitView,
)
from backend.core.catalogue.table import find_model
from backend.core.domain import iso, utcnow
from backend.core.frame_size import parse_resolution
from backend.services.models.fallback import Alternative, Want

router = APIRouter(prefix="/models", tags=["models"])

Days = Annotated[int, Query(description="How many days back are counted", ge=1, le=3650)]


@router.get(
    "/analytics",
    response_model=ModelAnalytics,
    response_model_exclude_none=True,
    summary="What the models were used for",
)
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


@router.post("/fallback/suggest", response_model=FallbackAnswer, summary="What to do without a model")
def suggest(asked: FallbackAsked, services: ServicesDep) -> FallbackAnswer:
    """Say what serves a request whose model is not here or does not fit; nothing is queued, fetched or pretended."""
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
