"""The shapes of the answers about tasks, videos and models, as clients of the earlier application expect them.

Only shapes: which values a model accepts is decided further in. Numbers that are not known are absent,
never null. Field names and spellings are fixed by the clients that exist; docs/api.md tells them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from backend.core.domain import Priority, TaskStatus

Timestamp = Annotated[
    str, Field(description="ISO-8601, UTC, with a trailing Z", json_schema_extra={"format": "date-time"})
]


class StoredInput(BaseModel):
    """An image that requests can start from."""

    id: str = Field(description="Send it as `image_id` or `end_image_id`")
    width: int
    height: int
    url: str


class ErrorBody(BaseModel):
    """Every error answer."""

    detail: str
    error: str = Field(description="Stable machine-readable code")
    message: str = Field(description="The same sentence as `detail`")
    details: dict[str, Any] | list[Any] | None = None
    suggestions: list[str] = []
    request_id: str


class Message(BaseModel):
    """What was done, in a sentence."""

    message: str


class TaskMessage(Message):
    """What was done to a task."""

    task_id: str
    status: TaskStatus


class Cleared(Message):
    """How many tasks left the queue."""

    cleared: int


class DownloadFirst(BaseModel):
    """What a task fetches before it can run."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: str
    repository: str
    status: str = Field(description="What the disk has of it: missing, partial, downloading, verifying or corrupted")
    bytes: int | None = Field(None, description="What is still to be fetched; absent until the hub was asked")
    weights_gb: float = Field(description="The weights in 16 bit, as the table of models has them")


class Submitted(TaskMessage):
    """A task that is safely on disk; with `variations`, the first of them."""

    task_ids: list[str] = Field(description="All tasks of this request, in the order they run")
    reasons: list[str] = Field([], description="Why `auto` took this model; empty when the model was named")
    success: bool = True
    detected_model_type: str
    queue_position: int | None = Field(None, description="1 is next; absent when the task does not wait for its turn")
    estimated_time: float | None = Field(
        None, description="Seconds until done, with the queue ahead; absent while unknown"
    )
    estimated_time_minutes: int | None = None
    estimated_time_basis: Literal["estimated", "measured"] | None = Field(
        None, description="`measured`: from what finished tasks of this machine took"
    )
    adjustments: list[str] = Field(description="One sentence for each value that was changed to fit the model")
    parameters: dict[str, Any] = Field(description="Every value that decides the frames, the seed included")
    download: DownloadFirst | None = Field(None, description="What is fetched first; absent when the model is here")


class GenerateStarted(TaskMessage):
    """The short answer of `POST /api/v1/generate`."""

    estimated_time_minutes: int | None = None


class Requirements(BaseModel):
    """What a model needs."""

    requires_image: bool
    supports_end_image: bool
    estimated_vram_gb: float
    max_resolution: str
    recommended_steps: int


class Detected(BaseModel):
    """Which model `auto` would take."""

    detected_model_type: str
    confidence: float = Field(description="Always 1: the choice follows fixed rules, see `explanation`")
    explanation: list[str]
    requirements: Requirements
    alternatives: list[str]


class TaskInfo(BaseModel):
    """One task."""

    id: str
    model_type: str
    prompt: str
    resolution: str
    steps: int
    num_frames: int
    fps: float
    seed: int
    lora_strength: float
    status: TaskStatus
    progress: int = Field(ge=0, le=100)
    progress_percent: float = Field(ge=0, le=100)
    created_at: Timestamp
    attempt: int
    priority: Priority
    cancel_requested: bool
    adjustments: list[str] = []
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    stage: str | None = None
    message: str | None = None
    current_step: int | None = None
    total_steps: int | None = None
    estimated_time_remaining: float | None = Field(None, description="Seconds")
    estimated_time_minutes: int | None = None
    estimated_completion: Timestamp | None = None
    queue_position: int | None = None
    preview_url: str | None = None
    output_path: str | None = None
    generation_time: float | None = Field(None, description="Seconds the finished video took")
    model_used: str | None = None
    error_message: str | None = None
    error_code: str | None = None
    suggestions: list[str] | None = None
    parameters: dict[str, Any] | None = Field(None, description="Every value that decides the frames; not in lists")


