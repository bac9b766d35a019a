"""How tasks fared lately: what failed and why, which attempts were lost, and whether the queue moves."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from backend.core.domain import EventType, TaskStatus
from backend.store.engine import Database
from backend.store.order import QUEUE_ORDER, READY
from backend.store.tables import database_now, events, outputs, tasks


@dataclass(frozen=True, slots=True)
class TaskHealth:
    """The tasks of the last minutes, by the database's clock."""

    completed: int  #: mocks are not counted
    failures: dict[str, int]  #: by the code of the error
    lost_attempts: int
    waiting_seconds: float | None  #: since something last happened to the first task that could start; None without one

    @property
    def failed(self) -> int:
        """How many tasks failed."""
        return sum(self.failures.values())


class TaskHealthStore:
    """Reads the figures."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_last(self, seconds: float) -> TaskHealth:
        """Count what ended in the last `seconds` seconds."""
        since = database_now() - seconds
        failed = select(func.coalesce(tasks.c.error_code, "internal_error"), func.count()).where(
            tasks.c.status == TaskStatus.FAILED, tasks.c.completed_at > since
        )
        completed = select(func.count()).select_from(
            tasks.join(outputs, outputs.c.task_id == tasks.c.id),
        )
        completed = completed.where(tasks.c.completed_at > since, outputs.c.model.is_not(None))
        lost = select(func.count()).where(events.c.type == EventType.ATTEMPT_LOST, events.c.created_at > since)
        first = select(tasks.c.id, tasks.c.last_event).where(READY).order_by(*QUEUE_ORDER).limit(1).subquery()
        newest = select(database_now() - events.c.created_at).join(
            first, (events.c.task_id == first.c.id) & (events.c.number == first.c.last_event)
        )
        with self._database.read() as connection:
            waiting = connection.execute(newest).scalar_one_or_none()
            return TaskHealth(
                completed=int(connection.execute(completed).scalar_one()),
                failures={row[0]: int(row[1]) for row in connection.execute(failed.group_by(tasks.c.error_code))},
                lost_attempts=int(connection.execute(lost).scalar_one()),
                waiting_seconds=None if waiting is None else max(0.0, float(waiting)),
            )

    def completed_by(self, worker_id: str) -> int:
        """Count the videos that a worker made."""
        mine = (tasks.c.worker_id == worker_id) & (tasks.c.status == TaskStatus.COMPLETED)
        with self._database.read() as connection:
            return int(connection.execute(select(func.count()).select_from(tasks).where(mine)).scalar_one())
