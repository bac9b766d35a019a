"""What the models were used for, counted in the database over the last days. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, case, func, select

from backend.core.domain import TERMINAL, TaskStatus
from backend.store.engine import Database
from backend.store.rows import moment
from backend.store.tables import database_now, outputs, tasks

_DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The tasks of one model that ended in the time that was asked for; deleted ones count."""

    model: str
    completed: int
    failed: int
    cancelled: int
    mean_seconds: float | None  #: of those whose video still is in the gallery
    last_used: datetime

    @property
    def uses(self) -> int:
        """How many tasks ended."""
        return self.completed + self.failed + self.cancelled

    @property
    def success_rate(self) -> float | None:
        """Which share of the tasks that nobody cancelled became a video; None where there was none."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None


@dataclass(frozen=True, slots=True)
class Usage:
    """All models over a time that ends now, by the database's clock."""

    since: datetime
    until: datetime
    records: tuple[ModelRecord, ...]  #: the most used first


class UsageStore:
    """Counts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_last(self, days: float) -> Usage:
        """Count the tasks that ended in the last so many days."""
        with self._database.read() as connection:
            now = float(connection.execute(select(database_now())).scalar_one())
            since = now - days * _DAY_SECONDS
            query = (
                select(
                    tasks.c.model,
                    _count(TaskStatus.COMPLETED),
                    _count(TaskStatus.FAILED),
                    _count(TaskStatus.CANCELLED),
                    func.avg(outputs.c.generation_seconds),
                    func.max(tasks.c.completed_at),
                )
                .outerjoin(outputs, outputs.c.task_id == tasks.c.id)
                .where(tasks.c.status.in_(TERMINAL), tasks.c.completed_at >= since)
                .group_by(tasks.c.model)
            )
            rows = connection.execute(query).all()
        records = [
            ModelRecord(
                model, int(done), int(failed), int(cancelled), None if mean is None else float(mean), moment(last)
            )
            for model, done, failed, cancelled, mean, last in rows
        ]
        records.sort(key=lambda record: (-record.uses, record.model))
        return Usage(moment(since), moment(now), tuple(records))


def _count(status: TaskStatus) -> ColumnElement[int]:
    return func.sum(case((tasks.c.status == status, 1), else_=0))
