"""Deletes rows that have become old, and gives their space back, in transactions that keep no other writer waiting.

Never touches a task that has not ended, nor one whose video is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Select, and_, delete, exists, func, or_, select, update

from backend.core.domain import TERMINAL, EventType, TaskStatus
from backend.core.settings import Settings
from backend.store.clients.answers import old_answers
from backend.store.clients.deliveries import old_deliveries
from backend.store.engine import Database
from backend.store.tables import (
    answers,
    database_now,
    deliveries,
    events,
    load_samples,
    outputs,
    removed_events,
    tasks,
    webhooks,
    workers,
)
from backend.store.tasks import KEY_SECONDS

#: Pages given back to the disk in one transaction.
PAGES: Final = 256
_DAY, _HOUR, _MB = 86_400.0, 3_600.0, 1e6


@dataclass(frozen=True, slots=True)
class RowLimits:
    """How long rows are kept; 0 = for ever."""

    progress_days: float  #: progress events of ended tasks
    hidden_days: float  #: tasks that left the queue view and have no video, with all their events
    workers_hours: float  #: silent workers in the register
    database_mb: float  #: above this size, the progress events of all ended tasks go, oldest first
    samples_days: float = 0.0  #: samples of the load
    deliveries_days: float = 0.0  #: messages to webhooks that were delivered or given up

    @classmethod
    def of(cls, settings: Settings) -> RowLimits:
        """Return the limits in force."""
        return cls(
            settings.keep_progress_days,
            settings.keep_hidden_days,
            settings.keep_workers_hours,
            settings.database_mb,
            settings.keep_samples_days,
            settings.keep_deliveries_days,
        )


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows are old, or were deleted, and the bytes of the database's file."""

    progress_events: int = 0
    tasks: int = 0
    workers: int = 0
    samples: int = 0
    size_bytes: int = 0
    free_bytes: int = 0  #: of these, unused

    @property
    def sentence(self) -> str:
        """Describe what can be deleted."""
        return (
            f"{self.size_bytes / _MB:.1f} MB, {self.free_bytes / _MB:.1f} MB unused; old: {self.progress_events} "
            f"progress events, {self.tasks} removed tasks without a video, {self.workers} silent workers, "
            f"{self.samples} samples of the load"
        )


class Retention:
    """Counts and deletes old rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, limits: RowLimits) -> Rows:
        """Count what `sweep` would delete by age."""

        def count(query: Select[Any] | None) -> int:
            counted = None if query is None else select(func.count()).select_from(query.subquery())
            return 0 if counted is None else int(connection.execute(counted).scalar_one())

        with self._database.read() as connection:
            progress, gone = count(_old_progress(limits.progress_days)), count(_old_tasks(limits))
            silent, samples = count(_old_workers(limits)), count(_old_samples(limits))
        return Rows(progress, gone, silent, samples, *self._sizes())

    def sweep(self, limits: RowLimits, stopping: Callable[[], bool] = lambda: False) -> Rows:
        """Delete what is old, batch after batch, until `stopping`; return what was deleted.

        Raises:
            StoreFailed: the database is not usable now; what was deleted stays deleted.
        """
        progress = self._delete_progress(_old_progress(limits.progress_days), stopping)
        progress += self._delete_by_size(limits, stopping)
        gone = sum(self._delete_tasks(ids) for ids in self._batches(_old_tasks(limits), stopping))
        silent = sum(self._delete_workers(ids) for ids in self._batches(_old_workers(limits), stopping))
        for key, old in _owed_to_clients(limits):
            for ids in self._batches(select(key).where(old), stopping):
                with self._database.begin() as connection:
                    connection.execute(delete(key.table).where(key.in_(ids)))
        samples = sum(self._delete_samples(ids) for ids in self._batches(_old_samples(limits), stopping))
        self._give_pages_back(stopping)
        return Rows(progress, gone, silent, samples, *self._sizes())

    def _delete_progress(self, query: Select[Any] | None, stopping: Callable[[], bool]) -> int:
        deleted = 0
        for ids in self._batches(query, stopping):
            with self._database.begin() as connection:
                deleted += _delete_events(connection, events.c.id.in_(ids))
        return deleted

    def _delete_by_size(self, limits: RowLimits, stopping: Callable[[], bool]) -> int:
        """Delete the progress of ended tasks, oldest first, while the rows take more than they may."""

        def enough() -> bool:
            size, free = self._sizes()
            return stopping() or size - free <= limits.database_mb * _MB

        if not limits.database_mb or self._database.file is None or enough():
            return 0
        return self._delete_progress(_progress(tasks.c.status.in_(TERMINAL)), enough)

    def _delete_tasks(self, ids: list[Any]) -> int:
        """Delete tasks with their events, unless a video was added meanwhile."""
        with self._database.begin() as connection:
            held = set(connection.execute(select(outputs.c.task_id).where(outputs.c.task_id.in_(ids))).scalars())
            free = [one for one in ids if one not in held]
            _delete_events(connection, events.c.task_id.in_(free))
            connection.execute(delete(webhooks).where(webhooks.c.task_id.in_(free)))
            return connection.execute(delete(tasks).where(tasks.c.id.in_(free))).rowcount

    def _delete_workers(self, ids: list[Any]) -> int:
        with self._database.begin() as connection:
            return connection.execute(delete(workers).where(workers.c.id.in_(ids))).rowcount

    def _delete_samples(self, ids: list[Any]) -> int:
        with self._database.begin() as connection:
            return connection.execute(delete(load_samples).where(load_samples.c.id.in_(ids))).rowcount

    def _batches(self, query: Select[Any] | None, stopping: Callable[[], bool]) -> Iterator[list[Any]]:
        """Yield the keys of a query, a batch at a time; found without a lock, and each row only once."""
        for rows in () if query is None or stopping() else self._database.pages(query):
            yield [row[0] for row in rows]
            if stopping():
                return

    def _sizes(self) -> tuple[int, int]:
        """Return the bytes of the database, and how many of them are unused."""
        with self._database.read() as connection:
            if self._database.file is None:
                size = connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one()
                return int(size), 0
            page, pages, free = (
                int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
                for name in ("page_size", "page_count", "freelist_count")
            )
        return page * pages, page * free

    def _give_pages_back(self, stopping: Callable[[], bool]) -> None:
        """Shorten SQLite's file by its free pages; PostgreSQL reuses its own."""
        while self._database.file is not None and not stopping():
            with self._database.read() as connection:
                free = connection.exec_driver_sql("PRAGMA freelist_count").scalar_one()
                shrinks = connection.exec_driver_sql("PRAGMA auto_vacuum").scalar_one() != 0
            if not free or not shrinks:
                return
            with self._database.begin() as connection:
                for _ in range(min(free, PAGES)):
                    # The driver takes one step of a statement without columns, and each step frees one page.
                    connection.exec_driver_sql("PRAGMA incremental_vacuum(1)")


