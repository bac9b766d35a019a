"""Requests to stop this worker process: a signal, or the end of the pipe that its parent holds.

A process that does not leave a step in time, or is asked a second time, is ended from here, so a worker never outlives
its server.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import threading
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

#: Asks a worker to write the stacks of all its threads to its log.
DUMP_SIGNAL: Final = signal.SIGUSR1
#: How long a process without a task gets to end on its own, in seconds: it may be loading a large model.
IDLE_SECONDS: Final = 1.0
#: Exit status of a worker whose device failed: its task is handed back, and a new process gets a new context.
DEVICE_FAILED_STATUS: Final = 76
#: Exit status of a worker that was asked to restart: it is no failure, and its supervisor starts the next one at once.
RESTART_STATUS: Final = 75
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Watches for a request to stop; `wished` is set when one arrives."""

    def __init__(
        self, *, watch_parent: bool, grace_seconds: float, too_late: Callable[[], None], busy: Callable[[], bool]
    ) -> None:
        """Prepare.

        Args:
            watch_parent: whether the end of the pipe on stdin is a request to stop.
            grace_seconds: how long the process may take to end.
            too_late: runs in the watching thread when the process is still alive after that.
            busy: whether a task may be in hand; without one, there is nothing to wait for.
        """
        self.wished = threading.Event()
        self._grace_seconds = grace_seconds
        self._too_late = too_late
        self._busy = busy
        self._watched = [0] if watch_parent and stat.S_ISFIFO(os.fstat(0).st_mode) else []

    def watch(self) -> None:
        """Start watching; call it from the main thread, once in the life of a process."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        # A handler may interrupt the main thread inside any lock, so it must not take one (Event.set does).
        # The signal only writes a byte to a pipe, and the thread does the rest.
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)
        threading.Thread(target=self._run, args=(reading,), name="stop-wish", daemon=True).start()

    def _run(self, signals: int) -> None:
        while not self.wished.is_set():
            ready, _, _ = select.select([signals, *self._watched], [], [])
            text = os.read(ready[0], 64)
            if ready[0] == signals and set(text) & set(_SIGNALS):
                log.info("worker.stopping", reason="signal")
                self.wished.set()
            if ready[0] != signals and not text:
                log.info("worker.stopping", reason="the server is gone")
                self.wished.set()
        again = _second(signals, min(IDLE_SECONDS, self._grace_seconds))
        if not self._busy():
            log.info("worker.stopped", reason="it has no task")
            os._exit(0)
        again = again or _second(signals, max(0.0, self._grace_seconds - IDLE_SECONDS))
        if again:
            log.warning("worker.stopped_at_once", reason="a second signal")
        else:
            log.warning("worker.stopped_by_force", grace_seconds=self._grace_seconds)
        try:
            self._too_late()
        finally:
            os._exit(at_once_status(again) if again else 1)


def at_once_status(number: int) -> int:
    """Return the exit status after a second signal: success, as nothing is lost, or what shells expect of Ctrl-C."""
    return 128 + number if number == signal.SIGINT else 0


def _second(signals: int, seconds: float) -> int | None:
    """Wait up to `seconds` for another signal; return its number, None when none came."""
    ready, _, _ = select.select([signals], [], [], seconds)
    return next((number for number in os.read(signals, 64) if number in _SIGNALS), None) if ready else None
