"""Samples the load of this machine at an interval, and on request; one thread of the web process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from backend.core.errors.surroundings import StoreFailed
from backend.core.repeating import Repeating
from backend.store.performance.samples import Load, LoadHistory, LoadSample, LoadSamples

#: Most samples of one answer; longer periods are shown as the means of this many equal intervals.
MOST_SAMPLES: Final = 1000


class LoadSampling:
    """The thread; started and stopped with the server."""

    def __init__(self, samples: LoadSamples, measure: Callable[[], Load], seconds: float) -> None:
        """Store what `measure` returns every `seconds`; 0 = only on request."""
        self._samples = samples
        self._measure = measure
        self._thread = Repeating("load", self._take_one, seconds or 3600.0)
        self.active = seconds > 0
        self.failure: str | None = None  #: why the newest sample of the thread was not stored

    def start(self) -> None:
        """Start sampling, unless that is turned off."""
        if self.active:
            self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._thread.stop()

    def take(self) -> LoadSample:
        """Measure and store the load now.

        Raises:
            StoreFailed: it could not be stored.
        """
        return self._samples.add(self._measure())

    def history(self, hours: float, most: int = MOST_SAMPLES) -> LoadHistory:
        """Return what was measured on this machine in the last hours."""
        return self._samples.of_last(hours, most)

    def _take_one(self) -> None:
        try:
            self.take()
            self.failure = None
        except StoreFailed as error:  # the database says so in its own place, and the next sample may be stored
            self.failure = error.message
