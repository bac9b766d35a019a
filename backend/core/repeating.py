"""A daemon thread that repeats one action at an interval until it is stopped; knows nothing about the action."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context

import structlog

log = structlog.get_logger(__name__)


class Repeating:
    """Calls `action` every `seconds`, the first time after one interval."""

    def __init__(self, name: str, action: Callable[[], object], seconds: float) -> None:
        self._name = name
        self._action = action
        self._seconds = seconds
        self._thread: threading.Thread | None = None
        self.stopping = threading.Event()  #: set by `stop`; an action that waits should wait for it

    def start(self) -> None:
        """Start the thread; its log lines carry the same context as the caller's."""
        target = copy_context().run
        self._thread = threading.Thread(target=target, args=(self._run,), name=self._name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its running action; does nothing when it never started."""
        self.stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self.stopping.wait(self._seconds):
            try:
                self._action()
            except Exception:  # the boundary of the thread: the next call may succeed
                log.exception("thread.action_failed", thread=self._name)
