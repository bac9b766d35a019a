"""The events that figures of the whole server are counted from: tasks that began, lost an attempt, or ended.

Of all callers: whoever reads this shows sums, and neither ids nor prompts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from backend.core.domain import EventType, Output, Task, TaskEvent
from backend.store.engine import Database
from backend.store.rows import readable, to_event, to_output, to_task
from backend.store.tables import events, outputs, tasks

#: After these no worker holds the task any more.
RELEASING: Final = frozenset(
    {
        EventType.COMPLETED,
        EventType.FAILED,
        EventType.CANCELLED,
        EventType.ATTEMPT_LOST,
        EventType.RELEASED,
        EventType.HELD_UP,
        EventType.RETRY_SCHEDULED,
        EventType.PAUSED,
    }
)
_COUNTED: Final[Collection[EventType]] = {EventType.STARTED, *RELEASING}


@dataclass(frozen=True, slots=True)
class CountedEvent:
    """An event with its task and, where the task completed, its video."""

    event: TaskEvent
    task: Task
    output: Output | None


class CountedEvents:
    """Reads the events that count, in their order."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self) -> int:
        """Return the id of the newest event of any type; 0 without any."""
        with self._database.read() as connection:
            return int(connection.execute(select(func.coalesce(func.max(events.c.id), 0))).scalar_one())

    def after(self, event_id: int, most: int = 500) -> list[CountedEvent]:
        """Return the events that count after this one, oldest first; those of deleted tasks are gone."""
        query = select(events).where(events.c.id > event_id, events.c.type.in_(_COUNTED)).order_by(events.c.id)
        with self._database.read() as connection:
            found = readable(connection.execute(query.limit(most)).all(), to_event)
            ids = {event.task_id for event in found}
            ended = {event.task_id for event in found if event.type is EventType.COMPLETED}
            rows = connection.execute(select(tasks).where(tasks.c.id.in_(ids))).all()
            made_rows = connection.execute(select(outputs).where(outputs.c.task_id.in_(ended))).all()
        known = {task.id: task for task in readable(rows, to_task)}
        made = {output.task_id: output for output in readable(made_rows, to_output)}
        return [
            CountedEvent(
                event, known[event.task_id], made.get(event.task_id) if event.type is EventType.COMPLETED else None
            )
            for event in found
            if event.task_id in known
        ]
