"""Ended tasks with their videos, for statistics over a period. Each caller sees its own tasks alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import func, select

from backend.core.domain import TERMINAL, Output, Task, TaskStatus
from backend.store.access.ownership import own_tasks
from backend.store.engine import Database
from backend.store.rows import moment, readable, to_output, to_task
from backend.store.tables import IMPORTED, database_now, outputs, tasks

_HOUR_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task that ended."""

    task: Task
    output: Output | None  #: the video; None = there is none, or not any more

    @property
    def succeeded(self) -> bool:
        """Whether it completed."""
        return self.task.status is TaskStatus.COMPLETED

    @property
    def seconds(self) -> float | None:
        """How long its last attempt took; None = it never ran."""
        if self.output is not None:
            return self.output.generation_seconds
        if self.task.started_at is None or self.task.completed_at is None:
            return None
        return max(0.0, (self.task.completed_at - self.task.started_at).total_seconds())


@dataclass(frozen=True, slots=True)
class EndedPeriod:
    """The tasks that ended in a period that ends now, by the database's clock."""

    start: datetime
    end: datetime
    tasks: Sequence[EndedTask]  #: newest first
    left_out: int  #: of older ones, because there were too many


class EndedTasks:
    """Reads ended tasks, also those that were removed from the queue view."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_last(self, hours: float, most: int) -> EndedPeriod:
        """Return the newest `most` tasks of the caller that ended in the last hours."""
        with self._database.read() as connection:
            now = float(connection.execute(select(database_now())).scalar_one())
            start = now - hours * _HOUR_SECONDS
            ended = tasks.c.status.in_(TERMINAL) & (tasks.c.completed_at > start) & own_tasks() & ~IMPORTED
            query = select(tasks).where(ended).order_by(tasks.c.completed_at.desc(), tasks.c.number.desc())
            found = readable(connection.execute(query.limit(most)).all(), to_task)
            total = select(func.count()).select_from(tasks).where(ended)
            count = int(connection.execute(total).scalar_one())
            done = [task.id for task in found if task.status is TaskStatus.COMPLETED]
            made = {
                output.task_id: output
                for ids in (done[first : first + 500] for first in range(0, len(done), 500))
                for output in readable(
                    connection.execute(select(outputs).where(outputs.c.task_id.in_(ids))).all(), to_output
                )
            }
        ended_tasks = [EndedTask(task, made.get(task.id)) for task in found]
        return EndedPeriod(moment(start), moment(now), ended_tasks, count - len(ended_tasks))
