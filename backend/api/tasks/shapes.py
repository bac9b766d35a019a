"""Response shapes for tasks and models, as clients of the earlier application expect them.

Only shapes: which values a model accepts is decided in the services. Unknown numbers are absent, never null.
Field names and spellings are fixed by existing clients; docs/api.md lists them.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Literal

from pydantic import BaseModel, Field

from backend.api.http.addressing import current_links
from backend.api.http.shapes import DownloadFirst, Message, Timestamp, iso_or_none, known, shown_model
from backend.api.models.status import max_resolution
from backend.core.catalogue.table import ModelSpec
from backend.core.domain import Output, Priority, Task, TaskStatus, iso, utcnow
from backend.core.errors.tree import kind_of
from backend.core.requests.forms import GenerationRequest

#: Seconds below which no time left is shown.
SHORTEST_TIME_LEFT = 3.0


class StoredInput(BaseModel):
    """An image that requests can start from."""

    id: str = Field(description="Send it as `image_id` or `end_image_id`")
    width: int
    height: int
    url: str
    adjustments: list[str] = Field(description="One sentence for each thing that was changed or chosen in the file")


class TaskMessage(Message):
    """What was done to a task."""

    task_id: str
    status: TaskStatus


class Submitted(TaskMessage):
    """A task that is safely on disk; with `variations`, the first of them."""

    task_ids: list[str] = Field(description="All tasks of this request, in the order they run")
    reasons: list[str] = Field([], description="Why `auto` took this model; empty when the model was named")
    success: bool = True
    detected_model_type: str = Field(description="The model as it was named; the family of the one that `auto` took")
    model: str = Field(description="The exact id of the model")
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

    detected_model_type: str = Field(description="Its family: T2V-A14B, I2V-A14B or TI2V-5B")
    model: str = Field(description="Its exact id")
    confidence: float = Field(description="Always 1: the choice follows fixed rules, see `explanation`")
    explanation: list[str]
    requirements: Requirements
    alternatives: list[str]


class TaskInfo(BaseModel):
    """One task."""

    id: str
    model_type: str = Field(description="The family of the model: T2V-A14B, I2V-A14B or TI2V-5B")
    model: str = Field(description="The exact id of the model that was asked for or chosen")
    prompt: str
    resolution: str
    steps: int
    num_frames: int
    fps: float
    seed: int
    lora_path: str | None = Field(None, description="Id of the first LoRA, as older clients send it")
    lora_strength: float
    status: TaskStatus
    progress: int = Field(ge=0, le=100)
    progress_percent: float = Field(ge=0, le=100)
    created_at: Timestamp
    attempt: int
    priority: Priority
    cancel_requested: bool
    pause_requested: bool
    adjustments: list[str] = []
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    stage: str | None = None
    message: str | None = Field(None, description="What a running task does, or why a waiting one does not run")
    current_step: int | None = None
    total_steps: int | None = None
    estimated_time_remaining: float | None = Field(None, description="Seconds")
    estimated_time_minutes: int | None = None
    estimated_completion: Timestamp | None = None
    queue_position: int | None = None
    next_retry_at: Timestamp | None = Field(None, description="When a failed attempt is repeated")
    repeats: int | None = Field(None, description="Failed attempts in a row that were repeated")
    webhook_host: str | None = Field(None, description="Host of its webhook; the rest of the address is not shown")
    preview_url: str | None = None
    output_path: str | None = None
    generation_time: float | None = Field(None, description="Seconds the finished video took")
    model_used: str | None = Field(None, description="The model that made the video; absent for a mock")
    mock: bool = Field(False, description="Whether the video is a mock, which no model made")
    mock_reason: str | None = None
    error_message: str | None = None
    error_code: str | None = None
    error_category: str | None = None
    error_retryable: bool | None = Field(None, description="Whether the same request can succeed later, unchanged")
    suggestions: list[str] | None = None
    actions: list[dict[str, Any]] | None = Field(None, description="Next steps that a client can execute")
    parameters: dict[str, Any] | None = Field(None, description="Every value that decides the frames; not in lists")


#: The priorities by the number that the queue sorts by.
PRIORITIES = {priority.rank: priority for priority in Priority}


def video_url(task_id: str) -> str:
    """Return the playback URL of a finished video."""
    return current_links().to_media(f"/api/v1/outputs/{task_id}/video")


def task_info(
    task: Task,
    *,
    queue_position: int | None = None,
    waits_for: str | None = None,
    output: Output | None = None,
    has_video: bool = True,
    in_full: bool = False,
) -> TaskInfo:
    """Describe a task; `in_full` adds every value that determines its frames.

    `has_video` says of a completed one whether its video is still there.

    Raises:
        TaskUnreadable: its request is damaged.
    """
    request = GenerationRequest.understood(task.request)
    processing = task.status is TaskStatus.PROCESSING
    completed = task.status is TaskStatus.COMPLETED
    eta = time_left(task.eta_seconds) if processing else None
    error = None if task.error_code is None else kind_of(task.error_code)
    return TaskInfo(
        id=task.id,
        model_type=shown_model(task.model),
        model=task.model,
        prompt=request.prompt,
        resolution=request.resolution,
        steps=request.steps,
        num_frames=request.num_frames,
        fps=request.fps,
        seed=request.seed,
        lora_path=request.loras[0].id if request.loras else None,
        lora_strength=request.loras[0].strength if request.loras else 1.0,
        status=task.status,
        progress=_percent(task),
        progress_percent=round(task.progress * 100, 2),
        created_at=iso(task.created_at),
        attempt=task.attempt,
        priority=PRIORITIES[task.priority],
        cancel_requested=task.cancel_requested,
        pause_requested=task.pause_requested and processing,
        adjustments=list(task.adjustments),
        started_at=iso_or_none(task.started_at),
        completed_at=iso_or_none(task.completed_at),
        stage=task.stage if processing else None,
        message=task.message if processing else waits_for,
        current_step=task.step if processing or task.status is TaskStatus.PAUSED else None,
        total_steps=task.total_steps if processing or task.status is TaskStatus.PAUSED else None,
        estimated_time_remaining=None if eta is None else round(eta, 1),
        estimated_time_minutes=minutes(eta),
        estimated_completion=None if eta is None else iso(utcnow() + timedelta(seconds=eta)),
        queue_position=queue_position,
        next_retry_at=iso_or_none(task.next_retry_at),
        repeats=task.repeats or None,
        webhook_host=task.webhook_host,
        preview_url=current_links().to_media(f"/api/v1/queue/{task.id}/preview")
        if processing and task.preview_step is not None
        else None,
        output_path=video_url(task.id) if completed and has_video else None,
        generation_time=None if output is None else round(output.generation_seconds, 3),
        model_used=(task.model if output is None else output.model) if completed else None,
        mock=output is not None and output.mock is not None,
        mock_reason=None if output is None else output.mock,
        error_message=task.error_message,
        error_code=task.error_code,
        error_category=None if error is None else error.category.value,
        error_retryable=None if error is None else error.retryable,
        suggestions=list(task.error_suggestions) or None,
        actions=list(task.error_actions) or None,
        parameters=known(task.request) if in_full else None,
    )


def requirements(spec: ModelSpec) -> Requirements:
    """Describe what a request to this model needs."""
    return Requirements(
        requires_image=spec.needs_image,
        supports_end_image=spec.takes_end_image,
        estimated_vram_gb=spec.weights_gb,
        max_resolution=max_resolution(spec),
        recommended_steps=spec.steps,
    )


def time_left(seconds: float | None) -> float | None:
    """Return the time left as clients see it: nothing about the last moments, which nobody can predict."""
    return None if seconds is None or seconds < SHORTEST_TIME_LEFT else seconds


def minutes(seconds: float | None) -> int | None:
    """Round an estimate up to whole minutes, at least one."""
    return None if seconds is None else max(1, math.ceil(seconds / 60))


def _percent(task: Task) -> int:
    return 100 if task.status is TaskStatus.COMPLETED else min(99, int(task.progress * 100))
