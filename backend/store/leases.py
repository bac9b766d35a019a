"""The worker's side of `TaskStore`: heartbeat, progress, the end of an attempt, recovery from lost workers.

Each write of a worker is fenced by the lease token it got at the claim. Knows nothing of the order of the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from sqlalchemy import ColumnElement, Connection, Row, case, func, or_, select, true, update

from backend.core.domain import EventType, Output, Progress, Stage, StopRequest, TaskStatus
from backend.core.errors.base import WanError
from backend.core.errors.generation import GenerationFailed, WorkerLost
from backend.core.errors.interruptions import LeaseLost
from backend.core.errors.surroundings import StoreFailed
from backend.core.faults import fault_point
from backend.store.engine import Database
from backend.store.gallery.recording import figures_of, record_output
from backend.store.order import held
from backend.store.rows import failure_data, storable
from backend.store.tables import database_now, tasks
from backend.store.transition import apply

RUNNING: Final = (TaskStatus.PROCESSING,)
#: Column values of a task that no attempt has touched.
UNTOUCHED: Final[dict[str, Any]] = {
    "worker_id": None,
    "stage": None,
    "stage_started_at": None,
    "progress": 0.0,
    "message": None,
    "step": None,
    "total_steps": None,
    "eta_seconds": None,
    "preview_step": None,
}
#: Column values of a task that was never repeated, or is to run without a pause.
AT_ONCE: Final[dict[str, Any]] = {"repeats": 0, "next_retry_at": None}
#: Where an attempt was, by the stage of its last report.
_PLACES: Final = {
    None: "before its first report",
    Stage.INITIALIZING: "at its start",
    Stage.DOWNLOADING_MODEL: "while it downloaded the model",
    Stage.LOADING_MODEL: "while it loaded the model",
    Stage.PREPARING_INPUTS: "while it encoded the inputs",
    Stage.GENERATING: "while it denoised",
    Stage.POST_PROCESSING: "while it decoded the frames",
    Stage.SAVING: "while it saved the video",
}

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Loss:
    """How an attempt was lost."""

    reason: str  #: a clause with its subject, without a place
    last_words: str | None = None  #: the end of what the worker wrote, without secrets
    error: type[GenerationFailed] = WorkerLost  #: of a task that is given up for it


DIED: Final = Loss("the worker died")
_SILENT: Final = Loss("the worker stopped answering")
#: Column values of a task whose worker has stopped; what it has done stays visible.
NO_WORKER: Final[dict[str, Any]] = {
    "worker_id": None,
    "stage": None,
    "stage_started_at": None,
    "message": None,
    "eta_seconds": None,
    "preview_step": None,
}
#: Why a task that was to be paused is in the queue again.
RESUMED_MEANWHILE: Final = "It was resumed, and continues when a worker is free"


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to a running task, at one moment. Every heartbeat makes a new, unequal one."""

    task_id: str
    token: str
    worker_id: str
    mark: float  #: changes with every heartbeat; only good for comparison, as clocks can be set
    cancel_requested: bool


