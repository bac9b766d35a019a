"""The order in which waiting tasks run, as queries: which may be claimed, which comes first, what is held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Exists, Row, and_, exists, func, literal, or_, select

from backend.core.domain import TaskStatus
from backend.core.errors.lookups import TaskNotFound
from backend.core.errors.repeats import LONGEST_SECONDS
from backend.store.access.ownership import own_tasks
from backend.store.download_orders import OrderState
from backend.store.tables import database_now, download_orders, holds, tasks, webhooks, workers

#: The scope of a hold on the whole queue; that of a device is its host and name.
QUEUE_SCOPE: Final = "queue"
QUEUE_ORDER: Final = (tasks.c.priority.desc(), tasks.c.place.asc(), tasks.c.number.asc())
_DOWNLOAD_PAUSED: Final = tasks.c.model.in_(
    select(download_orders.c.model).where(download_orders.c.state == OrderState.PAUSED)
)
#: Below the place of every task.
_FIRST: Final = -1e300
#: Whether a task has to wait before it is tried again. A pause longer than any is one that a set clock made.
#: Few tasks have such a time, and the clock is read for those alone: PostgreSQL reads it for each row.
_DEFERRED: Final = and_(
    tasks.c.next_retry_at.is_not(None),
    tasks.c.next_retry_at.between(database_now(), database_now() + LONGEST_SECONDS),
)
#: The tasks that a worker may claim while nothing is held, and those among them whose models are there.
DUE: Final = and_(tasks.c.status == TaskStatus.PENDING, ~_DEFERRED)
READY: Final = and_(DUE, ~_DOWNLOAD_PAUSED)
TASKS: Final = select(
    tasks,
    and_(tasks.c.status == TaskStatus.PENDING, _DOWNLOAD_PAUSED).label("download_paused"),
    and_(tasks.c.status == TaskStatus.PENDING, _DEFERRED).label("deferred"),
    select(webhooks.c.url)
    .where(webhooks.c.task_id == tasks.c.id)
    .order_by(webhooks.c.number)
    .limit(1)
    .scalar_subquery()
    .label("webhook_url"),
)


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """Where a waiting task stands."""

    task_id: str
    priority: int  #: `Priority.rank`
    place: float  #: orders the tasks of one priority


def device_scope(host: str, device: str) -> str:
    """Return the scope of a hold on one device of a machine."""
    return f"{host}/{device}"


def held(worker_id: ColumnElement[str] | str, *, interrupting: bool = False) -> Exists:
    """Whether the queue or the device of this worker is held; `interrupting`: so that running tasks stop as well."""
    device = select(workers.c.host + literal("/") + workers.c.device).where(workers.c.id == worker_id)
    held = exists().where(or_(holds.c.scope == QUEUE_SCOPE, holds.c.scope.in_(device)))
    return held.where(holds.c.interrupts) if interrupting else held


def find(connection: Connection, task_id: str) -> Row[Any] | None:
    """Return the row of a task in the queue view, if the caller sees it."""
    seen = TASKS.where(tasks.c.id == task_id, tasks.c.deleted_at.is_(None), own_tasks())
    return connection.execute(seen).one_or_none()


def visible(connection: Connection, task_id: str) -> Row[Any]:
    """Return the row of a task in the queue view.

    Raises:
        TaskNotFound: there is none.
    """
    row = find(connection, task_id)
    if row is None:
        raise TaskNotFound
    return row


def before(row: Row[Any]) -> ColumnElement[bool]:
    """The tasks that a worker takes before this one."""
    same = tasks.c.priority == row.priority
    earlier = or_(tasks.c.place < row.place, (tasks.c.place == row.place) & (tasks.c.number < row.number))
    return or_(tasks.c.priority > row.priority, same & earlier)


def position(connection: Connection, row: Row[Any]) -> int | None:
    """Return 1 for the task that runs next, 2 for the one after it ...; None when it is not ready to run."""
    if row.status != TaskStatus.PENDING or row.download_paused or row.deferred:
        return None
    query = select(func.count()).select_from(tasks).where(READY, before(row))
    return int(connection.execute(query).scalar_one()) + 1


def places(connection: Connection) -> list[QueuePlace]:
    """Return the places of the tasks that are ready to run, the next one first."""
    query = select(tasks.c.id, tasks.c.priority, tasks.c.place).where(READY)
    return [QueuePlace(*row) for row in connection.execute(query.order_by(*QUEUE_ORDER)).all()]


def positions(connection: Connection, task_ids: Sequence[str]) -> dict[str, int]:
    """Return the positions of those tasks that are ready to run, 1 for the one that is next.

    Each is counted up from the one before it, so that the queue is read once, and in its index alone.
    """
    ready = READY.label("ready")
    low = func.lag(tasks.c.place).over(partition_by=(ready, tasks.c.priority), order_by=QUEUE_ORDER[1:]).label("low")
    # Found by their ids alone: as a condition, their state would have SQLite look for them in the whole queue.
    mine = select(tasks.c.id, tasks.c.priority, tasks.c.place, tasks.c.number, ready, low)
    asked = mine.where(tasks.c.id.in_(task_ids)).cte("asked")
    peers = select(func.count()).select_from(tasks).where(READY, tasks.c.priority == asked.c.priority)
    between = peers.where(tasks.c.place >= func.coalesce(asked.c.low, _FIRST), tasks.c.place < asked.c.place)
    level = peers.where(tasks.c.place == asked.c.place, tasks.c.number < asked.c.number)
    each = select(asked.c.id, asked.c.priority, between.scalar_subquery(), level.scalar_subquery())
    each = each.where(asked.c.ready)
    rows = connection.execute(each.order_by(asked.c.priority.desc(), asked.c.place, asked.c.number)).all()
    if not rows:
        return {}
    higher = select(tasks.c.priority, func.count()).where(READY, tasks.c.priority > rows[-1].priority)
    above = [(row[0], row[1]) for row in connection.execute(higher.group_by(tasks.c.priority))]
    found: dict[str, int] = {}
    earlier: dict[int, int] = {}
    for task_id, priority, since_last, beside in rows:
        if priority not in earlier:
            earlier[priority] = sum(count for one, count in above if one > priority)
        earlier[priority] += since_last
        found[task_id] = earlier[priority] + beside + 1
    return found


def moved(waiting: Sequence[QueuePlace], task_id: str, position: int) -> list[QueuePlace]:
    """Return the changed places after a task was moved to a position (1 = next) among the waiting ones.

    A task that is moved past tasks of another priority takes that priority. The others keep their places, except
    where there is no number left between two of them.
    """
    mine = next(one for one in waiting if one.task_id == task_id)
    others = [one for one in waiting if one.task_id != task_id]
    index = min(max(position, 1), len(others) + 1) - 1
    ahead, behind = others[:index], others[index:]
    priority = mine.priority
    if behind:
        priority = max(priority, behind[0].priority)
    if ahead:
        priority = min(priority, ahead[-1].priority)
    low = [one.place for one in ahead if one.priority == priority]
    high = [one.place for one in behind if one.priority == priority]
    if low and high:
        place = (low[-1] + high[0]) / 2
    elif low or high:
        place = low[-1] + 1.0 if low else high[0] - 1.0
    else:
        place = mine.place
    if (not low or low[-1] < place) and (not high or place < high[0]):
        return [QueuePlace(task_id, priority, place)]
    peers = [one.task_id for one in ahead if one.priority == priority]
    peers += [task_id, *(one.task_id for one in behind if one.priority == priority)]
    # The last one keeps its place, so that tasks that arrive later stay behind.
    first = max(low + high) - len(peers) + 1
    return [QueuePlace(one, priority, first + offset) for offset, one in enumerate(peers)]


def reordered(waiting: Sequence[QueuePlace], task_ids: Sequence[str]) -> list[QueuePlace]:
    """Return the places of the named tasks when they share the ones they have in this order; others stay put."""
    wanted = [one for one in dict.fromkeys(task_ids) if any(one == place.task_id for place in waiting)]
    slots = [one for one in waiting if one.task_id in wanted]
    return [QueuePlace(task_id, slot.priority, slot.place) for task_id, slot in zip(wanted, slots, strict=True)]
