"""The gallery: the finished videos, as rows and as files. An output's id is its task's id.

`TaskStore` writes a row when a task completes; an output remains when its task leaves the queue view.
Also counts how the models were used over the last days, read-only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import ColumnElement, case, delete, exists, func, or_, select

from backend.core.domain import TERMINAL, Output, TaskStatus
from backend.core.errors.lookups import OutputFileMissing, OutputNotFound
from backend.core.faults import fault_point
from backend.core.paths import Home, resolve_under
from backend.store.access.ownership import of_own_task
from backend.store.engine import Database
from backend.store.gallery.marks import give_up, note_deleted
from backend.store.rows import moment, readable, to_output
from backend.store.tables import IMPORTED, database_now, gallery, outputs, tasks

_DAY_SECONDS = 86_400.0
_TRASHED = exists().where(gallery.c.task_id == outputs.c.task_id, gallery.c.trashed_at.is_not(None))


@dataclass(frozen=True, slots=True)
class ModelUse:
    """One model's videos in the gallery."""

    videos: int
    last: datetime
    mean_seconds: float


class OutputStore:
    """Lists, finds and deletes finished videos."""

    def __init__(self, database: Database, home: Home) -> None:
        self._database = database
        self._home = home

    def list(self, limit: int | None = None, offset: int = 0) -> list[Output]:
        """Return the outputs that the caller sees and that are not in the trash, newest first."""
        seen = of_own_task(outputs.c.task_id)
        newest = select(outputs).where(~_TRASHED, seen).order_by(outputs.c.created_at.desc(), outputs.c.task_id)
        with self._database.read() as connection:
            return readable(connection.execute(newest.limit(limit).offset(offset)).all(), to_output)

    def ids(self) -> set[str]:
        """Return the ids of all outputs of all callers, also of those in the trash."""
        with self._database.read() as connection:
            return set(connection.execute(select(outputs.c.task_id)).scalars())

    def of_model(self, model: str, limit: int) -> Sequence[Output]:
        """Return the latest outputs that a model made, newest first; no mocks."""
        query = (
            select(outputs)
            .where(outputs.c.model == model)
            .order_by(outputs.c.created_at.desc(), outputs.c.task_id)
            .limit(limit)
        )
        with self._database.read() as connection:
            return readable(connection.execute(query).all(), to_output)

    def not_as_asked(self, task_ids: Sequence[str]) -> dict[str, Output]:
        """Return those outputs of these tasks that another model made, or none, by task."""
        query = (
            select(outputs)
            .join(tasks, tasks.c.id == outputs.c.task_id)
            .where(outputs.c.task_id.in_(task_ids), or_(outputs.c.model.is_(None), outputs.c.model != tasks.c.model))
        )
        with self._database.read() as connection:
            return {output.task_id: output for output in readable(connection.execute(query).all(), to_output)}

    def with_video(self, task_ids: Sequence[str]) -> set[str]:
        """Return those of these tasks whose video was neither deleted nor put in the trash."""
        query = select(outputs.c.task_id).where(outputs.c.task_id.in_(task_ids), ~_TRASHED)
        with self._database.read() as connection:
            return set(connection.execute(query).scalars())

    def uses(self) -> dict[str, ModelUse]:
        """Return for each model its number of videos, when the last was made, and the mean seconds; no mocks."""
        seconds = func.avg(outputs.c.generation_seconds)
        query = (
            select(outputs.c.model, func.count(), func.max(outputs.c.created_at), seconds)
            .where(outputs.c.model.is_not(None))
            .group_by(outputs.c.model)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return {model: ModelUse(count, moment(last), float(mean)) for model, count, last, mean in rows}

    def get(self, task_id: str, *, trashed: bool = False) -> Output:
        """Return one output.

        Raises:
            OutputNotFound: this task has none, or it is in the trash.
        """
        output = self.find(task_id, trashed=trashed)
        if output is None:
            raise OutputNotFound
        return output

    def find(self, task_id: str, *, trashed: bool = False) -> Output | None:
        """Return one output, or None when this task has none that can be read and the caller sees.

        One in the trash is found only where it is asked for.
        """
        query = select(outputs).where(outputs.c.task_id == task_id, of_own_task(outputs.c.task_id))
        with self._database.read() as connection:
            rows = connection.execute(query if trashed else query.where(~_TRASHED)).all()
        return next(iter(readable(rows, to_output)), None)

    def with_content(self, sha256: str) -> Output | None:
        """Return the newest output of the caller, none in the trash, whose file has this SHA-256."""
        same = (outputs.c.sha256 == sha256) & of_own_task(outputs.c.task_id) & ~_TRASHED
        query = select(outputs).where(same).order_by(outputs.c.created_at.desc()).limit(1)
        with self._database.read() as connection:
            return next(iter(readable(connection.execute(query).all(), to_output)), None)

    def video_path(self, task_id: str, *, trashed: bool = False) -> Path:
        """Return the path of the video.

        Raises:
            OutputNotFound: this task has none.
            OutputFileMissing: the file was removed, or cut short, by somebody else.
        """
        output = self.get(task_id, trashed=trashed)
        path = _present(resolve_under(self._home.outputs, output.filename))
        size = path.stat().st_size
        if size != output.size_bytes:
            raise OutputFileMissing(f"The video file is damaged: it has {size} bytes instead of {output.size_bytes}")
        return path

    def thumbnail_path(self, task_id: str, *, trashed: bool = False) -> Path:
        """Return the path of the thumbnail.

        Raises:
            OutputNotFound: this task has none.
            OutputFileMissing: the file was removed by somebody else.
        """
        return _present(self._home.thumbnail_of(self.get(task_id, trashed=trashed).task_id))

    def delete(self, task_id: str, *, trashed_only: bool = False) -> None:
        """Delete the video, its pictures, its kept latents and its row, for good; it may be in the trash.

        From the first moment it can no longer be restored, so that nobody gets half of it back.

        Raises:
            OutputNotFound: this task has none, or it is not in the trash and only such are to be deleted.
        """
        wanted = select(outputs.c.filename).where(outputs.c.task_id == task_id, of_own_task(outputs.c.task_id))
        with self._database.begin() as connection:
            filename = connection.execute(wanted.where(_TRASHED) if trashed_only else wanted).scalar_one_or_none()
            if filename is None:
                raise OutputNotFound
            give_up(connection, task_id)
        # Files first: when the process dies in between, the row remains and the deletion is repeated.
        resolve_under(self._home.outputs, filename).unlink(missing_ok=True)
        self._home.thumbnail_of(task_id).unlink(missing_ok=True)
        self._home.spritesheet_of(task_id).unlink(missing_ok=True)
        self._home.latents_of(task_id).unlink(missing_ok=True)
        fault_point("delete.files_gone")
        with self._database.begin() as connection:
            if connection.execute(delete(outputs).where(outputs.c.task_id == task_id)).rowcount:
                note_deleted(connection, task_id)


def _present(path: Path) -> Path:
    if not path.is_file():
        raise OutputFileMissing
    return path


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """The tasks of one model that ended in the given period, including deleted ones."""

    model: str
    completed: int
    failed: int
    cancelled: int
    mean_seconds: float | None  #: of those whose video is still in the gallery
    last_used: datetime

    @property
    def uses(self) -> int:
        """How many tasks ended."""
        return self.completed + self.failed + self.cancelled

    @property
    def success_rate(self) -> float | None:
        """Share of completed tasks among those not cancelled; None when there are none."""
        ended = self.completed + self.failed
        return self.completed / ended if ended else None


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """The usage of all models over a period that ends now, by the database's clock."""

    since: datetime
    until: datetime
    records: tuple[ModelRecord, ...]  #: most used first


class UsageStore:
    """Counts ended tasks by model."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_last(self, days: float) -> UsageSummary:
        """Count the tasks that ended in the last `days` days."""
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
                .where(tasks.c.status.in_(TERMINAL), tasks.c.completed_at >= since, ~IMPORTED)
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
        return UsageSummary(moment(since), moment(now), tuple(records))


def _count(status: TaskStatus) -> ColumnElement[int]:
    return func.sum(case((tasks.c.status == status, 1), else_=0))