class Leases:
    """The part of `TaskStore` that needs a lease, and that takes expired leases back.

    Every method that takes a lease token raises `LeaseLost`, and changes nothing, when the task is no longer leased
    to its caller.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def check(self, task_id: str, lease_token: str) -> StopRequest | None:
        """Return what the user asks of this attempt, None to continue; writes nothing."""
        with self._database.read() as connection:
            return _asked(connection, task_id, lease_token)

    def heartbeat(self, task_id: str, lease_token: str, lease_seconds: float) -> StopRequest | None:
        """Renew the lease; return what the user asks of this attempt."""
        statement = (
            update(tasks)
            .where(tasks.c.id == task_id, tasks.c.lease_token == lease_token)
            .values(lease_expires_at=database_now() + lease_seconds)
        )
        with self._database.begin() as connection:
            connection.execute(statement)
            return _asked(connection, task_id, lease_token)

    def report(self, task_id: str, lease_token: str, progress: Progress) -> StopRequest | None:
        """Store progress, which never decreases; return what the user asks of this attempt."""
        fraction = min(1.0, max(0.0, progress.fraction))
        same_stage = tasks.c.stage == progress.stage
        fetch = {} if progress.fetch is None else {"download": progress.fetch.to_json()}
        with self._database.begin() as connection:
            row = apply(
                connection,
                task_id,
                RUNNING,
                TaskStatus.PROCESSING,
                EventType.PROGRESS,
                lambda row: _progress_data(row) | fetch,
                token=lease_token,
                values={
                    "stage": progress.stage,
                    "stage_started_at": case((same_stage, tasks.c.stage_started_at), else_=database_now()),
                    "progress": case((tasks.c.progress > fraction, tasks.c.progress), else_=fraction),
                    "message": storable(progress.message),
                    "step": progress.step,
                    "total_steps": progress.total_steps,
                    "eta_seconds": progress.eta_seconds,
                    "preview_step": progress.preview_step,
                }
                | _newly_saved(progress.saved_step),
            )
            _held(row)
            return _asked(connection, task_id, lease_token)

    def alert(self, task_id: str, lease_token: str, data: Mapping[str, Any]) -> None:
        """Record an event that needs the user's attention; `data` holds plain JSON values."""
        with self._database.begin() as connection:
            row = apply(
                connection,
                task_id,
                RUNNING,
                TaskStatus.PROCESSING,
                EventType.ALERT,
                lambda _: dict(data),
                token=lease_token,
            )
            _held(row)

    def complete(self, task_id: str, lease_token: str, output: Output) -> None:
        """Record the finished video and complete the task."""
        values = figures_of(output)
        with self._database.begin() as connection:
            row = apply(
                connection,
                task_id,
                RUNNING,
                TaskStatus.COMPLETED,
                EventType.COMPLETED,
                lambda row: values | ({} if output.mock is None else {"mock": output.mock}),
                token=lease_token,
                values={"progress": 1.0, "eta_seconds": 0.0},
            )
            record_output(connection, _held(row), output, database_now())
            fault_point("finish.before_commit")
        fault_point("finish.after_commit")

    def fail(
        self, task_id: str, lease_token: str, error: WanError, pause: Callable[[int], float | None] = lambda _: None
    ) -> None:
        """End an attempt with an error: repeat it after a pause, or fail the task.

        `pause` returns the seconds to wait, given how often the task was repeated in a row; None = it fails.
        """
        mine = select(tasks).where(tasks.c.id == task_id, tasks.c.lease_token == lease_token)
        with self._database.begin() as connection:
            row = _held(connection.execute(mine).one_or_none())
            seconds = pause(row.repeats)
            if seconds is None:
                end_failed(connection, task_id, error)
            elif row.cancel_requested:
                _cancel(connection, task_id)
            elif row.pause_requested:
                _pause(connection, task_id)
            else:
                _repeat(connection, task_id, error, seconds)

    def acknowledge_cancel(self, task_id: str, lease_token: str) -> None:
        """Cancel the task, now that its worker has stopped."""
        with self._database.begin() as connection:
            _held(_cancel(connection, task_id, lease_token))

    def acknowledge_pause(self, task_id: str, lease_token: str) -> None:
        """Hold the task back, now that its worker has stopped; it returns to the queue if it was resumed meanwhile.

        The attempt does not count.
        """
        self.release(task_id, lease_token, RESUMED_MEANWHILE)

    def release(self, task_id: str, lease_token: str, reason: str | None = None, again_in: float | None = None) -> None:
        """Return the task to the queue; the attempt does not count. A task to be cancelled or paused is so instead.

        `reason` is why it cannot continue now, as a sentence; None = the operator stops the worker. `again_in` is the
        time in seconds before which nobody need try it again.
        """
        mine = select(tasks).where(tasks.c.id == task_id, tasks.c.lease_token == lease_token)
        with self._database.begin() as connection:
            _release(connection, _held(connection.execute(mine).one_or_none()), reason, again_in)

    def leases(self) -> list[Lease]:
        """Return the leases of all running tasks, oldest task first."""
        columns = tasks.c.id, tasks.c.lease_token, tasks.c.worker_id, tasks.c.lease_expires_at, tasks.c.cancel_requested
        running = select(*columns).where(tasks.c.status == TaskStatus.PROCESSING).order_by(tasks.c.number)
        with self._database.read() as connection:
            return [Lease(*row) for row in connection.execute(running)]

    def recover_silent(self, silent: Collection[Lease]) -> list[str]:
        """Take back the tasks of these leases, except those renewed meanwhile; return their ids.

        Who calls this has seen each lease unchanged for long enough, by a clock of its own (`worker/silence.py`).
        """
        if not silent:
            return []
        unchanged = [(tasks.c.lease_token == one.token) & (tasks.c.lease_expires_at == one.mark) for one in silent]
        return self._recover(or_(*unchanged), lambda connection, row: _take_back(connection, row, _SILENT))

    def recover_worker(self, worker_id: str, loss: Loss = DIED) -> list[str]:
        """Take back the tasks of a worker that is known to be dead; return their ids."""
        return self._recover(tasks.c.worker_id == worker_id, lambda connection, row: _take_back(connection, row, loss))

    def hand_back(self, worker_id: str) -> list[str]:
        """Return the tasks of a worker that the operator ended to the queue; no attempt counts. Return their ids."""
        return self._recover(tasks.c.worker_id == worker_id, lambda connection, row: _release(connection, row))

    def lose(self, task_id: str, lease_token: str, loss: Loss) -> None:
        """Report that this attempt is lost although its worker still answers."""
        mine = select(tasks).where(tasks.c.id == task_id, tasks.c.lease_token == lease_token)
        with self._database.begin() as connection:
            _take_back(connection, _held(connection.execute(mine).one_or_none()), loss)

    def prove_writable(self) -> None:
        """Begin and end a write transaction.

        Raises:
            StoreUnavailable: nobody can write, so nobody can renew a lease.
        """
        with self._database.begin():
            pass

    def _recover(self, whose: ColumnElement[bool], end: Callable[[Connection, Row[Any]], None]) -> list[str]:
        """End the running tasks that meet the condition, each in a transaction of its own; return their ids."""
        lost = (tasks.c.status == TaskStatus.PROCESSING) & whose
        with self._database.read() as connection:
            ids = connection.execute(select(tasks.c.id).where(lost).order_by(tasks.c.number)).scalars().all()
        recovered = []
        for task_id in ids:
            try:
                with self._database.begin() as connection:
                    row = connection.execute(select(tasks).where(lost, tasks.c.id == task_id)).one_or_none()
                    if row is not None:
                        end(connection, row)
                        recovered.append(task_id)
            except StoreFailed:
                raise
            except Exception:  # the boundary of a row: one that is damaged must not keep the others from their workers
                log.exception("store.task_not_recovered", task_id=task_id)
        return recovered


