"""The models whose tasks wait because the hub does not serve them; asks the hub in the background until it answers.

So a task that waits for the hub keeps no worker busy. Knows no tasks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog

from backend.core.repeating import Repeating
from backend.models.download.hub import Hub, Reach

#: How often the hub is asked whether it answers, in seconds.
PROBE_SECONDS: Final = 5.0
#: Pause of a model after its first failure, in seconds; each further failure doubles it, up to the second.
_FIRST_SECONDS, _LONGEST_SECONDS = 5.0, 600.0

log = structlog.get_logger(__name__)


def _hub_answers() -> bool:
    return Hub().reach()[0] is Reach.REACHABLE


class AbsentHub:
    """Which models cannot be downloaded now, as this worker found."""

    def __init__(
        self,
        answers: Callable[[], bool] = _hub_answers,
        clock: Callable[[], float] = time.monotonic,
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._answers = answers
        self._clock = clock
        self._lock = threading.Lock()
        self._retry_at: dict[str, float] = {}
        self._pauses: dict[str, float] = {}
        self._absent = False
        self._probe = Repeating("absent-hub", self._ask, probe_seconds)
        self._probing = False

    def failed(self, model: str) -> float:
        """Note that the hub did not serve a model: its tasks wait for a while, and until the hub answers.

        Returns the seconds of that while.
        """
        with self._lock:
            pause = self._pauses.get(model, _FIRST_SECONDS)
            self._pauses[model] = min(_LONGEST_SECONDS, 2 * pause)
            self._retry_at[model] = self._clock() + pause
            self._absent = True
            first, self._probing = not self._probing, True
        log.warning("worker.hub_absent", model=model, pause_seconds=pause)
        if first:
            self._probe.start()
        return pause

    def served(self, model: str) -> None:
        """Note that a model is installed."""
        with self._lock:
            self._pauses.pop(model, None)
            self._retry_at.pop(model, None)

    def models(self) -> frozenset[str]:
        """Return the models whose tasks have to wait."""
        with self._lock:
            now = self._clock()
            if not self._absent:
                self._retry_at = {model: at for model, at in self._retry_at.items() if at > now}
            return frozenset(self._retry_at)

    def stop(self) -> None:
        """Stop asking."""
        self._probe.stopping.set()

    def _ask(self) -> None:
        with self._lock:
            waits = self._absent and bool(self._retry_at)
        if waits and self._answers():
            with self._lock:
                self._absent = False
