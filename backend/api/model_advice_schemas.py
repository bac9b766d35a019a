"""The shapes of the models' use and of suggestions for one that cannot be used. What is not known is absent."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from backend.api.schemas import Timestamp
from backend.services.models.fallback import Level


class Period(BaseModel):
    """The time that was counted."""

    start_date: Timestamp
    end_date: Timestamp
    days: int


class SystemUse(BaseModel):
    """All models together."""

    total_uses: int = Field(description="Tasks that ended")
    average_uses_per_day: float
    most_used_model: str | None = None
    active_models: int = Field(description="Models that a task ended with")
    success_rate: float | None = Field(None, description="Share of the tasks, but cancelled ones, that became a video")


class ModelUseView(BaseModel):
    """One model."""

    total_uses: int
    completed: int
    failed: int
    cancelled: int
    success_rate: float | None = None
    average_generation_time: float | None = Field(None, description="Seconds, over the videos that are still here")
    uses_per_day: float
    last_used: Timestamp


class ModelAnalytics(BaseModel):
    """What the models were used for."""

    time_period: Period
    system_analytics: SystemUse
    model_analytics: dict[str, ModelUseView]
    timestamp: Timestamp


class FallbackAsked(BaseModel):
    """What somebody wants to make, and how long they would wait."""

    model_config = ConfigDict(extra="forbid")

    requested_model: str = Field(description="A model's id or one of its aliases", max_length=128)
    quality: Level = Field(Level.MEDIUM, description="high: rather wait than take another model")
    speed: Level = Field(Level.MEDIUM, description="high: rather take another model than wait")
    resolution: str | None = Field(None, description="WIDTHxHEIGHT; the model's own when left out", max_length=32)
    max_wait_minutes: float | None = Field(None, ge=0, le=100_000, description="How long waiting is all right")


class AlternativeView(BaseModel):
    """Another model that is here, takes the same inputs and fits."""

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
    estimated_wait_time: float | None = Field(None, description="Seconds until the download that runs has ended")
    user_message: str
    can_queue_request: bool = Field(description="Whether the request would be taken as it is")


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
