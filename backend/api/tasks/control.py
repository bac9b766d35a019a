"""Queue routes that change what runs and when: pause, resume, retry, move, edit, duplicate; of a task or the queue.

Asking twice is never an error.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep, TaskId
from backend.api.http.routing import Routes
from backend.api.http.shapes import Message
from backend.api.tasks.body import ChangeBody, read_changes, read_copy, request_body_docs
from backend.api.tasks.generation import submitted
from backend.api.tasks.shapes import PRIORITIES, Submitted, TaskInfo, TaskMessage, task_info
from backend.api.tasks.webhook import choice_of
from backend.core.domain import Priority, Task, TaskStatus

router = Routes(prefix="/queue", tags=["queue"])

#: Most tasks in one new order.
MAX_REORDERED: Final = 1000


class PauseBody(BaseModel):
    """How to pause."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    now: bool = Field(
        False, description="Whether running tasks stop at their next step, with their state saved, instead of finishing"
    )


class MoveBody(BaseModel):
    """Where a waiting task goes."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    position: int = Field(ge=1, le=2**31, description="Its new place in the queue: 1 runs next")


class OrderBody(BaseModel):
    """Waiting tasks in the order in which they should run."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    task_ids: list[Annotated[str, Field(max_length=64)]] = Field(max_length=MAX_REORDERED)


class Moved(TaskMessage):
    """Where a task stands now."""

    queue_position: int | None = None
    priority: Priority


class QueueMessage(Message):
    """Whether the queue is paused."""

    paused: bool


ChangesDep = Annotated[ChangeBody, Depends(read_changes)]
CopyDep = Annotated[ChangeBody, Depends(read_copy)]


@router.post("/pause", summary="Pause the queue")
def pause_queue(services: ServicesDep, body: PauseBody | None = None) -> QueueMessage:
    """Start no more tasks on any worker until the queue is resumed, also after a restart; running ones finish.

    With `now`, running tasks stop at their next step and continue from there later.
    """
    now = body is not None and body.now
    services.tasks.hold(interrupts=now)
    running = "running tasks stop at their next step" if now else "running tasks finish"
    return QueueMessage(message=f"The queue is paused: {running}", paused=True)


@router.post("/resume", summary="Resume the queue")
def resume_queue(services: ServicesDep) -> QueueMessage:
    """Let workers take tasks again; those that were interrupted continue where they were."""
    services.tasks.lift()
    return QueueMessage(message="The queue is running", paused=False)


@router.post("/reorder", summary="Put waiting tasks into another order")
def reorder(body: OrderBody, services: ServicesDep) -> Message:
    """Let the named tasks run in this order, in the places that they have now; tasks that do not wait are ignored."""
    count = services.tasks.reorder(body.task_ids)
    return Message(message=f"{count} waiting {'task is' if count == 1 else 'tasks are'} in the order you asked for")


@router.post("/{task_id}/pause", summary="Pause a task")
def pause_task(task_id: TaskId, services: ServicesDep) -> TaskMessage:
    """Hold a task back: at once while it waits, within one step while it runs; its state is saved."""
    task = services.tasks.request_pause(task_id)
    done = task.status is TaskStatus.PAUSED
    return _answer(task, "Task paused" if done else "The task is being paused: it stops at its next step")


@router.post("/{task_id}/resume", summary="Resume a paused task")
def resume_task(task_id: TaskId, services: ServicesDep) -> TaskMessage:
    """Return a paused task to its place in the queue; it continues from its saved state on any worker."""
    task = services.tasks.resume(task_id)
    waits = task.status is TaskStatus.PENDING
    return _answer(task, "Task resumed: it waits for a worker" if waits else "The task is running")


@router.create("/{task_id}/retry", summary="Retry a failed or cancelled task")
def retry_task(task_id: TaskId, services: ServicesDep) -> TaskMessage:
    """Return a failed or cancelled task to the queue; it continues from its newest saved state, if that is kept."""
    task = services.generation.retry(task_id)
    waits = task.status is TaskStatus.PENDING
    return _answer(task, "Task queued again" if waits else "The task is running")


@router.post("/{task_id}/move", summary="Move a waiting task")
def move_task(task_id: TaskId, body: MoveBody, services: ServicesDep) -> Moved:
    """Move a waiting task to a position. Past tasks of another priority, it takes their priority."""
    task = services.tasks.move(task_id, body.position)
    position = services.tasks.queue_position(task_id)
    where = "It is no longer waiting" if position is None else f"It is number {position} in the queue"
    return Moved(
        message=where,
        task_id=task.id,
        status=task.status,
        queue_position=position,
        priority=PRIORITIES[task.priority],
    )


@router.patch("/{task_id}", summary="Edit a waiting task", openapi_extra=request_body_docs(ChangeBody))
def edit_task(task_id: TaskId, body: ChangesDep, services: ServicesDep) -> TaskInfo:
    """Change fields of the request of a task that waits or is paused, by the rules of submit; the others stay.

    Another model or preset brings its own sampler settings, unless they are named too.
    """
    task = services.generation.edit(task_id, body.changes(services.inputs))
    position, reason = services.tasks.queue_position(task_id), services.waiting([task]).reason(task)
    return task_info(task, queue_position=position, waits_for=reason, in_full=True)


@router.post("/{task_id}/duplicate", summary="Queue a task again", openapi_extra=request_body_docs(ChangeBody))
def duplicate_task(task_id: TaskId, body: CopyDep, services: ServicesDep) -> Submitted:
    """Queue the request of a task again, in whatever state it is, with these fields changed: `{"seed": null}`."""
    changes = body.changes(services.inputs, of_copy=True) | {"webhook": choice_of(body.webhook)}
    return submitted(services.generation.duplicate(task_id, changes, key=body.client_request_id))


def _answer(task: Task, message: str) -> TaskMessage:
    return TaskMessage(message=message, task_id=task.id, status=task.status)
