"""Watches memory while a worker lives: samples, alerts where it gets full, peaks for the record of a video.

The thread only looks. What is done about it is done by the thread that computes, when it reports.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from backend.core.domain import Progress
from backend.core.planning.memory_level import (
    MemoryAlert,
    MemoryLevel,
    MemoryPeaks,
    MemoryReading,
    Place,
    ResourceLimits,
)

SECONDS = 1.0


class MemorySource(Protocol):
    """Who measures (`engine.device_memory.DeviceMemory`)."""

    def readings(self) -> Sequence[MemoryReading]:
        """How full the memories are now."""

    def begin(self) -> None:
        """Forget the peaks."""

    def peaks(self) -> MemoryPeaks:
        """The peaks since `begin`, as far as they are known."""

    def release(self) -> None:
        """Give back what is kept for later use."""


class MemoryWatch:
    """Looks at a worker's memory; safe to use from its two threads."""

    def __init__(
        self, source: MemorySource, *, limits: Callable[[], ResourceLimits] = ResourceLimits, seconds: float = SECONDS
    ) -> None:
        """Prepare.

        Args:
            source: who measures.
            limits: asked at every look, so that a change counts at once.
            seconds: between two looks.
        """
        self._source = source
        self._limits = limits
        self._seconds = seconds
        self._lock = threading.Lock()
        self._levels: dict[Place, MemoryLevel | None] = {}
        self._alerts: list[MemoryAlert] = []
        self._seen: dict[Place, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """End looking."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def poll(self) -> None:
        """Take one sample; where a memory has risen to a level, keep an alert."""
        limits = self._limits()
        for reading in self._source.readings():
            with self._lock:
                self._seen[reading.place] = max(reading.used, self._seen.get(reading.place, 0))
                before = self._levels.get(reading.place)
                now = self._levels[reading.place] = limits.of(reading.place).level(reading.share, before)
                if now is not None and now is not before and before is not MemoryLevel.CRITICAL:
                    self._alerts.append(MemoryAlert(now, reading))

    def take(self) -> list[MemoryAlert]:
        """Return the alerts since the last call."""
        with self._lock:
            alerts, self._alerts = self._alerts, []
        return alerts

    def begin(self) -> None:
        """Begin to watch for one video: what was before is forgotten, what is full already is told anew."""
        self._source.begin()
        with self._lock:
            self._levels, self._alerts, self._seen = {}, [], {}
        self.poll()

    def peaks(self) -> MemoryPeaks:
        """Return the peaks since `begin`: those that were counted, else the highest samples of this process.

        What others have on a card is no peak of ours, so that one is not taken from samples.
        """
        self.poll()
        counted = self._source.peaks()
        ram = self._seen.get(Place.RAM) if counted.ram is None else counted.ram
        return MemoryPeaks(counted.vram, ram)

    def release(self) -> None:
        """Give back what is kept for later use; for the thread that computes."""
        self._source.release()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self.poll()


#: Hears of an alert, and of what was given up because of it.
Alerted = Callable[[MemoryAlert, tuple[str, ...]], None]


class RunMemory:
    """The memory of one video: stands between its run and whoever hears its reports."""

    def __init__(
        self,
        watch: MemoryWatch | None,
        report: Callable[[Progress], None],
        alerted: Alerted,
        give_up_unused: Callable[[], tuple[str, ...]],
    ) -> None:
        """Watch from now on; without a watch nothing is known.

        Args:
            watch: who looks.
            report: who hears the reports.
            alerted: who hears the alerts.
            give_up_unused: forgets what is loaded and not needed for this video; says what that was.
        """
        self._watch = watch
        self._report = report
        self._alerted = alerted
        self._give_up_unused = give_up_unused
        self.warnings: list[str] = []  #: for the record
        if watch is not None:
            watch.begin()

    @property
    def peaks(self) -> MemoryPeaks:
        """The most that was in use so far."""
        return MemoryPeaks() if self._watch is None else self._watch.peaks()

    def report(self, progress: Progress) -> None:
        """Pass a report on; then act on what the watch saw. Raises what the hearer of reports raises."""
        self._report(progress)
        if self._watch is None:
            return
        for alert in self._watch.take():
            given_up: tuple[str, ...] = ()
            if alert.level is MemoryLevel.CRITICAL:
                given_up = self._give_up_unused()
                self._watch.release()
            self.warnings.append("; ".join((alert.sentence, *(f"{name} was unloaded" for name in given_up))))
            self._alerted(alert, given_up)
