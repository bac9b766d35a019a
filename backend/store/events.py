"""Reads the event log: what happened to tasks, in commit order.

`TaskStore` writes each row together with the change it reports; rows never change after that.
"""

from __future__ import annotations

from sqlalchemy import select

from backend.core.domain import TaskEvent
from backend.store.access.ownership import of_own_task
from backend.store.engine import Database
from backend.store.rows import readable, to_event
from backend.store.tables import events, tasks


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

    def of_task(self, task_id: str, after_number: int = 0) -> list[TaskEvent]:
        """Return the events of one task after this number, oldest first, even of a deleted task."""
        mine = (events.c.task_id == task_id) & (events.c.number > after_number) & of_own_task(events.c.task_id)
        with self._database.read() as connection:
            return readable(connection.execute(select(events).where(mine).order_by(events.c.number)).all(), to_event)
