"""The vocabulary of tasks: states and their transitions, stages, events.

The transition table here is the only one. The database's CHECK constraint, the store's updates and
the diagram in docs/architecture.md are tested against it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

#: Characters of a task's id in tables; commands take the beginning of an id.
SHORT_ID = 8


class TaskStatus(StrEnum):
    """Where a task is in its life; the words of the API and of the database."""

    PENDING = "pending"  # waiting in the queue
    PROCESSING = "processing"  # a worker holds a lease on it
    PAUSED = "paused"  # held back at the user's request; no worker takes it
    COMPLETED = "completed"  # one output exists
    FAILED = "failed"  # abandoned; the error says why
    CANCELLED = "cancelled"  # stopped by the user


#: Every legal change of state. A same-state update is not a transition.
TRANSITIONS: frozenset[tuple[TaskStatus, TaskStatus]] = frozenset(
    {
        (TaskStatus.PENDING, TaskStatus.PROCESSING),  # claimed by a worker
        (TaskStatus.PENDING, TaskStatus.CANCELLED),  # cancelled before it ran
        (TaskStatus.PENDING, TaskStatus.PAUSED),  # held back by the user
        (TaskStatus.PROCESSING, TaskStatus.COMPLETED),  # output recorded
        (TaskStatus.PROCESSING, TaskStatus.FAILED),  # error, or attempts used up
        (TaskStatus.PROCESSING, TaskStatus.CANCELLED),  # the worker saw the user's request
        (TaskStatus.PROCESSING, TaskStatus.PENDING),  # lease lost, tried again later, or its worker has to stop or wait
        (TaskStatus.PROCESSING, TaskStatus.PAUSED),  # the worker saw the user's request
        (TaskStatus.PAUSED, TaskStatus.PENDING),  # resumed by the user
        (TaskStatus.PAUSED, TaskStatus.CANCELLED),  # cancelled while held back
        (TaskStatus.FAILED, TaskStatus.PENDING),  # retried by the user
        (TaskStatus.CANCELLED, TaskStatus.PENDING),  # retried by the user
    }
)

TERMINAL: frozenset[TaskStatus] = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})


class StopRequest(StrEnum):
    """What the worker of a running task is asked to do; it obeys within one step."""

    CANCEL = "cancel"  # end the task
    PAUSE = "pause"  # save the state, and hold the task back
    HAND_BACK = "hand_back"  # save the state, and return the task to the queue, which is held


class Stage(StrEnum):
    """What a worker is doing for a task; the words of the WebSocket messages."""

    INITIALIZING = "initializing"
    DOWNLOADING_MODEL = "downloading_model"
    LOADING_MODEL = "loading_model"
    PREPARING_INPUTS = "preparing_inputs"
    GENERATING = "generating"
    POST_PROCESSING = "post_processing"
    SAVING = "saving"
    COMPLETED = "completed"
    FAILED = "failed"


class Phase(StrEnum):
    """The parts of a run, in order; the words of recorded seconds."""

    DOWNLOAD = "download"
    LOAD = "load"
    ENCODE = "encode"
    DENOISE_HIGH = "denoise_high"
    DENOISE_LOW = "denoise_low"
    DECODE = "decode"
    MUX = "mux"


class EventType(StrEnum):
    """What can happen to a task; each event is a numbered row that never changes."""

    SUBMITTED = "submitted"
    STARTED = "started"
    PROGRESS = "progress"
    ALERT = "alert"
    CANCEL_REQUESTED = "cancel_requested"
    PAUSE_REQUESTED = "pause_requested"
    PAUSED = "paused"
    RESUMED = "resumed"
    RETRIED = "retried"
    MOVED = "moved"
    EDITED = "edited"
    ATTEMPT_LOST = "attempt_lost"
    RELEASED = "released"
    HELD_UP = "held_up"
    RETRY_SCHEDULED = "retry_scheduled"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELETED = "deleted"
    OUTPUT_CHANGED = "output_changed"


class WebhookEvent(StrEnum):
    """What a webhook is told of a task; the words of its messages."""

    STARTED = "task.started"
    PAUSED = "task.paused"
    COMPLETED = "task.completed"
    FAILED = "task.failed"
    CANCELLED = "task.cancelled"


#: What a webhook is told that names no types: how the task ended.
ENDINGS = (WebhookEvent.COMPLETED, WebhookEvent.FAILED, WebhookEvent.CANCELLED)


class Priority(StrEnum):
    """How urgent a task is; within one priority the oldest runs first, unless it was moved."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """The number the queue sorts by; higher runs earlier."""
        return {Priority.LOW: -1, Priority.NORMAL: 0, Priority.HIGH: 1}[self]


class DownloadPhase(StrEnum):
    """What a download of a model is doing."""

    WAITING = "waiting"  # another process is downloading this model
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"  # reading what is on disk


@dataclass(frozen=True, slots=True)
class DownloadRetry:
    """A pause after a failure, before the hub is asked again."""

    count: int  #: failures in a row without a byte in between
    most: int  #: of them, after which the download fails
    message: str  #: what went wrong
    seconds: float  #: length of the pause


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """One moment of the download of a model; unknown values are None."""

    phase: DownloadPhase
    file: str | None  #: the current file
    done_bytes: int  #: of the whole model, on this disk
    total_bytes: int | None
    speed: float | None  #: bytes per second over the network
    eta_seconds: float | None
    retry: DownloadRetry | None = None  #: while it waits after a failure

    def to_json(self) -> dict[str, Any]:
        """Return the figures as clients get them in a task's progress event; unknown ones are absent."""
        figures = {
            "status": str(self.phase),
            "done_bytes": self.done_bytes,
            "total_bytes": self.total_bytes,
            "bytes_per_second": self.speed,
            "eta_seconds": self.eta_seconds,
            "retry": None if self.retry is None else asdict(self.retry),
        }
        return {name: value for name, value in figures.items() if value is not None}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> DownloadProgress:
        """Read what `to_json` returned."""
        total, speed, eta = (value.get(name) for name in ("total_bytes", "bytes_per_second", "eta_seconds"))
        retry = DownloadRetry(**value["retry"]) if value.get("retry") else None
        return cls(DownloadPhase(value["status"]), None, value["done_bytes"], total, speed, eta, retry)


