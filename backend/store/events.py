"""Reads the event log: what happened to tasks, in commit order.

`TaskStore` writes each row together with the change it reports; rows never change after that.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import exists, func, or_, select

from backend.core.access.caller import current_caller
from backend.core.domain import EventType, TaskEvent
from backend.store.access.ownership import of_own_task
from backend.store.engine import Database
from backend.store.rows import readable, to_event
from backend.store.tables import events, removed_events, tasks


class EventLog:
    """Reads events. Ids grow in commit order, so a reader that remembers the last id misses none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, event_id: int, limit: int = 500) -> list[TaskEvent]:
        """Return the events of all tasks that the caller sees after this id, oldest first."""
        newer = (events.c.id > event_id) & of_own_task(events.c.task_id)
        owner = select(tasks.c.owner).where(tasks.c.id == events.c.task_id).scalar_subquery().label("owner")
        query = select(events, owner).where(newer).order_by(events.c.id).limit(limit)
        with self._database.read() as connection:
            return readable(connection.execute(query).all(), to_event)

    def before(self, event_id: int, task_ids: Collection[str]) -> list[TaskEvent]:
        """Return what led to the state of these tasks up to this id, oldest first; only the newest progress of each."""
        if not task_ids:
            return []
        theirs = (events.c.id <= event_id) & events.c.task_id.in_(task_ids)
        progress = events.c.type == EventType.PROGRESS
        newest = select(func.max(events.c.id)).where(theirs, progress).group_by(events.c.task_id)
        query = select(events).where(theirs, or_(~progress, events.c.id.in_(newest))).order_by(events.c.id)
        with self._database.read() as connection:
            return readable(connection.execute(query).all(), to_event)

    def removed_upto(self, since: int = 0) -> int:
        """Return up to which id events of the caller may be missing because they had become old; 0 where none are.

        Other ids may be missing without a deleted event: PostgreSQL does not give the id of a rolled-back event again.
        A key is told of events of its own tasks alone, after `since`: their numbers have no gaps otherwise. What it
        had in tasks that are gone as a whole, a month after they were removed from the queue, is not told.
        """
        with self._database.read() as connection:
            newest = select(func.coalesce(func.max(removed_events.c.upto), 0))
            upto = int(connection.execute(newest).scalar_one())
            if upto <= since or current_caller().confined_to is None:
                return upto
            earlier = events.alias()
            before = exists().where(earlier.c.task_id == events.c.task_id, earlier.c.number == events.c.number - 1)
            bereft = (events.c.id > since) & (events.c.number > 1) & of_own_task(events.c.task_id) & ~before
            last = connection.execute(select(func.max(events.c.id)).where(bereft)).scalar_one_or_none()
            return 0 if last is None else min(upto, int(last) - 1)

    def of_task(self, task_id: str, after_number: int = 0) -> list[TaskEvent]:
        """Return the events of one task after this number, oldest first, even of a deleted task."""
        mine = (events.c.task_id == task_id) & (events.c.number > after_number) & of_own_task(events.c.task_id)
        with self._database.read() as connection:
            return readable(connection.execute(select(events).where(mine).order_by(events.c.number)).all(), to_event)
