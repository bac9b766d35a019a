"""The data of each live message, field by field; an unknown value is absent, unless it may be null."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.shapes import Timestamp
from backend.api.models.advice import ModelUseView, SystemUse
from backend.api.models.downloads import DownloadView
from backend.api.models.health import ModelHealth
from backend.api.models.status import ModelDetails
from backend.api.performance.reports import Totals
from backend.api.system.recovery import HealthView
from backend.api.tasks.queue import QueueCounts


class Welcome(BaseModel):
    """Who the client is, and what there is to listen to."""

    connection_id: str
    available_topics: list[str]
    message: str
    protocol_version: int
    server_version: str


class Subscribed(BaseModel):
    """A topic that the client gets from now on."""

    topic: str
    subscribed: bool
    message: str


class Unsubscribed(BaseModel):
    """A topic that the client no longer gets."""

    topic: str
    unsubscribed: bool
    message: str


class Pong(BaseModel):
    """A sign of life."""

    message: str
    timestamp: str | int | float | None = Field(None, description="As the client sent it")


class ConnectionStatus(BaseModel):
    """The client's subscriptions, and those of all."""

    connection_id: str
    active_connections: int
    subscriptions: dict[str, bool]
    subscription_counts: dict[str, int]


class Complaint(BaseModel):
    """What was wrong with a message of the client."""

    message: str
    timestamp: Timestamp


class SignOfLife(BaseModel):
    """A sign of life."""

    timestamp: Timestamp


class ReplayGap(BaseModel):
    """Why a replay is not complete. Read the state anew: lists, and the snapshots of the topics."""

    since: int = Field(description="The number that the client asked for")
    reason: Literal["removed", "too_far_back", "unknown_event"] = Field(
        description="removed: events up to oldest_event were deleted because they are old, what is left follows; "
        "too_far_back: more than can be replayed, nothing of it follows; unknown_event: this log has not come so far"
    )
    oldest_event: int = Field(description="The oldest number after which all can be asked for")
    message: str
    timestamp: Timestamp


class ReplayComplete(BaseModel):
    """From here on messages are live."""

    since: int
    timestamp: Timestamp


class Closing(BaseModel):
    """Why the server ends an event stream; a socket has a close code and a reason for it."""

    code: int = Field(description="As the close code of a socket")
    reason: str


class TaskUpdate(BaseModel):
    """One task's new state; all fields are at the top level of the message, too."""

    task_id: str
    status: str = Field(description="pending, processing, paused, completed, failed or cancelled")
    progress: float = Field(description="Percent")
    message: str | None = None
    output_path: str | None = None
    model_type: str | None = None
    timestamp: Timestamp


class DownloadEnd(BaseModel):
    """One download that ended; all fields are at the top level of the message, too."""

    model_type: str
    model_id: str
    status: Literal["success", "failed"]
    message: str
    timestamp: Timestamp


class CardMemory(BaseModel):
    """The memory of one card, in MiB."""

    allocated_mb: float = Field(description="In use, by whichever program")
    free_mb: float
    total_mb: float
    allocated_percent: float
    warning_level: Literal["normal", "warning", "critical"]
    device_name: str
    device_id: int
    task_id: str | None = Field(None, description="The task, where only one runs")
    monitoring_type: str | None = None
    timestamp: Timestamp


class OverallProgress(BaseModel):
    """How far a task is."""

    task_id: str
    progress: float = Field(description="Percent; it never decreases within an attempt")
    status: str
    message: str | None = None
    attempt: int | None = None
    download: dict[str, Any] | None = Field(None, description="While the task downloads its model")
    error_details: dict[str, Any] | None = None
    output_path: str | None = None
    snapshot: bool | None = Field(None, description="true: the state of now, for a new subscriber")
    timestamp: Timestamp


class DetailedProgress(BaseModel):
    """What a task is doing."""

    task_id: str
    stage: str = Field(
        description="initializing, downloading_model, loading_model, preparing_inputs, generating, post_processing, "
        "saving, completed or failed"
    )
    status: str
    progress: float = Field(description="Percent of the whole task")
    message: str | None = None
    estimated_time_remaining: float | None = Field(description="Seconds; null while unknown")
    current_step: int | None = None
    total_steps: int | None = None
    preview_step: int | None = Field(None, description="Step of the newest preview picture")
    stage_start_time: float | None = Field(None, description="Unix time")
    generation_start_time: float | None = Field(None, description="Unix time")
    download: dict[str, Any] | None = None
    output_path: str | None = None
    total_generation_time: float | None = Field(None, description="Seconds")
    error_message: str | None = None
    mock: bool | None = None
    mock_reason: str | None = None
    snapshot: bool | None = None
    timestamp: Timestamp


class StageChange(BaseModel):
    """A stage that a task entered."""

    task_id: str
    stage: str = Field(description="As in detailed_generation_progress, or generation_started")
    stage_progress: float = Field(description="Percent within the stage")
    stage_message: str | None = None
    stage_start_time: float | None = None
    start_time: float | None = None
    model_type: str | None = None
    attempt: int | None = None
    snapshot: bool | None = None
    timestamp: Timestamp


