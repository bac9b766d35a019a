"""One attempt at one task, as its worker holds it: lease, stop requests, progress, end.

Every write is fenced by the lease token. Used by two threads: the engine's reports, the heartbeat renews.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import structlog

from backend.core.domain import Output, Progress, Stage, StopRequest, Task, TaskStatus
from backend.core.errors.base import WanError
from backend.core.errors.cuda import DeviceFailed
from backend.core.errors.interruptions import LeaseLost, TaskCancelled, TaskHeldUp, TaskPaused, WorkerStopping
from backend.core.errors.surroundings import StoreFailed
from backend.core.planning.memory_level import MemoryAlert
from backend.store.leases import Loss
from backend.store.tasks import TaskStore
from backend.worker.stall import SignsOfLife

#: Progress is written at most this often, in seconds; changes of stage, last steps and last bytes always are.
REPORT_SECONDS: Final = 0.2
#: Shortest interval between two looks at the database from inside a layer of a model, in seconds.
POLL_SECONDS: Final = 0.5
#: How long recording the end of an attempt is retried once the worker has to stop, in seconds. Until then it is retried
#: for as long as it takes: what was computed is not thrown away because the database is away.
PERSIST_SECONDS: Final = 3.0

log = structlog.get_logger(__name__)


class Attempt:
    """The right to work on a task, from the claim to the end."""

    def __init__(
        self,
        tasks: TaskStore,
        task: Task,
        *,
        lease_token: str,
        lease_seconds: float,
        stopping: threading.Event,
        yields: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Take the lease; `yields` returns why the task has to make way now, None while it may continue."""
        self.task = task
        self._tasks = tasks
        self._token = lease_token
        self._lease_seconds = lease_seconds
        self._stopping = stopping
        self._lost = threading.Event()
        self._writing = threading.Lock()  # so that an older report never follows a newer one
        self._unwritten: Progress | None = None  # the newest report, where it came too soon after the one before
        self._yields = yields
        self._asked: StopRequest | None = None
        self._polled_at = 0.0
        self._reported_at = 0.0
        self._reported_stage: Stage | None = None
        self._reported_saved: int | None = None
        self.signs = SignsOfLife()

    def renew(self) -> None:
        """Renew the lease, publish a report that was not due, and remember whether the attempt has to stop.

        Raises:
            StoreUnavailable, StorageFull: it was not written; try again soon.
        """
        try:
            self._asked = self._tasks.heartbeat(self.task.id, self._token, self._lease_seconds)
            self._write_pending()
        except LeaseLost:
            self._lost.set()

    def report(self, progress: Progress) -> None:
        """Publish the progress of the attempt.

        Raises:
            LeaseLost, WorkerStopping, TaskCancelled, TaskPaused, TaskHeldUp: the work must stop here.
        """
        self.signs.report(progress)
        self._stop_if_due()
        try:
            with self.signs.waiting():
                if self._is_due(progress):
                    self._write(progress)
                else:
                    self._unwritten = progress
                    self._asked = self._tasks.check(self.task.id, self._token)
        except StoreFailed as error:
            # Progress is news, not truth: the work continues, and recording its end will be retried.
            log.warning("worker.progress_not_written", error=error.code)
            return
        self._stop_if_due()

    def poll(self) -> None:
        """Stop the work here if it has to stop; cheap enough for every layer of a model. Raises like `report`."""
        self.signs.layer()
        now = time.monotonic()
        if now - self._polled_at >= POLL_SECONDS:
            self._polled_at = now
            try:
                with self.signs.waiting():
                    self._asked = self._tasks.check(self.task.id, self._token)
            except LeaseLost:
                self._lost.set()
            except StoreFailed as error:
                log.warning("worker.request_not_read", error=error.code)
        self._stop_if_due()

    def _write(self, progress: Progress) -> None:
        with self._writing:
            self._unwritten = None
            self._asked = self._tasks.report(self.task.id, self._token, progress)
            self._reported_at, self._reported_stage = time.monotonic(), progress.stage
            self._reported_saved = progress.saved_step

    def _write_pending(self) -> None:
        """Publish the newest report if nobody has: the next one may come in an hour, or never."""
        with self._writing:
            pending, self._unwritten = self._unwritten, None
            if pending is not None:
                self._asked = self._tasks.report(self.task.id, self._token, pending)

    def _stop_if_due(self) -> None:
        if self._lost.is_set():
            raise LeaseLost
        if self._stopping.is_set():
            raise WorkerStopping
        if self._asked is StopRequest.CANCEL:
            raise TaskCancelled
        if self._asked is StopRequest.PAUSE:
            raise TaskPaused
        if self._asked is StopRequest.HAND_BACK:
            raise TaskHeldUp("The queue or this device is paused")
        reason = self._yields()
        if reason is not None:
            raise TaskHeldUp(reason)

    def alert(self, alert: MemoryAlert, given_up: tuple[str, ...]) -> None:
        """Publish that memory fills up and what was unloaded; news, so a failing store stops nothing."""
        log.warning("worker.memory", message=alert.sentence, level=alert.level.value, unloaded=given_up)
        self.tell(alert.to_json() | {"unloaded": list(given_up)})

    def tell(self, data: Mapping[str, Any]) -> None:
        """Publish an alert of plain JSON values; news, as in `alert`."""
        try:
            self._tasks.alert(self.task.id, self._token, data)
        except LeaseLost:
            self._lost.set()
        except StoreFailed as error:
            log.warning("worker.alert_not_written", error=error.code)

    def _is_due(self, progress: Progress) -> bool:
        last_step = progress.step is not None and progress.step == progress.total_steps
        fetched = progress.fetch is not None and progress.fetch.done_bytes == progress.fetch.total_bytes
        long_ago = time.monotonic() - self._reported_at >= REPORT_SECONDS
        # What is saved decides whether a lost attempt counts; it must be written before the next step can kill us.
        saved = progress.saved_step != self._reported_saved
        return long_ago or last_step or fetched or saved or progress.stage is not self._reported_stage

    def complete(self, output: Output) -> None:
        """Record the finished video. Raises like `release`."""
        try:
            self._persist(lambda: self._tasks.complete(self.task.id, self._token, output))
        except LeaseLost:
            # When the answer to the first try was lost, the second finds that the first one succeeded.
            now = self._tasks.get(self.task.id)
            if now.status is not TaskStatus.COMPLETED or now.worker_id != self.task.worker_id:
                raise

    def fail(self, error: WanError, pause: Callable[[int], float | None] = lambda _: None) -> None:
        """End the attempt: repeat it after a pause (see `Leases.fail`), or give the task up. Raises like `release`."""
        self._persist(lambda: self._tasks.fail(self.task.id, self._token, error, pause))

    def acknowledge_cancel(self) -> None:
        """End the task as the user requested. Raises like `release`."""
        self._persist(lambda: self._tasks.acknowledge_cancel(self.task.id, self._token))

    def acknowledge_pause(self) -> None:
        """Hold the task back as the user requested. Raises like `release`."""
        self._persist(lambda: self._tasks.acknowledge_pause(self.task.id, self._token))

    def release(self, reason: str | None = None, again_in: float | None = None) -> None:
        """Hand the task back without using up the attempt.

        `reason` is why it has to wait, None when the worker stops; `again_in` is for how long, in seconds, if known.

        Raises:
            LeaseLost: another worker has the task by now.
            StoreUnavailable, StorageFull: nothing could be written before the worker had to stop; the lease is lost.
        """
        self._persist(lambda: self._tasks.release(self.task.id, self._token, reason, again_in))

    def lose(self, loss: Loss) -> None:
        """Give the attempt up: it counts unless it saved something new. Called while the engine still holds the task.

        Raises:
            LeaseLost: another worker has the task by now.
            StoreUnavailable, StorageFull: it was not written; the lease runs out instead.
        """
        with suppress(StoreFailed):
            self._write_pending()  # the place of the loss
        self._tasks.lose(self.task.id, self._token, loss)
        self._lost.set()

    def lose_device(self, error: DeviceFailed) -> None:
        """Hand the task back because this process must end; the attempt counts as in `lose`. Raises like `release`."""
        loss = Loss(error.message.rstrip("."), error=type(error))
        self._persist(lambda: self._tasks.lose(self.task.id, self._token, loss))

    def _persist(self, write: Callable[[], None]) -> None:
        self.signs.exempt = True  # it waits for the database, as long as that takes
        pause, stopping_for = 0.25, 0.0
        while True:
            try:
                return write()
            except StoreFailed as error:
                if self._stopping.is_set() and stopping_for + pause > PERSIST_SECONDS:
                    raise
                log.warning("worker.end_not_written", error=error.code, retry_seconds=pause)
            if self._stopping.is_set():
                time.sleep(pause)
                stopping_for += pause
            else:
                self._stopping.wait(pause)
                pause = min(5.0, pause * 2)
