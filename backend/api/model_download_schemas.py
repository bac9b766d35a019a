"""The shapes of the routes that fetch, check and delete model files; what is not known is absent."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from backend.api.schemas import Timestamp
from backend.core.config.download_limit import HIGHEST_MBPS
from backend.store.download_orders import Urgency


class DownloadAsked(BaseModel):
    """Which model is wanted."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: str = Field(max_length=128, description="A model's id or one of its aliases")


class DownloadAnswer(BaseModel):
    """What became of the wish."""

    message: str
    model_type: str
    status: Literal["already_available", "download_started"]
    download_required: bool


class DownloadView(BaseModel):
    """One download; what is not known is absent."""

    model_id: str
    model_type: str
    status: str = Field(description="queued, downloading, verifying, paused, completed, failed or cancelled")
    progress: float | None = Field(None, description="Percent of the model's bytes that are here")
    downloaded_mb: float | None = None
    total_mb: float | None = None
    speed_mbps: float | None = Field(None, description="Megabytes per second, over the last seconds")
    eta_seconds: float | None = None
    priority: str
    error: str | None = None
    suggestions: list[str] = []
    can_pause: bool
    can_resume: bool
    can_cancel: bool
    last_update: Timestamp


class Action(StrEnum):
    """What can be done with a download."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    PRIORITY = "priority"
    BANDWIDTH = "bandwidth"


class Manage(BaseModel):
    """A change to a download."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str = Field(max_length=128)
    action: Action
    priority: Urgency | None = Field(None, description="With `priority`: critical, high, medium or low")
    bandwidth_limit_mbps: float | None = Field(
        None,
        gt=0,
        le=HIGHEST_MBPS,
        description="With `bandwidth`: megabytes per second for each download, kept over restarts; without, no limit",
    )


class Managed(BaseModel):
    """What the change led to."""

    success: bool
    message: str
    model_id: str
    action: Action
    current_status: str | None
    progress_percent: float | None
    timestamp: Timestamp


class FileFault(BaseModel):
    """One file that is not as it was when it was verified."""

    name: str
    state: str = Field(description="missing, truncated or corrupted")


class Verified(BaseModel):
    """Whether a model's files are as they were when they were downloaded."""

    model_type: str
    is_valid: bool
    integrity_status: str = Field(description="valid, corrupted, not_available or unknown")
    message: str
    checked: str = Field(description="contents, sizes or nothing")
    files_checked: int
    missing_files: list[str]
    details: list[FileFault]


class Removed(BaseModel):
    """What was deleted."""

    message: str
    model_type: str
    freed_mb: float
