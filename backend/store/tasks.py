"""The queue: the `tasks` table is the only truth about tasks, and only `TaskStore` changes it.

Every change of state goes through `transition.apply`: one guarded UPDATE and one numbered event, in one
transaction. What a worker does with the task it holds is inherited from `leases.py`, what users do to their
tasks from `control.py`. Knows nothing of processes or models.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NotRequired, TypedDict, Unpack

from sqlalchemy import (
    Connection,
    Row,
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
    update,
)

from backend.core.access.caller import current_caller
from backend.core.domain import TERMINAL, EventType, Priority, Task, TaskStatus
from backend.core.errors.generation import TaskUnreadable
from backend.core.errors.lookups import IdempotencyConflict, StateConflict, VideoNotFound
from backend.core.faults import fault_point
from backend.core.requests.forms import GenerationRequest
from backend.core.requests.rules import MAX_VARIATIONS
from backend.core.requests.webhooks import Webhook
from backend.store.access.ownership import key_of_caller, own_tasks
from backend.store.access.totals import of_states
from backend.store.access.usage import refuse_beyond_limits
from backend.store.clients.outbox import subscribe
from backend.store.control import WAITING, QueueControl
from backend.store.kept_requests import remember_prompt
from backend.store.leases import UNTOUCHED, end_failed
from backend.store.order import (
    DUE,
    QUEUE_ORDER,
    READY,
    TASKS,
    before,
    find,
    held,
    position,
    positions,
    visible,
)
from backend.store.rows import readable, storable, to_task
from backend.store.tables import database_now, events, gallery, outputs, removed_events, tasks
from backend.store.transition import append, apply

#: How long an idempotency key outlives its task in the queue view; a client that lost an answer has retried by then.
KEY_SECONDS: Final = 86_400.0
#: How long after its first attempt a client library repeats a call without a key: its longest wait for an answer.
REPEAT_SECONDS: Final = 600.0
#: How many of the newest tasks are looked at for the first attempt: the search must not keep other writers waiting.
_LOOKED_AT: Final = 1000
#: Tasks that stand for a video: not yet finished ones in the queue view, and all with a video outside the trash.
_VIDEOS: Final = or_(
    tasks.c.deleted_at.is_(None) & (tasks.c.status != TaskStatus.COMPLETED),
    exists().where(gallery.c.task_id == tasks.c.id, gallery.c.trashed_at.is_(None), ~gallery.c.imported),
)
#: Stand beside the states in what `tally` reads.
_NEWEST_EVENT, _REMOVED_EVENT = "newest event", "removed event"
#: Positions beyond which nobody reads all that runs before: what is days away is not worth it.
FAR: Final = 200
#: In the class below, `list` is a method.
TaskIds = list[str]
TaskList = list[Task]


@dataclass(frozen=True, slots=True)
class Queued:
    """The tasks of one submission."""

    tasks: TaskList
    position: int | None = None  #: `queue_position` of the first one when it was queued; None = it was not queued now


class HowQueued(TypedDict):
    """What all tasks of one submission share."""

    adjustments: Sequence[str]
    priority: Priority
    max_attempts: int
    fingerprint: str  #: hash of the user's input, to distinguish a repeated submission from a reused key
    idempotency_key: NotRequired[str | None]
    repeated: NotRequired[bool]  #: whether the client repeats a call without a key, because it got no answer
    webhook: NotRequired[Webhook | None]  #: whom to tell what becomes of them
    keep_prompts: NotRequired[int]  #: length of the history that the prompt becomes part of; 0 = it does not


class TaskStore(QueueControl):
    """All operations on tasks. Each is one transaction; the clock is the database's."""

    def insert(self, task_id: str, request: GenerationRequest, **how: Unpack[HowQueued]) -> Task:
        """Queue one new task; as `insert_all`."""
        return self.insert_all([(task_id, request)], **how).tasks[0]

    def insert_all(self, new: Sequence[tuple[str, GenerationRequest]], **how: Unpack[HowQueued]) -> Queued:
        """Queue new tasks, given as id and request, in one transaction; they are on disk when this returns.

        When the idempotency key is in use by an equal request (same `fingerprint`), the tasks of that request are
        returned and nothing is queued: compare the ids. A key is in use while its task is in the queue view, and for a
        day after it was removed from it. The same holds for the newest equal request of the last ten minutes of a
        `repeated` call without a key.

        Raises:
            IdempotencyConflict: the key is in use by another request.
            QuotaExceeded: the caller may not queue as much.
        """
        key = key_of_caller(how.get("idempotency_key"))
        # The tasks of one call share one key; a client's key contains no blank.
        keys = [key if key is None or index == 0 else f"{key} {index + 1}" for index in range(len(new))]
        with self._database.begin() as connection:
            if key is None and how.get("repeated") and (first := _first_attempt(connection, len(new), how)):
                return Queued(first)
            known = [None if one is None else _with_key(connection, one, how["fingerprint"]) for one in keys]
            refuse_beyond_limits(connection, known.count(None))
            made = [
                (row, None) if row else _insert(connection, task_id, request, own_key, how)
                for row, own_key, (task_id, request) in zip(known, keys, new, strict=True)
            ]
            if known[:1] == [None]:  # variations are one use
                remember_prompt(connection, new[0][1], how.get("keep_prompts", 0))
            fault_point("submit.before_commit")
        fault_point("submit.after_commit")
        return Queued([to_task(row) for row, _ in made], made[0][1])

    def with_key(self, key: str, fingerprint: str) -> TaskList:
        """Return the tasks that a call with this key has queued; empty while the key is free.

        Raises:
            IdempotencyConflict: the key is in use by another request.
        """
        stored = key_of_caller(key)
        keys = [stored, *(f"{stored} {number}" for number in range(2, MAX_VARIATIONS + 1))]
        in_use = or_(tasks.c.deleted_at.is_(None), tasks.c.deleted_at >= database_now() - KEY_SECONDS)
        mine = TASKS.where(tasks.c.idempotency_key.in_(keys), in_use)
        with self._database.read() as connection:
            rows = connection.execute(mine.order_by(tasks.c.number)).all()
        if any(row.fingerprint != fingerprint for row in rows):
            raise IdempotencyConflict
        return [to_task(row) for row in rows]

    def images_in_use(self, image_ids: Set[str]) -> set[str]:
        """Return which of these images a task in the queue view or a finished video uses."""
        used: set[str] = set()
        wanted = select(tasks.c.id, tasks.c.request).outerjoin(outputs, outputs.c.task_id == tasks.c.id)
        wanted = wanted.where(tasks.c.deleted_at.is_(None) | outputs.c.task_id.is_not(None))
        for page in self._database.pages(wanted) if image_ids else ():
            known = [row.request for row in page if isinstance(row.request, dict)]
            used.update(request[name] for request in known for name in ("image", "end_image") if request.get(name))
            used &= image_ids
            if used == image_ids:
                break
        return used

    def get(self, task_id: str) -> Task:
        """Return one task.

        Raises:
            TaskNotFound: there is none, or it was deleted.
        """
        with self._database.read() as connection:
            return to_task(visible(connection, task_id))

    def status_of(self, task_id: str) -> TaskStatus | None:
        """Return the state of a task, even one deleted from the queue view; None when the id is unknown."""
        with self._database.read() as connection:
            found = connection.execute(select(tasks.c.status).where(tasks.c.id == task_id)).scalar_one_or_none()
        return None if found is None else TaskStatus(found)

    def fate(self, task_id: str, seconds: float) -> tuple[TaskStatus | None, bool]:
        """Return the state of a task as `status_of`, and whether it may go on from its saved states.

        That is a task that waits, or one that failed or was cancelled less than `seconds` ago and can be retried.
        """
        retried = tasks.c.status.in_((TaskStatus.FAILED, TaskStatus.CANCELLED)) & tasks.c.deleted_at.is_(None)
        recent = tasks.c.completed_at > database_now() - seconds
        goes_on = case((or_(tasks.c.status.in_(WAITING), retried & recent), True), else_=False)
        with self._database.read() as connection:
            found = connection.execute(select(tasks.c.status, goes_on).where(tasks.c.id == task_id)).one_or_none()
        return (None, False) if found is None else (TaskStatus(found[0]), bool(found[1]))

    def list(self, status: TaskStatus | None = None, limit: int | None = None) -> list[Task]:
        """Return the tasks of the queue view that the caller sees, newest first."""
        query = TASKS.where(tasks.c.deleted_at.is_(None), own_tasks()).order_by(tasks.c.number.desc()).limit(limit)
        if status is not None:
            query = query.where(tasks.c.status == status)
        with self._database.read() as connection:
            return readable(connection.execute(query).all(), to_task)

    def videos(self, limit: int, *, after: str | None = None, oldest_first: bool = False) -> TaskList:
        """Return the tasks of the caller that stand for a video, finished or not, newest first.

        `after` is the id of the last task of the page before.

        Raises:
            VideoNotFound: there is no task with this id.
        """
        query = TASKS.where(_VIDEOS, own_tasks())
        with self._database.read() as connection:
            if after is not None:
                cursor = select(tasks.c.number).where(tasks.c.id == after, own_tasks())
                number = connection.execute(cursor).scalar_one_or_none()
                if number is None:
                    raise VideoNotFound(details={"field": "after"})
                query = query.where(tasks.c.number > number if oldest_first else tasks.c.number < number)
            order = tasks.c.number.asc() if oldest_first else tasks.c.number.desc()
            return readable(connection.execute(query.order_by(order).limit(limit)).all(), to_task)

    def video(self, task_id: str) -> Task:
        """Return a task of the caller that stands for a video, also one that has left the queue view.

        Raises:
            VideoNotFound: there is none.
        """
        query = TASKS.where(_VIDEOS, own_tasks(), tasks.c.id == task_id)
        with self._database.read() as connection:
            found = readable(connection.execute(query).all(), to_task)
        if not found:
            raise VideoNotFound(details={"field": "video_id"})
        return found[0]

    def needing(self, model: str) -> TaskList:
        """Return the unfinished tasks of a model, oldest first."""
        unfinished = [status for status in TaskStatus if status not in TERMINAL]
        query = select(tasks).where(tasks.c.model == model, tasks.c.status.in_(unfinished)).order_by(tasks.c.number)
        with self._database.read() as connection:
            return readable(connection.execute(query).all(), to_task)

    def counts(self) -> dict[TaskStatus, int]:
        """Return the number of tasks in the queue view that the caller sees, by state, 0 included."""
        return self.tally()[0]

    def tally(self) -> tuple[dict[TaskStatus, int], int]:
        """Return the counts of what the caller sees, and the id of the newest event they include (0 without events).

        One statement is one snapshot on both databases: the counts include every event up to this id and none
        after it.
        """
        newest = select(literal(_NEWEST_EVENT), func.coalesce(func.max(events.c.id), 0))
        removed = select(literal(_REMOVED_EVENT), func.coalesce(func.max(removed_events.c.upto), 0))
        with self._database.read() as connection:
            found = {row[0]: row[1] for row in connection.execute(union_all(of_states(), newest, removed))}
        return {status: found.get(status, 0) for status in TaskStatus}, max(found[_NEWEST_EVENT], found[_REMOVED_EVENT])

    def queue_position(self, task_id: str) -> int | None:
        """Return 1 for the task that runs next, 2 for the one after it ...; None when the task is not ready to run.

        Tasks that wait for a paused download are not counted. None also when the task has left the queue view.
        """
        with self._database.read() as connection:
            row = find(connection, task_id)
            return None if row is None else position(connection, row)

    def positions(self, task_ids: Sequence[str]) -> dict[str, int]:
        """Return `queue_position` of those tasks that are ready to run."""
        with self._database.read() as connection:
            return positions(connection, task_ids) if task_ids else {}

    def up_to(self, task_id: str, limit: int = FAR) -> TaskList:
        """Return the running tasks, the tasks that run before this one in queue order, and this one.

        Empty when this task is not ready to run, or has left the queue view. Empty, too, when there are more than
        `limit` tasks.
        """
        with self._database.read() as connection:
            row = find(connection, task_id)
            place = None if row is None else position(connection, row)
            running = tasks.c.status == TaskStatus.PROCESSING
            if row is None or place is None or place > limit:
                return []
            waiting = READY & (before(row) | (tasks.c.id == row.id))
            order = case((running, 0), else_=1), *QUEUE_ORDER
            ahead = select(tasks).where(or_(running, waiting)).order_by(*order).limit(limit + 1)
            found = connection.execute(ahead).all()
            return readable(found, to_task) if len(found) <= limit else []

    def explain(self, reason: str) -> None:
        """Tell the owners of waiting tasks why no task runs; the first claim removes the message again."""
        silent = (tasks.c.status == TaskStatus.PENDING) & tasks.c.message.is_distinct_from(storable(reason))
        with self._database.read() as connection:
            if connection.execute(select(tasks.c.id).where(silent).limit(1)).first() is None:
                return
        with self._database.begin() as connection:
            connection.execute(update(tasks).where(silent).values(message=storable(reason)))

    def explained(self, reason: str) -> None:
        """Take back what `explain` said."""
        with self._database.begin() as connection:
            told = (tasks.c.status == TaskStatus.PENDING) & (tasks.c.message == storable(reason))
            connection.execute(update(tasks).where(told).values(message=None))

    def claim(
        self,
        worker_id: str,
        lease_seconds: float,
        *,
        downloads: bool = True,
        without: Collection[str] = (),
    ) -> Task | None:
        """Give the first task that is ready to a worker, or return None. The attempt counts from here on.

        Counting at the claim, not at the end, keeps a task that kills its worker from running for ever.

        A task whose model's download is paused is passed over and keeps its place. A worker that never `downloads`
        takes it all the same: no pause concerns it, and the attempt reports what is missing. Tasks of the models
        `without`, and tasks that are to be tried again later, are passed over as well. Nothing is claimed while the
        queue or the worker's device is held.
        """
        ready = READY if downloads else DUE
        ready = ready & ~held(worker_id)
        if without:
            ready = ready & tasks.c.model.not_in(without)
        first = select(tasks.c.id).where(ready).order_by(*QUEUE_ORDER).limit(1)
        with self._database.read() as connection:
            if connection.execute(first).first() is None:
                return None  # an idle worker looks often, and must not keep the writers waiting
        with self._database.begin() as connection:
            task_id = connection.execute(first).scalar_one_or_none()
            if task_id is None:
                return None
            row = apply(
                connection,
                task_id,
                (TaskStatus.PENDING,),
                TaskStatus.PROCESSING,
                EventType.STARTED,
                lambda row: {"attempt": row.attempt, "worker_id": worker_id},
                values=UNTOUCHED
                | {
                    "worker_id": worker_id,
                    "attempt": tasks.c.attempt + 1,
                    "lease_token": secrets.token_hex(16),
                    "lease_expires_at": database_now() + lease_seconds,
                    "started_at": database_now(),
                    "cancel_requested": False,
                    "advanced": False,
                    "pause_requested": False,
                    "next_retry_at": None,
                },
            )
            task = None if row is None else _claimed(connection, row)
        fault_point("claim.after_commit")
        return task

    def delete(self, task_id: str) -> None:
        """Remove an ended task from the queue view. Its video remains.

        Raises:
            TaskNotFound: there is no such task.
            StateConflict: it has not ended.
        """
        with self._database.begin() as connection:
            row = visible(connection, task_id)
            if TaskStatus(row.status) not in TERMINAL:
                raise StateConflict("Cannot delete active task. Cancel it first.")
            self._hide(connection, row)

    def clear_finished(self, until: datetime | None = None) -> TaskIds:
        """Remove all ended tasks that the caller sees from the queue view and return their ids. Their videos remain.

        `until` spares those that ended later, by more than the millisecond that its sender may have rounded away.
        """
        ended = select(tasks).where(tasks.c.status.in_(TERMINAL), tasks.c.deleted_at.is_(None), own_tasks())
        if until is not None:
            ended = ended.where(tasks.c.completed_at < until.timestamp() + 0.001)
        with self._database.begin() as connection:
            rows = connection.execute(ended.order_by(tasks.c.number)).all()
            for row in rows:
                self._hide(connection, row)
        return [row.id for row in rows]

    def _hide(self, connection: Connection, row: Row[Any]) -> None:
        gone = {"deleted_at": database_now()}
        status = TaskStatus(row.status)
        apply(connection, row.id, (status,), status, EventType.DELETED, values=gone)