def _delete_events(connection: Connection, which: ColumnElement[bool]) -> int:
    """Delete events, and note how far the log is incomplete now; return how many there were."""
    highest = select(func.coalesce(func.max(events.c.id), 0)).where(which)
    upto = connection.execute(highest).scalar_one()
    connection.execute(update(removed_events).where(removed_events.c.upto < upto).values(upto=upto))
    return connection.execute(delete(events).where(which)).rowcount


def _owed_to_clients(limits: RowLimits) -> Iterator[tuple[Column[Any], ColumnElement[bool]]]:
    """Yield the key of each table of what was owed to clients, and which of its rows are old."""
    yield answers.c.token, old_answers()
    if limits.deliveries_days:
        yield deliveries.c.number, old_deliveries(limits.deliveries_days)


def _progress(which: ColumnElement[bool]) -> Select[Any]:
    joined = select(events.c.id).join(tasks, tasks.c.id == events.c.task_id)
    return joined.where(events.c.type == EventType.PROGRESS, which)


def _old_progress(days: float) -> Select[Any] | None:
    if not days:
        return None
    old = tasks.c.completed_at < database_now() - days * _DAY
    return _progress(and_(tasks.c.status.in_(TERMINAL), old))


def _old_tasks(limits: RowLimits) -> Select[Any] | None:
    if not limits.hidden_days:
        return None
    now = database_now()
    # A key still protects its client from a second task.
    free = or_(tasks.c.idempotency_key.is_(None), tasks.c.deleted_at < now - KEY_SECONDS)
    video = exists().where(outputs.c.task_id == tasks.c.id)
    return select(tasks.c.id).where(tasks.c.deleted_at < now - limits.hidden_days * _DAY, free, ~video)


def _old_workers(limits: RowLimits) -> Select[Any] | None:
    if not limits.workers_hours:
        return None
    busy = exists().where(tasks.c.worker_id == workers.c.id, tasks.c.status == TaskStatus.PROCESSING)
    return select(workers.c.id).where(workers.c.seen_at < database_now() - limits.workers_hours * _HOUR, ~busy)


def _old_samples(limits: RowLimits) -> Select[Any] | None:
    if not limits.samples_days:
        return None
    return select(load_samples.c.id).where(load_samples.c.taken_at < database_now() - limits.samples_days * _DAY)
