"""Keeps a worker visible: renews its lease and its row in the register, recovers tasks of dead workers, and notices
when its own attempt no longer moves.

Continues while the engine is deep in a step, and survives a database that is unavailable for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from backend.core.errors.surroundings import StoreFailed
from backend.core.repeating import Repeating
from backend.core.settings import Settings
from backend.store.tasks import TaskStore
from backend.store.workers import Equipment, WorkerState, WorkerStore, WorkerWish
from backend.worker.attempt import Attempt
from backend.worker.silence import SilenceWatch
from backend.worker.stall import Stall, StallAlarm

log = structlog.get_logger(__name__)


class Heartbeat:
    """Beats from `start` to `stop`; the worker publishes what it does through `show` and `attempt`."""

    def __init__(
        self,
        settings: Settings,
        worker_id: str,
        tasks: TaskStore,
        workers: WorkerStore,
        stalled: Callable[[Attempt, Stall], None],
    ) -> None:
        """Prepare; `stalled` is called, in the thread that beats, when the attempt in progress no longer moves."""
        # Three beats within one lease, whatever the settings say, so that one lost beat costs nothing.
        beat_seconds = min(settings.heartbeat_seconds, settings.lease_seconds / 3)
        self._lease_seconds = settings.lease_seconds
        self._recovery_seconds = settings.recovery_seconds
        self._next_recovery = 0.0
        self._watch = SilenceWatch(tasks, max(beat_seconds, settings.recovery_seconds))
        self._worker_id = worker_id
        self._workers = workers
        interval = min(beat_seconds, self._recovery_seconds)
        self._stalled = stalled
        self._alarm = StallAlarm(settings.stall_seconds, settings.stall_factor, interval)
        self._thread = Repeating("heartbeat", self._beat_and_recover, interval)
        self._shown: tuple[str, WorkerState, str | None] = (settings.device, WorkerState.LOADING, None)
        self.attempt: Attempt | None = None  #: the attempt in progress
        self.equipment: Equipment | None = None  #: device and abilities; None until they are known
        self.wish: WorkerWish | None = None  #: the newest that nobody has carried out yet
        self.loaded_model: Callable[[], str | None] = lambda: None  #: asked at every beat

    def start(self) -> None:
        """Sign on, then beat."""
        self._beat()
        self._thread.start()

    def stop(self, *, sign_off: bool = True) -> None:
        """Stop beating and sign off; without signing off, the last detail stays in the register."""
        self._thread.stop()
        if not sign_off:
            return
        try:
            self._workers.remove(self._worker_id)
        except StoreFailed as error:
            log.warning("worker.sign_off_failed", error=error.code)

    def show(self, device: str, state: WorkerState, detail: str | None = None) -> None:
        """Publish at once what the worker is doing."""
        self._shown = (device, state, detail)
        self._beat()

    def _beat_and_recover(self) -> None:
        attempt = self.attempt
        stall = self._alarm.look(None if attempt is None else attempt.signs)
        if attempt is not None and stall is not None:
            self._stalled(attempt, stall)
            return
        self._beat()
        if time.monotonic() >= self._next_recovery:
            self._next_recovery = time.monotonic() + self._recovery_seconds
            self._recover()

    def _beat(self) -> None:
        attempt = self.attempt
        try:
            if attempt is not None:
                attempt.renew()
            device, state, detail = self._shown
            wish = self._workers.beat(
                self._worker_id,
                device=device,
                state=state,
                detail=detail,
                model=self.loaded_model(),
                equipment=self.equipment,
            )
            # To restart frees the memory, too.
            if wish is not None and self.wish is not WorkerWish.RESTART:
                self.wish = wish
        except StoreFailed as error:
            log.warning("worker.beat_not_taken", error=error.code)

    def _recover(self) -> None:
        try:
            self._watch.recover(self._lease_seconds, except_of=self._worker_id)
        except StoreFailed as error:
            log.warning("worker.recovery_failed", error=error.code)