def _take_back(connection: Connection, row: Row[Any], loss: Loss) -> None:
    """End an attempt that was lost; give the task up after too many in a row that saved nothing new."""
    strikes = row.strikes + (0 if row.advanced else 1)
    retry = strikes < row.max_attempts and not row.cancel_requested
    data = _known({"stage": row.stage, "step": row.step, "last_words": loss.last_words and storable(loss.last_words)})
    data |= {"attempt": row.attempt, "reason": loss.reason, "strikes": strikes, "will_retry": retry}
    values: dict[str, Any] = {"strikes": strikes}
    if retry and row.pause_requested:
        apply(connection, row.id, RUNNING, TaskStatus.PROCESSING, EventType.ATTEMPT_LOST, lambda _: data, values=values)
        _pause(connection, row.id)
        return
    if retry:
        change = TaskStatus.PENDING, EventType.ATTEMPT_LOST, lambda _: data
        apply(connection, row.id, RUNNING, *change, values=UNTOUCHED | values)
        return
    apply(connection, row.id, RUNNING, TaskStatus.PROCESSING, EventType.ATTEMPT_LOST, lambda _: data, values=values)
    if row.cancel_requested:
        _cancel(connection, row.id)
    else:
        end_failed(connection, row.id, loss.error(_given_up(row, strikes, loss)))


def _given_up(row: Row[Any], strikes: int, loss: Loss) -> str:
    """Say after how many strikes, where, and with which last words."""
    beginning = "The attempt" if strikes == 1 else f"{strikes} attempts in a row"
    step = "" if row.stage != Stage.GENERATING or not row.step else f", after step {row.step} of {row.total_steps}"
    place = f"{_PLACES.get(row.stage, '')}{step}".strip()
    last = "" if strikes == 1 else "the last time, "
    words = f". Its last words: {loss.last_words}" if loss.last_words else ""
    return f"{beginning} made no progress: {last}{loss.reason} {place}{words}"


