"""What users do to tasks that exist: cancel, pause, resume, retry, move, edit; and what holds the whole queue.

Each is one guarded UPDATE with an event, and asking twice is no error. A running task is asked; its worker stops it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from backend.core.domain import TERMINAL, EventType, Priority, Task, TaskStatus
from backend.core.errors.lookups import StateConflict
from backend.core.requests.forms import GenerationRequest
from backend.store.access.ownership import own_ids
from backend.store.access.usage import refuse_beyond_limits
from backend.store.leases import AT_ONCE, NO_WORKER, RUNNING, UNTOUCHED, Leases, progress_shown
from backend.store.order import QUEUE_SCOPE, QueuePlace, held, moved, places, position, reordered, visible
from backend.store.rows import moment, to_task
from backend.store.tables import database_now, holds
from backend.store.transition import apply

WAITING: Final = (TaskStatus.PENDING, TaskStatus.PAUSED)
_PENDING: Final = (TaskStatus.PENDING,)
_GIVEN_UP: Final = (TaskStatus.FAILED, TaskStatus.CANCELLED)
#: Column values of a task that starts over from its newest saved state.
_AFRESH: Final[dict[str, Any]] = (
    UNTOUCHED
    | AT_ONCE
    | {
        "attempt": 0,
        "strikes": 0,
        "advanced": False,
        "completed_at": None,
        "cancel_requested": False,
        "pause_requested": False,
        "error_code": None,
        "error_message": None,
        "error_suggestions": None,
    }
)


@dataclass(frozen=True, slots=True)
class Hold:
    """Something that keeps workers from claiming tasks until it is lifted."""

    scope: str  #: `QUEUE_SCOPE`, or that of a device (`device_scope`)
    interrupts: bool  #: whether tasks that ran when it was made were handed back
    since: datetime


class QueueControl(Leases):
    """The part of `TaskStore` that carries out what users want of tasks in the queue."""

    def request_cancel(self, task_id: str) -> Task:
        """Cancel a waiting task at once; ask the worker of a running one to stop. Idempotent.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it has completed or failed.
        """
        with self._database.begin() as connection:
            row = visible(connection, task_id)
            status = TaskStatus(row.status)
            if status in TERMINAL and status is not TaskStatus.CANCELLED:
                raise StateConflict(f"Cannot cancel task with status: {status}")
            if status in WAITING:
                cancelled = TaskStatus.CANCELLED, EventType.CANCELLED
                row = apply(connection, task_id, WAITING, *cancelled) or row
            elif not row.cancel_requested:
                event, values = EventType.CANCEL_REQUESTED, {"cancel_requested": True}
                row = apply(connection, task_id, RUNNING, status, event, values=values) or row
            return to_task(row)

    def request_pause(self, task_id: str) -> Task:
        """Hold a waiting task back at once; ask the worker of a running one to stop and save its state. Idempotent.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it has ended, or is being cancelled.
        """
        with self._database.begin() as connection:
            row = visible(connection, task_id)
            status = TaskStatus(row.status)
            if status in TERMINAL:
                raise StateConflict(f"Cannot pause task with status: {status}")
            if status is TaskStatus.PENDING:
                paused = TaskStatus.PAUSED, EventType.PAUSED, progress_shown
                row = apply(connection, task_id, _PENDING, *paused, values=NO_WORKER) or row
            elif row.cancel_requested:
                raise StateConflict("The task is being cancelled")
            elif status is TaskStatus.PROCESSING and not row.pause_requested:
                event, values = EventType.PAUSE_REQUESTED, {"pause_requested": True}
                row = apply(connection, task_id, RUNNING, status, event, values=values) or row
            return to_task(row)

    def resume(self, task_id: str) -> Task:
        """Return a paused task to the queue, in its old place; withdraw a pause that its worker has not seen.

        Idempotent: a task that waits or runs stays as it is.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it has ended.
        """
        with self._database.begin() as connection:
            row = visible(connection, task_id)
            status = TaskStatus(row.status)
            if status in TERMINAL:
                raise StateConflict(f"Cannot resume task with status: {status}")
            if status is TaskStatus.PAUSED:
                self._requeue(connection, task_id, (status,), EventType.RESUMED, UNTOUCHED)
            elif row.pause_requested:
                apply(connection, task_id, RUNNING, status, EventType.RESUMED, values={"pause_requested": False})
            return to_task(visible(connection, task_id))

    def retry(self, task_id: str) -> Task:
        """Return a failed or cancelled task to the queue, with all its attempts; it goes on from its saved state.

        A task that is to be tried again later is tried at once. Idempotent: one that waits or runs stays as it is.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it is paused, or has completed.
            QuotaExceeded: the caller may not queue as much.
        """
        with self._database.begin() as connection:
            row = visible(connection, task_id)
            status = TaskStatus(row.status)
            if status in (TaskStatus.PAUSED, TaskStatus.COMPLETED):
                raise StateConflict(f"Cannot retry task with status: {status}")
            if row.deferred:
                self._requeue(connection, task_id, _PENDING, EventType.RETRIED, AT_ONCE | {"message": None})
            if status in _GIVEN_UP:
                refuse_beyond_limits(connection, 1)
                self._requeue(connection, task_id, _GIVEN_UP, EventType.RETRIED, _AFRESH)
            return to_task(visible(connection, task_id))

    def edit(
        self,
        task_id: str,
        expected: GenerationRequest,
        request: GenerationRequest,
        *,
        adjustments: Sequence[str],
        priority: Priority,
    ) -> Task:
        """Replace the request of a task that no worker has; `expected` is the one that was edited.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it runs or has ended, or somebody else edited it meanwhile.
        """
        with self._database.begin() as connection:
            row = visible(connection, task_id)
            if row.status not in WAITING:
                raise StateConflict(f"Cannot edit task with status: {row.status}")
            if row.request != expected.to_json():
                raise StateConflict(
                    "The task was edited meanwhile", suggestions=("Read the task again, then repeat the edit.",)
                )
            new = request.to_json()
            changed = sorted(name for name in new.keys() | row.request.keys() if new.get(name) != row.request.get(name))
            values: dict[str, Any] = {"model": request.model, "request": new, "adjustments": list(adjustments)}
            # What was saved for another request may not fit this one, so nothing counts as saved.
            values |= AT_ONCE | {"priority": priority.rank, "message": None, "saved_step": None, "strikes": 0}
            data = {"model": request.model, "fields": changed}
            status = TaskStatus(row.status)
            apply(connection, task_id, (status,), status, EventType.EDITED, lambda _: data, values=values)
            return to_task(visible(connection, task_id))

    def move(self, task_id: str, position: int) -> Task:
        """Move a waiting task to a position, 1 = next; it takes the priority of the tasks that it stands between.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it does not wait.
        """
        with self._database.begin() as connection:
            row = visible(connection, task_id)
            if row.status != TaskStatus.PENDING:
                raise StateConflict(f"Cannot move task with status: {row.status}")
            if row.download_paused:
                raise StateConflict("Cannot move a task that waits for a paused download")
            if row.deferred:
                raise StateConflict(
                    "Cannot move a task that is tried again later", suggestions=("Retry it now, then move it.",)
                )
            self._settle(connection, moved(places(connection), task_id, position))
            return to_task(visible(connection, task_id))

    def reorder(self, task_ids: Sequence[str]) -> int:
        """Let the named waiting tasks run in this order, in the places that they have now; return how many wait.

        Tasks that do not wait (any more) are passed over: the list that a user sees is older than the queue.
        """
        with self._database.begin() as connection:
            waiting = places(connection)
            mine = own_ids(connection, [place.task_id for place in waiting])
            new = reordered(waiting, [task_id for task_id in task_ids if task_id in mine])
            self._settle(connection, new)
        return len(new)

    def hold(self, scope: str = QUEUE_SCOPE, *, interrupts: bool = False) -> bool:
        """Keep workers in a scope from claiming tasks until `lift`; return whether that is new.

        With `interrupts`, tasks that run there are handed back with their state saved. A hold that does not interrupt
        never weakens one that does.
        """
        mine = holds.c.scope == scope
        with self._database.begin() as connection:
            if connection.execute(select(holds).where(mine)).first() is None:
                values = {"scope": scope, "interrupts": interrupts, "created_at": database_now()}
                connection.execute(insert(holds).values(values))
                return True
            weaker = mine & holds.c.interrupts.is_(False)
            return interrupts and connection.execute(update(holds).where(weaker).values(interrupts=True)).rowcount > 0

    def lift(self, scope: str = QUEUE_SCOPE) -> bool:
        """End a hold; return whether there was one."""
        with self._database.begin() as connection:
            return connection.execute(delete(holds).where(holds.c.scope == scope)).rowcount > 0

    def queue_is_paused(self) -> bool:
        """Whether the whole queue is held."""
        with self._database.read() as connection:
            return connection.execute(select(holds).where(holds.c.scope == QUEUE_SCOPE)).first() is not None

    def is_held(self, worker_id: str) -> bool:
        """Whether the queue or the device of this worker is held."""
        with self._database.read() as connection:
            return connection.execute(select(held(worker_id))).scalar_one() is True

    def holds(self) -> list[Hold]:
        """Return what is held, by scope."""
        with self._database.read() as connection:
            rows = connection.execute(select(holds).order_by(holds.c.scope)).all()
        return [Hold(row.scope, row.interrupts, moment(row.created_at)) for row in rows]

    @staticmethod
    def _requeue(
        connection: Connection,
        task_id: str,
        origins: tuple[TaskStatus, ...],
        event: EventType,
        values: dict[str, Any],
    ) -> None:
        def data(row: Row[Any]) -> dict[str, Any]:
            row = visible(connection, task_id)
            return {"model": row.model, "position": position(connection, row)}

        apply(connection, task_id, origins, TaskStatus.PENDING, event, data, values=values)

    @staticmethod
    def _settle(connection: Connection, new: Sequence[QueuePlace]) -> None:
        """Write the places that have changed."""
        before = {one.task_id: one for one in places(connection)}
        for one in new:
            if one != before[one.task_id]:
                values = {"priority": one.priority, "place": one.place}
                moved_to = TaskStatus.PENDING, EventType.MOVED, lambda row: {"priority": row.priority}
                apply(connection, one.task_id, _PENDING, *moved_to, values=values)