def _claimed(connection: Connection, row: Row[Any]) -> Task | None:
    """Read a task that was just claimed; fail one that cannot be read, so that others do not wait behind it."""
    found = [task for task in readable([row], to_task) if task.request]
    if not found:
        end_failed(connection, row.id, TaskUnreadable())
    return found[0] if found else None


def _with_key(connection: Connection, key: str, fingerprint: str) -> Row[Any] | None:
    expired = tasks.c.deleted_at < database_now() - KEY_SECONDS
    connection.execute(update(tasks).where(tasks.c.idempotency_key == key, expired).values(idempotency_key=None))
    known = connection.execute(TASKS.where(tasks.c.idempotency_key == key)).one_or_none()
    if known is not None and known.fingerprint != fingerprint:
        raise IdempotencyConflict
    return known


def _first_attempt(connection: Connection, count: int, how: HowQueued) -> TaskList:
    """Return what an earlier attempt of a repeated call has queued; empty where it has not got that far."""
    newest = select(tasks.c.id).order_by(tasks.c.number.desc()).limit(_LOOKED_AT)
    mine = TASKS.where(
        tasks.c.id.in_(newest),
        tasks.c.fingerprint == how["fingerprint"],
        tasks.c.owner.is_not_distinct_from(current_caller().key_id),
        tasks.c.idempotency_key.is_(None),
        tasks.c.deleted_at.is_(None),
        tasks.c.created_at > database_now() - REPEAT_SECONDS,
    )
    rows = connection.execute(mine.order_by(tasks.c.number.desc()).limit(count)).all()
    return [to_task(row) for row in reversed(rows)]


def _insert(
    connection: Connection, task_id: str, request: GenerationRequest, key: str | None, how: HowQueued
) -> tuple[Row[Any], int | None]:
    """Queue a task; return its row and its position."""
    connection.execute(
        insert(tasks).values(
            id=task_id,
            status=TaskStatus.PENDING,
            model=request.model,
            request=request.to_json(),
            adjustments=list(how["adjustments"]),
            priority=how["priority"].rank,
            place=select(func.coalesce(func.max(tasks.c.number), 0) + 1).scalar_subquery(),
            attempt=0,
            max_attempts=how["max_attempts"],
            idempotency_key=key,
            fingerprint=how["fingerprint"],
            created_at=database_now(),
            last_event=1,
            owner=current_caller().key_id,
        )
    )
    subscribe(connection, task_id, how.get("webhook"))
    data = {"model": request.model, "prompt": request.prompt, "resolution": request.resolution}
    row = visible(connection, task_id)
    place = position(connection, row)
    append(connection, row, EventType.SUBMITTED, data | {"position": place})
    return row, place
