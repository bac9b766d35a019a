"""Records videos that no worker of this database finished: after a restoration, from a moved folder, or imported.

What they need stands in the file itself, and is given by the caller.
"""

from __future__ import annotations

import secrets

from sqlalchemy import Connection, delete, insert, select

from backend.core.access.caller import current_caller
from backend.core.domain import EventType, Output, TaskStatus
from backend.core.requests.forms import GenerationRequest
from backend.store.engine import Database
from backend.store.gallery.recording import figures_of, record_output
from backend.store.rows import storable
from backend.store.tables import database_now, outputs, tasks
from backend.store.transition import append, append_all, apply


class VideoRegister:
    """Tells known videos from unknown ones, and records these."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unknown(self, task_ids: set[str]) -> set[str]:
        """Return the ids without an output whose task is unknown, or waits although its video is finished.

        A task that runs or was given up is left to the worker, which writes or removes its video. Some hundred ids
        at a time: they are parameters of one query.
        """
        query = (
            select(tasks.c.id, tasks.c.status, outputs.c.task_id)
            .outerjoin(outputs, outputs.c.task_id == tasks.c.id)
            .where(tasks.c.id.in_(task_ids))
        )
        with self._database.read() as connection:
            known = {row[0] for row in connection.execute(query) if row[2] is not None or row[1] != TaskStatus.PENDING}
        return task_ids - known

    def add(self, request: GenerationRequest, output: Output) -> bool:
        """Record a finished video as a completed task; return whether it was still unknown.

        Raises:
            StoreFailed: nothing was recorded.
        """
        if output.created_at is None:
            raise ValueError("the video needs a time")
        made_at = output.created_at.timestamp()
        with self._database.begin() as connection:
            status = connection.execute(select(tasks.c.status).where(tasks.c.id == output.task_id)).scalar_one_or_none()
            if status is None:
                _insert_task(connection, request, output, made_at)
            elif status != TaskStatus.PENDING or not _complete(connection, output):
                return False
            task = connection.execute(select(tasks).where(tasks.c.id == output.task_id)).one()
            record_output(connection, task, output, made_at)
        return True

    def add_imported(self, output: Output, *, prompt: str) -> None:
        """Record a clip that was made elsewhere, for the current caller, with a task that is in no queue.

        Raises:
            StoreFailed: nothing was recorded.
        """
        now = database_now()
        with self._database.begin() as connection:
            connection.execute(
                insert(tasks).values(
                    id=output.task_id,
                    status=TaskStatus.COMPLETED,
                    model=output.model or "",
                    request={"prompt": storable(prompt)},
                    adjustments=[],
                    priority=0,
                    attempt=0,
                    max_attempts=1,
                    fingerprint=output.sha256,
                    created_at=now,
                    completed_at=now,
                    deleted_at=now,
                    progress=1.0,
                    last_event=0,
                    owner=current_caller().key_id,
                )
            )
            task = connection.execute(select(tasks).where(tasks.c.id == output.task_id)).one()
            record_output(connection, task, output, now)
            append_all(connection, [output.task_id], EventType.OUTPUT_CHANGED, {"change": "imported"})

    def forget_imported(self, task_id: str) -> None:
        """Take back what `add_imported` recorded, because its file could not be put in its place."""
        with self._database.begin() as connection:
            connection.execute(delete(outputs).where(outputs.c.task_id == task_id, outputs.c.imported))

    def is_imported(self, task_id: str) -> bool:
        """Whether a clip with this id was recorded as imported, by whomever."""
        with self._database.read() as connection:
            known = select(outputs.c.task_id).where(outputs.c.task_id == task_id, outputs.c.imported)
            return connection.execute(known).first() is not None


def _insert_task(connection: Connection, request: GenerationRequest, output: Output, made_at: float) -> None:
    connection.execute(
        insert(tasks).values(
            id=output.task_id,
            status=TaskStatus.COMPLETED,
            model=request.model,
            request=request.to_json(),
            adjustments=["the task was read from its video"],
            priority=0,
            attempt=1,
            max_attempts=1,
            fingerprint=request.digest,
            created_at=made_at - output.generation_seconds,
            started_at=made_at - output.generation_seconds,
            completed_at=made_at,
            progress=1.0,
            last_event=1,
        )
    )
    row = connection.execute(select(tasks).where(tasks.c.id == output.task_id)).one()
    append(connection, row, EventType.COMPLETED, figures_of(output) | {"adopted": True})


def _complete(connection: Connection, output: Output) -> bool:
    """Complete a task that waits: a worker finished it after the copy that is the database now was made."""
    token, now = secrets.token_hex(16), database_now()
    started = {"lease_token": token, "lease_expires_at": now, "started_at": now, "attempt": tasks.c.attempt + 1}
    waiting, running = (TaskStatus.PENDING,), (TaskStatus.PROCESSING,)
    taken = apply(connection, output.task_id, waiting, running[0], EventType.STARTED, values=started)
    return taken is not None and bool(
        apply(
            connection,
            output.task_id,
            running,
            TaskStatus.COMPLETED,
            EventType.COMPLETED,
            lambda _: figures_of(output) | {"adopted": True},
            token=token,
            values={"progress": 1.0, "eta_seconds": 0.0},
        )
    )
