"""The shapes of the generation, queue and output routes, as clients of the earlier application expect them.

Only shapes: which values a model accepts is decided further in. Numbers that are not known are absent,
never null. Field names and spellings are fixed by the clients that exist; docs/api.md tells them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from backend.core.domain import Priority, TaskStatus
from backend.core.requests import Fit, OnLoraFailure, Scheduler

#: Whole numbers beyond this are rounded by JSON clients, so they are refused.
MAX_WHOLE = 2**53 - 1

Timestamp = Annotated[
    str, Field(description="ISO-8601, UTC, with a trailing Z", json_schema_extra={"format": "date-time"})
]


def _number(value: object) -> object:
    """Let numbers and their spellings through; `true` is no number, and an empty form field is no value."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return None if isinstance(value, str) and not value.strip() else value


def _optional_text(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


Whole = Annotated[Annotated[int, Field(ge=-MAX_WHOLE, le=MAX_WHOLE)] | None, BeforeValidator(_number)]
Real = Annotated[Annotated[float, Field(allow_inf_nan=False)] | None, BeforeValidator(_number)]


def _json_text(value: object) -> object:
    """Read a list that came as text in a form; an empty field is no list."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else []
    except (ValueError, RecursionError):
        raise ValueError("must be a list, or a list as JSON text") from None


MAX_LORA_STRENGTH = 4.0
Strength = Annotated[
    float, BeforeValidator(_number), Field(ge=-MAX_LORA_STRENGTH, le=MAX_LORA_STRENGTH, allow_inf_nan=False)
]


class LoraBody(BaseModel):
    """One LoRA of a request."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: str = Field(max_length=200, description="Its id in the list of LoRAs", examples=["my-style"])
    strength: Strength = Field(1.0, description="On the high-noise expert, or the only one")
    strength_2: Strength | None = Field(None, description="On the low-noise expert; the same when left out")
    expert: str | None = Field(
        None, pattern="^(high|low|both)$", description="Where a file goes whose expert cannot be told from it"
    )


class SubmitBody(BaseModel):
    """A request for a video. Whatever is left out is the model's default."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model_type: str = Field(
        validation_alias=AliasChoices("model_type", "modelType"),
        description="A model id or alias, or `auto`",
        examples=["auto", "tiny-t2v-a14b", "T2V-A14B"],
    )
    prompt: str = Field(description="What to show", examples=["a red circle moving right on a navy background"])
    negative_prompt: str | None = Field(None, description="What not to show")
    resolution: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, description="WIDTHxHEIGHT in pixels", examples=["96x96"]
    )
    num_frames: Whole = Field(None, description="Frames, 4k+1")
    fps: Real = Field(None, description="Frames per second of the file")
    steps: Whole = Field(None, description="Denoising steps")
    guidance_scale: Real = Field(None, description="Guidance of the high-noise expert, or of the only one")
    guidance_scale_2: Real = Field(None, description="Guidance of the low-noise expert")
    flow_shift: Real = Field(None, description="Shift of the noise schedule")
    scheduler: Annotated[Scheduler | None, BeforeValidator(_optional_text)] = Field(None, description="Sampler")
    seed: Whole = Field(None, description="Same seed and request, same frames; drawn when left out")
    max_sequence_length: Whole = Field(None, description="Prompt tokens that are read")
    lora_path: str = Field(
        "", validation_alias=AliasChoices("lora_path", "loraPath"), description="A LoRA from the list; empty for none"
    )
    lora_strength: Annotated[float, BeforeValidator(_number)] = Field(
        1.0, ge=0.0, le=2.0, allow_inf_nan=False, validation_alias=AliasChoices("lora_strength", "loraStrength")
    )
    image_id: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, max_length=64, description="A start image that is on the server already, instead of the file `image`"
    )
    end_image_id: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, max_length=64, description="The same for `end_image`"
    )
    image_fit: Annotated[Fit | None, BeforeValidator(_optional_text)] = Field(
        None, description="What happens to an image of another shape: crop (default), pad or stretch"
    )
    loras: Annotated[list[LoraBody], BeforeValidator(_json_text)] = Field(
        [], max_length=8, description="LoRAs, several at once; in a form as JSON text"
    )
    on_lora_failure: OnLoraFailure = Field(
        OnLoraFailure.SKIP, description="Whether a task whose LoRA cannot be applied goes on without it or fails"
    )
    preset: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, max_length=200, description="A LoRA that brings its own steps, guidance, shift and scheduler"
    )
    guidance_start: Real = Field(None, description="Guidance applies from this share of the steps on, 0 to 1")
    guidance_end: Real = Field(None, description="Guidance ends at this share of the steps, 0 to 1")
    crf: Whole = Field(None, description="Quality of the file: 0 is lossless, 17 looks so, 51 is worst")
    keep_latents: bool = Field(False, description="Keep the latents, so that the video can be decoded again")
    variations: Annotated[int, BeforeValidator(_number), Field(ge=1, le=16)] = Field(
        1, description="Queue this many tasks, with seeds that follow each other"
    )
    priority: Priority = Field(Priority.NORMAL, description="Urgent tasks run first")
    client_request_id: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None,
        validation_alias=AliasChoices("client_request_id", "clientRequestId"),
        description="Repeating it returns the first task instead of queuing a second one",
    )
    enable_prompt_enhancement: bool = Field(
        False, description="Not offered yet; the answer says so when it is asked for"
    )
    enable_optimization: bool = Field(True, description="Accepted for older clients; the server always chooses a plan")


class ExtendBody(SubmitBody):
    """A request for the continuation of a video. Whatever is left out is as in that video."""

    model_type: str = Field(
        "auto", validation_alias=AliasChoices("model_type", "modelType"), description="A model id or alias, or `auto`"
    )
    prompt: str = Field("", description="What happens next; the video's own prompt when left out")


class RedecodeBody(BaseModel):
    """New settings of the encoder for a video whose latents were kept."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    fps: Real = Field(None, description="Frames per second of the file; as before when left out")
    crf: Whole = Field(None, description="Quality of the file: 0 is lossless, 51 is worst; as before when left out")


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


class Submitted(TaskMessage):
    """A task that is safely on disk; with `variations`, the first of them."""

    task_ids: list[str] = Field(description="All tasks of this request, in the order they run")
    reasons: list[str] = Field([], description="Why `auto` took this model; empty when the model was named")
    success: bool = True
    detected_model_type: str
    queue_position: int | None = Field(None, description="1 is next; absent when the task no longer waits")
    estimated_time: float | None = Field(None, description="Seconds until done; absent before this machine's first run")
    estimated_time_minutes: int | None = None
    adjustments: list[str] = Field(description="One sentence for each value that was changed to fit the model")
    parameters: dict[str, Any] = Field(description="Every value that decides the frames, the seed included")


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
    status: str = Field(description="available, missing or damaged")
    is_available: bool
    reason: str | None = Field(None, description="Why it cannot be used")
    repository: str | None = None
    licence: str
    weights_gb: float
    size_mb: float | None = None
    embedded: bool
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
