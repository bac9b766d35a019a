"""The shapes of the model status routes, as clients of the earlier application expect them.

A value that is not known is absent: nothing here is estimated to fill a field.
"""

from __future__ import annotations

from pydantic import BaseModel, Field

from backend.api.schemas import Timestamp


class ModelStatus(BaseModel):
    """One model as it is on this machine now."""

    model_id: str
    model_type: str = Field(description="The same as `model_id`, for older clients")
    status: str = Field(description="available, missing or corrupted")
    is_available: bool
    is_loaded: bool
    loaded_by: list[str] = Field(description="Ids of the workers that have it in memory")
    is_valid: bool = Field(description="Whether every file that its layout names is here")
    in_use: bool = Field(description="Whether a task that waits or runs needs it")
    size_mb: float | None = None
    model_path: str | None = Field(None, description="Its folder, relative to the home folder")
    error_message: str | None = Field(None, description="Why it cannot be used")


class ModelStatuses(BaseModel):
    """Every model by its id."""

    models: dict[str, ModelStatus]
    total_models: int
    available_models: int
    configuration_faults: list[str] | None = Field(None, description="Entries of config.json that were left out")
    timestamp: Timestamp


class ModelDetails(ModelStatus):
    """One model, and what it has been used for."""

    availability_status: str = Field(description="available, missing or corrupted")
    corruption_detected: bool
    usage_frequency: int = Field(description="Videos in the gallery that it made")
    last_used: Timestamp | None = None
    average_generation_time: float | None = Field(None, description="Seconds, over these videos")


class ModelTotals(BaseModel):
    """All models in numbers."""

    total_models: int
    available_models: int
    loaded_models: int
    missing_models: int
    corrupted_models: int
    total_size_gb: float = Field(description="Of the files that are here")
    last_updated: Timestamp


class DetailedStatuses(BaseModel):
    """Every model with its use, and the totals."""

    models: dict[str, ModelDetails]
    system_statistics: ModelTotals
    timestamp: Timestamp


class ModelsSummary(BaseModel):
    """The totals first, then a line for each model."""

    models_summary: ModelTotals
    models: dict[str, ModelStatus]
    timestamp: Timestamp


class ModelHealth(BaseModel):
    """Whether one model can be relied on, and what to do if not."""

    model_id: str
    health_status: str = Field(description="healthy, corrupted or missing")
    is_healthy: bool
    issues: list[str]
    last_check: Timestamp | None = Field(None, description="Since when every file of it has been read whole")
    repair_suggestions: list[str]


class SystemModelHealth(BaseModel):
    """The health of all models in numbers."""

    models_healthy: int
    models_corrupted: int
    models_missing: int
    storage_usage_percent: float = Field(description="Of the disk that holds the home folder")
    last_updated: Timestamp


class ModelsHealth(BaseModel):
    """The health of every model."""

    system_health: SystemModelHealth
    model_health: dict[str, ModelHealth]
    recommendations: list[str]
    timestamp: Timestamp
