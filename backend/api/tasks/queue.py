"""Queue routes: list, poll, cancel, delete, clear."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep, TaskId
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Message, Timestamp, iso_or_none, known, shown_model
from backend.api.tasks.shapes import TaskInfo, TaskMessage, _percent, task_info, time_left, video_url
from backend.core.catalogue.table import models_in_force
from backend.core.domain import Output, Task, TaskEvent, TaskStatus, iso, utcnow
from backend.core.errors.generation import TaskUnreadable
from backend.core.errors.lookups import NotFound, OutputNotFound
from backend.core.errors.requests import InvalidFilter
from backend.services.system.waiting import Waiting

router = Routes(prefix="/queue", tags=["queue"])

DEFAULT_LIMIT = 200
MAX_LIMIT = 1000
POLL_LIMIT = 50
POLLED_PROMPT_CHARS = 100


def queue_item(task: Task) -> QueueItem:
    """Convert a task to the form that the first clients expect."""
    spec = models_in_force().get(task.model)
    return QueueItem(
        id=task.id,
        status=task.status,
        prompt=task.prompt,
        model_type=spec.mode.value if spec else task.model,
        created_at=iso(task.created_at),
        progress=_percent(task),
        started_at=iso_or_none(task.started_at),
        completed_at=iso_or_none(task.completed_at),
        output_path=video_url(task.id) if task.status is TaskStatus.COMPLETED else None,
        error_message=task.error_message,
        estimated_time_remaining=time_left(task.eta_seconds) if task.status is TaskStatus.PROCESSING else None,
        parameters=known(task.request),
    )


def polled_task(task: Task) -> PolledTask:
    """Convert a task to its short form."""
    prompt = task.prompt
    return PolledTask(
        id=task.id,
        status=task.status,
        progress=_percent(task),
        model_type=shown_model(task.model),
        model=task.model,
        prompt=prompt if len(prompt) <= POLLED_PROMPT_CHARS else prompt[:POLLED_PROMPT_CHARS] + "...",
        created_at=iso(task.created_at),
        started_at=iso_or_none(task.started_at),
        completed_at=iso_or_none(task.completed_at),
        error_message=task.error_message,
    )


def queue_counts(counts: dict[TaskStatus, int]) -> QueueCounts:
    """Convert the number of tasks per state."""
    return QueueCounts(
        total_tasks=sum(counts.values()), **{f"{status}_tasks": counts.get(status, 0) for status in TaskStatus}
    )


def event_info(event: TaskEvent) -> EventInfo:
    """Convert an event."""
    return EventInfo(
        id=event.id, number=event.number, type=event.type, data=event.data, created_at=iso(event.created_at)
    )


class ClearBody(BaseModel):
    """What to clear."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    ended_until: datetime | None = Field(
        None, description="Only tasks that had ended by then: those that somebody saw, and not what ended since"
    )


class Cleared(Message):
    """How many tasks left the queue."""

    cleared: int


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
    paused: bool = Field(description="Whether the whole queue is paused")


class PolledTask(BaseModel):
    """One task in brief."""

    id: str
    status: TaskStatus
    progress: int
    model_type: str = Field(description="The family of the model")
    model: str = Field(description="The exact id of the model")
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


@router.get("", summary="The queue", responses=refusals({400: "No state has this name"}))
def queue_status(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most tasks in the answer")] = DEFAULT_LIMIT,
    status_filter: Annotated[str | None, Query(description="Only tasks in this state")] = None,
) -> QueueStatus:
    """List the tasks, newest first, with the number of tasks in each state."""
    tasks = services.tasks.list(status=_status(status_filter), limit=limit)
    counts, waiting = queue_counts(services.tasks.counts()), services.waiting(tasks)
    running = next((task for task in tasks if task.status is TaskStatus.PROCESSING), None)
    completed = [task.id for task in tasks if task.status is TaskStatus.COMPLETED]
    differing, with_video = services.outputs.not_as_asked(completed), services.outputs.with_video(completed)
    return QueueStatus(
        tasks=_readable(tasks, differing, with_video, waiting),
        queue=[queue_item(task) for task in tasks],
        current_task=queue_item(running) if running else None,
        paused=waiting.queue_paused,
        **counts.model_dump(),
    )