OnProgress = Callable[[DownloadProgress], None]


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of one attempt, as reported by the worker."""

    stage: Stage
    fraction: float  #: 0..1 over all phases of the attempt
    message: str
    step: int | None = None
    total_steps: int | None = None
    eta_seconds: float | None = None
    preview_step: int | None = None  #: step of the newest preview picture, if there is one
    fetch: DownloadProgress | None = None  #: only while the model is downloaded
    saved_step: int | None = None  #: steps in the newest saved state; 0 = the model has been downloaded; None = nothing
    unit_seconds: float | None = None  #: measured for a step or chunk such as the one that begins; None = unknown


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """One row of the event log."""

    id: int  #: grows over all tasks in commit order; WebSocket clients replay from it
    task_id: str
    number: int  #: 1, 2, 3 ... within the task, without gaps
    type: EventType
    data: dict[str, Any]
    created_at: datetime
    owner: str | None = None  #: the key that queued the task; None = the operator, or where it was not asked for


@dataclass(frozen=True, slots=True)
class Task:
    """A task as stored in the database."""

    id: str
    status: TaskStatus
    model: str
    request: dict[str, Any]
    adjustments: tuple[str, ...]
    priority: int
    attempt: int
    max_attempts: int
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    worker_id: str | None = None
    lease_token: str | None = None
    cancel_requested: bool = False
    pause_requested: bool = False
    stage: str | None = None
    progress: float = 0.0
    message: str | None = None
    step: int | None = None
    total_steps: int | None = None
    eta_seconds: float | None = None
    preview_step: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_suggestions: tuple[str, ...] = ()
    error_actions: tuple[dict[str, Any], ...] = ()  #: next steps that a client can execute
    download_paused: bool = False  #: whether it waits because the download of its model is paused
    repeats: int = 0  #: of failed attempts in a row that saved nothing new
    owner: str | None = None  #: the API key that queued it; None = the operator
    webhook_host: str | None = None  #: where its webhook leads; None = it has none, or where it was not asked for
    next_retry_at: datetime | None = None  #: before which it is not tried again; None = it can start at once

    @property
    def prompt(self) -> str:
        """The user's prompt; empty where the request cannot be read."""
        return str(self.request.get("prompt", ""))


@dataclass(frozen=True, slots=True)
class Output:
    """One finished video; its id is its task's id."""

    task_id: str
    filename: str
    size_bytes: int
    sha256: str
    width: int
    height: int
    num_frames: int
    fps: float
    generation_seconds: float
    warnings: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    created_at: datetime | None = None
    model: str | None = None  #: the model that made it; None = the task's
    mock: str | None = None  #: why it is a mock, which no model made; None = it is none
    imported: bool = False  #: whether it was made elsewhere and uploaded
    placeholder: bytes | None = None  #: its picture in at most 28 bytes, for `record_output`; not read back

    @property
    def duration_seconds(self) -> float:
        """How long the clip plays."""
        return self.num_frames / self.fps


def new_task_id() -> str:
    """Return a new task id: a random UUID as text."""
    return str(uuid.uuid4())


def utcnow() -> datetime:
    """Return the current time, in UTC."""
    return datetime.now(UTC)


def iso(moment: datetime) -> str:
    """Format a time as ISO-8601 UTC with a trailing Z, as browsers need it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