def _newly_saved(step: int | None) -> dict[str, Any]:
    """The changes that a saved state makes: one that is newer than all before it clears the strikes."""
    if step is None:
        return {}
    newer = func.coalesce(tasks.c.saved_step, -1) < step
    return {
        "saved_step": case((newer, step), else_=tasks.c.saved_step),
        "advanced": case((newer, true()), else_=tasks.c.advanced),
        "strikes": case((newer, 0), else_=tasks.c.strikes),
        "repeats": case((newer, 0), else_=tasks.c.repeats),
    }


def _repeat(connection: Connection, task_id: str, error: WanError, seconds: float) -> None:
    """Return a running task to the queue, to be tried again after a pause."""
    message = storable(error.message)
    described = failure_data(error)
    apply(
        connection,
        task_id,
        RUNNING,
        TaskStatus.PENDING,
        EventType.RETRY_SCHEDULED,
        lambda row: described | {"repeat": row.repeats, "next_retry_at": row.next_retry_at},
        values=UNTOUCHED
        | {"message": message, "repeats": tasks.c.repeats + 1, "next_retry_at": database_now() + seconds},
    )


def _release(connection: Connection, row: Row[Any], reason: str | None = None, again_in: float | None = None) -> None:
    """Return a running task to the queue without counting the attempt; cancel it where the user asked for that."""
    if row.cancel_requested:
        _cancel(connection, row.id)
        return
    if row.pause_requested:
        _pause(connection, row.id, values={"attempt": tasks.c.attempt - 1})
        return
    event, data = (EventType.RELEASED, {}) if reason is None else (EventType.HELD_UP, {"message": reason})
    later = {} if again_in is None else {"next_retry_at": database_now() + again_in}
    apply(
        connection,
        row.id,
        RUNNING,
        TaskStatus.PENDING,
        event,
        lambda row: {"attempt": row.attempt + 1} | data,
        values=UNTOUCHED | data | later | {"attempt": tasks.c.attempt - 1},
    )


def _held(row: Row[Any] | None) -> Row[Any]:
    if row is None:
        raise LeaseLost
    return row


def end_failed(connection: Connection, task_id: str, error: WanError, token: str | None = None) -> Row[Any] | None:
    """Fail a running task, in the caller's transaction; return the changed row."""
    message, data = storable(error.message), failure_data(error)
    return apply(
        connection,
        task_id,
        RUNNING,
        TaskStatus.FAILED,
        EventType.FAILED,
        lambda _: data,
        token=token,
        values={
            "error_code": error.code,
            "error_message": message,
            "error_suggestions": data["suggestions"] + data["actions"],
        },
    )


def _cancel(connection: Connection, task_id: str, token: str | None = None) -> Row[Any] | None:
    return apply(connection, task_id, RUNNING, TaskStatus.CANCELLED, EventType.CANCELLED, token=token)


def _pause(
    connection: Connection, task_id: str, token: str | None = None, values: dict[str, Any] | None = None
) -> Row[Any] | None:
    """Hold a running task back. What it has done stays visible: it goes on from there."""
    paused = NO_WORKER | {"pause_requested": False} | (values or {})
    shown = TaskStatus.PAUSED, EventType.PAUSED, progress_shown
    return apply(connection, task_id, RUNNING, *shown, token=token, values=paused)


def _asked(connection: Connection, task_id: str, lease_token: str) -> StopRequest | None:
    """Return what the user asks of a leased task."""
    columns = tasks.c.cancel_requested, tasks.c.pause_requested, held(tasks.c.worker_id, interrupting=True)
    mine = select(*columns).where(tasks.c.id == task_id, tasks.c.lease_token == lease_token)
    row = _held(connection.execute(mine).one_or_none())
    asked = zip((StopRequest.CANCEL, StopRequest.PAUSE, StopRequest.HAND_BACK), row, strict=True)
    return next((request for request, is_asked in asked if is_asked), None)


def progress_shown(row: Row[Any]) -> dict[str, Any]:
    """Return how far a task is, for the data of an event."""
    return {"progress": row.progress * 100.0, "current_step": row.step, "total_steps": row.total_steps}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _progress_data(row: Row[Any]) -> dict[str, Any]:
    return {
        "stage": row.stage,
        "progress": row.progress * 100.0,
        "message": row.message,
        "current_step": row.step,
        "total_steps": row.total_steps,
        "eta_seconds": row.eta_seconds,
        "preview_step": row.preview_step,
        "generation_start_time": row.started_at,
        "stage_start_time": row.stage_started_at,
    }