class ModelLoading(BaseModel):
    """The loading of a task's model."""

    task_id: str
    model_type: str
    status: Literal["loading", "loaded", "failed", "stopped"]
    progress: float = Field(description="Percent: 100 once loaded, 0 before: bytes in between are not counted")
    timestamp: Timestamp


class QueueNumbers(QueueCounts):
    """How many tasks are in each state."""

    paused: bool = Field(description="Whether the queue is")
    timestamp: Timestamp


class AlertData(BaseModel):
    """One alert; some kinds have more fields."""

    model_config = ConfigDict(extra="allow")

    alert_type: str = Field(description="memory, health, recovery, mock, other_model or model_download_progress")
    severity: Literal["info", "warning", "critical"]
    message: str
    task_id: str | None = None
    timestamp: Timestamp


class OutputChange(BaseModel):
    """What was done to one finished video; only the marks that changed are there."""

    output_id: str
    change: Literal["trashed", "restored", "deleted", "marked", "imported"]
    favourite: bool | None = None
    board_id: str | None = Field(None, description="Id of its board; null = it was taken off")
    tags_changed: bool | None = None
    timestamp: Timestamp


class ModelStatusData(ModelDetails):
    """One model: its files, its download and its use."""

    timestamp: Timestamp


class ModelBatch(BaseModel):
    """All models."""

    models: list[ModelDetails]
    count: int
    snapshot: bool | None = None
    timestamp: Timestamp


class AvailabilityChange(BaseModel):
    """A model whose files came, went or changed."""

    model_id: str
    old_availability: str
    new_availability: str
    reason: str | None = None
    timestamp: Timestamp


class DownloadProgressData(DownloadView):
    """How far a download is."""

    progress_percent: float | None = None
    timestamp: Timestamp


class DownloadChange(DownloadProgressData):
    """A download whose state changed."""

    new_status: str
    old_status: str | None = None
    total_size_mb: float | None = Field(None, description="When it begins")
    final_size_mb: float | None = Field(None, description="When it is complete")
    integrity_verified: bool | None = Field(None, description="When it is complete: every file was verified")
    error_message: str | None = None
    reason: str | None = None


class DownloadRetryData(BaseModel):
    """A pause after which a download asks the hub again."""

    model_id: str
    retry_count: int = Field(description="Failures in a row without a byte in between")
    max_retries: int
    error_message: str
    next_retry_in_seconds: float
    timestamp: Timestamp


class HealthReport(HealthView):
    """What `/api/v1/recovery/health` answers."""

    snapshot: bool | None = None
    timestamp: Timestamp


class ModelHealthAlert(ModelHealth):
    """A model whose health changed, as in `/api/v1/models/health`."""

    timestamp: Timestamp


class Corruption(BaseModel):
    """A model with damaged files."""

    model_id: str
    corruption_type: str | None = Field(None, description="missing, truncated or corrupted: of the first bad file")
    severity: Literal["error"]
    repair_action: str | None = Field(None, description="What would repair it, in a sentence")
    requires_user_action: bool
    timestamp: Timestamp


class FallbackNews(BaseModel):
    """What is done instead of what was asked for."""

    task_id: str
    original_model: str
    strategy_type: Literal["alternative_model", "mock_generation"]
    recommended_action: str
    alternative_model: str | None = None
    user_message: str
    can_queue_request: bool
    user_interaction_required: bool
    timestamp: Timestamp


class AlternativeNews(BaseModel):
    """Another model for a task that failed for want of its own."""

    task_id: str
    original_model: str
    suggested_model: str
    reason: str
    timestamp: Timestamp


class DownloadPlace(BaseModel):
    """A download that waits for others."""

    model_id: str
    queue_position: int = Field(description="1 is next")
    estimated_wait_time: float | None = Field(None, description="Seconds, where the running download knows its end")
    snapshot: bool | None = None
    timestamp: Timestamp


class UsageNumbers(BaseModel):
    """Use of the models by all, as in `/api/v1/models/analytics`."""

    days: int
    system_analytics: SystemUse
    model_analytics: dict[str, ModelUseView]
    snapshot: bool | None = None
    timestamp: Timestamp


class DayNumbers(BaseModel):
    """How the client's tasks of the last day went, as in `/api/v1/performance/dashboard`."""

    performance_summary: Totals
    snapshot: bool | None = None
    timestamp: Timestamp


class Subscribe(BaseModel):
    """What a client wants to get; `topic` or `topics`."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": ["topic"]}, {"required": ["topics"]}]})

    topic: str | None = None
    topics: list[str] | None = None
    since: int | None = Field(None, ge=0, description="Number of an event: everything after it is sent first")
    after_event: int | None = Field(None, ge=0, description="The earlier name of `since`")


class Unsubscribe(BaseModel):
    """What a client no longer wants to get."""

    topic: str


class Ping(BaseModel):
    """Whether the server answers."""

    timestamp: str | float | None = Field(None, description="Comes back in the `pong`")


class GetStatus(BaseModel):
    """Nothing needs to be said."""