class QueueItem(BaseModel):
    """One task as the first clients read it: short model names, nothing null."""

    id: str
    status: TaskStatus
    prompt: str
    model_type: str
    created_at: Timestamp
    progress: int
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    output_path: str | None = None
    error_message: str | None = None
    estimated_time_remaining: float | None = None
    parameters: dict[str, Any]


class QueueCounts(BaseModel):
    """How many tasks are in which state."""

    total_tasks: int
    pending_tasks: int
    processing_tasks: int
    paused_tasks: int
    completed_tasks: int
    failed_tasks: int
    cancelled_tasks: int


class QueueStatus(QueueCounts):
    """The queue, newest first: `tasks` in full, `queue` the same ones for the first clients."""

    tasks: list[TaskInfo]
    queue: list[QueueItem]
    current_task: QueueItem | None = None


class PolledTask(BaseModel):
    """One task in brief."""

    id: str
    status: TaskStatus
    progress: int
    model_type: str
    prompt: str = Field(description="At most 100 characters")
    created_at: Timestamp
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    error_message: str | None = None


class QueuePoll(BaseModel):
    """The short answer for clients that ask often."""

    timestamp: Timestamp
    pending_count: int
    processing_count: int
    active_tasks: list[PolledTask]
    has_active_tasks: bool


class EventInfo(BaseModel):
    """One thing that happened to a task."""

    id: int = Field(description="Grows over all tasks")
    number: int = Field(description="1, 2, 3 ... within the task")
    type: str
    data: dict[str, Any]
    created_at: Timestamp


class EventList(BaseModel):
    """What happened to a task, oldest first."""

    task_id: str
    events: list[EventInfo]


class VideoMetadata(BaseModel):
    """One finished video; its id is its task's id."""

    id: str
    filename: str
    file_path: str = Field(description="Address of the video for a player")
    video_url: str
    output_path: str
    download_url: str
    thumbnail_path: str
    thumbnail_url: str
    prompt: str
    model_type: str
    resolution: str
    num_frames: int
    fps: float
    duration_seconds: float
    duration: float
    file_size_mb: float
    size_bytes: int
    sha256: str
    created_at: Timestamp | None = None
    generation_seconds: float
    generation_time_minutes: float
    generation_params: dict[str, Any] = Field(description="Every value that decides the frames")
    warnings: list[str] = []
    quality: str | None = Field(None, description="ok, black, flat or frozen, as seen in the frames")
    has_latents: bool = Field(False, description="Whether the latents were kept, for `redecode`")
    loras: list[dict[str, Any]] = Field([], description="What became of each LoRA that was asked for")
    metadata: dict[str, Any] | None = Field(None, description="The record inside the file; only for a single video")


class VideoList(BaseModel):
    """The gallery, newest first."""

    videos: list[VideoMetadata]
    total_count: int
    total_size_mb: float


class ModelInfo(BaseModel):
    """One model: whether it is here, what it needs, what it takes."""

    id: str
    title: str
    mode: str
    aliases: list[str]
    status: str = Field(description="available, missing, partial, downloading, verifying or corrupted")
    is_available: bool
    reason: str | None = Field(None, description="Why it cannot be used")
    repository: str | None = None
    licence: str
    weights_gb: float
    size_mb: float | None = None
    embedded: bool
    base: str | None = Field(None, description="The built-in model that one of the user's own is built like")
    experts: int
    defaults: dict[str, Any]
    limits: dict[str, Any]


class ModelList(BaseModel):
    """Every model this server knows."""

    models: list[ModelInfo]
    default: str | None = Field(None, description="What `auto` takes for a request without an image")
    total_models: int
    available_models: int
    timestamp: Timestamp
