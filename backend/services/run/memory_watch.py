"""Watches memory while a worker lives: samples, alerts when it fills up, peaks for the record of a video.

The sampling thread only reads. The thread that computes acts on alerts, between two reports.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from backend.core.planning.memory_level import (
    MemoryAlert,
    MemoryLevel,
    MemoryPeaks,
    MemoryReading,
    Place,
    ResourceLimits,
)
from backend.core.repeating import Repeating

#: Interval between two samples.
SECONDS = 1.0


class MemorySource(Protocol):
    """Measures memory (`engine.memory.readings.DeviceMemory`)."""

    def readings(self) -> Sequence[MemoryReading]:
        """Return the current usage of each memory."""

    def begin(self) -> None:
        """Reset the peaks."""

    def peaks(self) -> MemoryPeaks:
        """Return the peaks since `begin`, as far as they are known."""

    def release(self) -> None:
        """Return cached memory to the system."""


class MemoryWatch:
    """Samples a worker's memory; safe to use from its two threads."""

    def __init__(
        self, source: MemorySource, *, limits: Callable[[], ResourceLimits] = ResourceLimits, seconds: float = SECONDS
    ) -> None:
        """Prepare.

        Args:
            source: measures.
            limits: read before every sample, so that a change takes effect at once.
            seconds: interval between two samples.
        """
        self._source = source
        self._limits = limits
        self._lock = threading.Lock()
        self._levels: dict[Place, MemoryLevel | None] = {}
        self._alerts: list[MemoryAlert] = []
        self._highest: dict[Place, int] = {}
        thread = Repeating("memory-watch", self.poll, seconds)
        self.start, self.stop = thread.start, thread.stop

    def poll(self) -> None:
        """Take one sample; queue an alert where a memory has risen to a level."""
        limits = self._limits()
        for reading in self._source.readings():
            with self._lock:
                self._highest[reading.place] = max(reading.used, self._highest.get(reading.place, 0))
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
        """Start over for one video: forget earlier samples, and alert again about memory that is full already."""
        self._source.begin()
        with self._lock:
            self._levels, self._alerts, self._highest = {}, [], {}
        self.poll()

    def peaks(self) -> MemoryPeaks:
        """Return the peaks since `begin`: measured ones, else the highest samples of this process.

        Samples of a card include other processes, so they never stand in for its peak.
        """
        self.poll()
        counted = self._source.peaks()
        ram = self._highest.get(Place.RAM) if counted.ram is None else counted.ram
        return MemoryPeaks(counted.vram, ram)

    def release(self) -> None:
        """Return cached memory to the system; only for the thread that computes."""
        self._source.release()


#: Receives an alert and the models that were unloaded because of it.
Alerted = Callable[[MemoryAlert, tuple[str, ...]], None]


class RunMemory:
    """The memory of one run: its peaks and warnings, and relief when it fills up."""

    def __init__(
        self, watch: MemoryWatch | None, alerted: Alerted, unload_unused: Callable[[], tuple[str, ...]]
    ) -> None:
        """Start watching.

        Args:
            watch: takes the samples; None = nothing is known.
            alerted: receives the alerts.
            unload_unused: unloads the models that this run does not need, and returns their names.
        """
        self._watch = watch
        self._alerted = alerted
        self._unload_unused = unload_unused
        self.warnings: list[str] = []  #: for the record
        if watch is not None:
            watch.begin()

    @property
    def peaks(self) -> MemoryPeaks:
        """The peaks so far."""
        return MemoryPeaks() if self._watch is None else self._watch.peaks()

    def relieve(self) -> None:
        """Handle the alerts since the last call; at the critical level, unload what this run does not need."""
        for alert in () if self._watch is None else self._watch.take():
            unloaded: tuple[str, ...] = ()
            if self._watch is not None and alert.level is MemoryLevel.CRITICAL:
                unloaded = self._unload_unused()
                self._watch.release()
            self.warnings.append("; ".join((alert.sentence, *(f"{name} was unloaded" for name in unloaded))))
            self._alerted(alert, unloaded)