@router.get("/poll", summary="The queue in brief")
def poll(
    services: ServicesDep,
    since: Annotated[datetime | None, Query(description="Only tasks that changed after this time")] = None,
    active_only: Annotated[bool, Query(description="Only waiting and running tasks")] = True,
) -> QueuePoll:
    """Answer quickly what waits and what runs; at most 50 tasks, running ones first."""
    counts = services.tasks.counts()
    if active_only:
        tasks = services.tasks.list(status=TaskStatus.PROCESSING, limit=POLL_LIMIT)
        tasks += services.tasks.list(status=TaskStatus.PENDING, limit=POLL_LIMIT)
    else:
        tasks = services.tasks.list(limit=POLL_LIMIT)
    if since is not None:
        tasks = [task for task in tasks if _last_change(task) > _aware(since)]
    waiting, running = counts.get(TaskStatus.PENDING, 0), counts.get(TaskStatus.PROCESSING, 0)
    return QueuePoll(
        timestamp=iso(utcnow()),
        pending_count=waiting,
        processing_count=running,
        active_tasks=[polled_task(task) for task in tasks[:POLL_LIMIT]],
        has_active_tasks=waiting + running > 0,
    )


@router.post("/clear", summary="Take the finished tasks out of the queue")
def clear(services: ServicesDep, body: ClearBody | None = None) -> Cleared:
    """Remove every completed, failed and cancelled task from the list; the videos stay."""
    until = None if body is None else body.ended_until
    count = services.generation.clear(None if until is None else _aware(until))
    return Cleared(message=f"Cleared {count} finished task{'' if count == 1 else 's'}", cleared=count)


@router.get("/{task_id}", summary="One task")
def one_task(task_id: TaskId, services: ServicesDep) -> TaskInfo:
    """Show one task: its progress while it runs, its place while it waits, its error when it failed."""
    task = services.tasks.get(task_id)
    position = services.tasks.queue_position(task_id) if task.status is TaskStatus.PENDING else None
    output = None
    if task.status is TaskStatus.COMPLETED:
        try:
            output = services.outputs.get(task_id)
        except OutputNotFound:
            output = None  # the video was deleted; the task remains
    reason = services.waiting([task]).reason(task)
    return task_info(
        task, queue_position=position, waits_for=reason, output=output, has_video=output is not None, in_full=True
    )


@router.delete("/{task_id}", summary="Take a finished task out of the queue")
def delete_task(task_id: TaskId, services: ServicesDep) -> Message:
    """Remove a completed, failed or cancelled task from the list; its video stays."""
    services.generation.delete(task_id)
    return Message(message="Task deleted successfully")


@router.post("/{task_id}/cancel", summary="Cancel a task")
def cancel_task(task_id: TaskId, services: ServicesDep) -> TaskMessage:
    """Cancel a task: at once while it waits, within one step while it runs."""
    task = services.tasks.request_cancel(task_id)
    done = task.status is TaskStatus.CANCELLED
    message = "Task cancelled successfully" if done else "The task is being cancelled: it stops at its next step"
    return TaskMessage(message=message, task_id=task.id, status=task.status)


@router.get(
    "/{task_id}/preview",
    summary="The newest preview picture",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}, "description": "A small JPEG"}},
)
def preview(
    task_id: TaskId,
    services: ServicesDep,
    step: Annotated[
        int | None, Query(ge=0, description="Changes nothing; gives each picture an address of its own, for a page")
    ] = None,
) -> Response:
    """Return the newest preview of a running task."""
    services.tasks.get(task_id)
    try:
        picture = services.home.preview_of(task_id).read_bytes()
    except FileNotFoundError:
        raise NotFound("There is no preview of this task now", suggestions=("Ask again while it generates.",)) from None
    return Response(picture, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


@router.get("/{task_id}/events", summary="What happened to a task")
def task_events(
    task_id: TaskId,
    services: ServicesDep,
    after: Annotated[int, Query(ge=0, le=2**53 - 1, description="Only events with a higher number")] = 0,
) -> EventList:
    """List the numbered events of a task, oldest first, also of one that was taken out of the queue."""
    events = services.events.of_task(task_id, after)
    if not events:
        services.tasks.get(task_id)
    return EventList(task_id=task_id, events=[event_info(event) for event in events])


def _status(word: str | None) -> TaskStatus | None:
    if word is None:
        return None
    try:
        return TaskStatus(word)
    except ValueError:
        raise InvalidFilter(f"Invalid status filter. Use one of: {', '.join(TaskStatus)}") from None


def _readable(tasks: list[Task], outputs: dict[str, Output], with_video: set[str], waiting: Waiting) -> list[TaskInfo]:
    """Describe tasks; one whose request is damaged is in `queue` alone, which needs less of it."""
    found = []
    for task in tasks:
        with suppress(TaskUnreadable):
            position, reason = waiting.position(task), waiting.reason(task)
            found.append(
                task_info(
                    task,
                    queue_position=position,
                    waits_for=reason,
                    output=outputs.get(task.id),
                    has_video=task.id in with_video,
                )
            )
    return found


def _aware(moment: datetime) -> datetime:
    """Return a time with its zone; one without is UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _last_change(task: Task) -> datetime:
    return max(moment for moment in (task.created_at, task.started_at, task.completed_at) if moment is not None)
