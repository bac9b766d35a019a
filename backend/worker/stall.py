"""Tells an attempt that no longer moves from one that is slow: no step within many times its expected duration.

A heartbeat proves that a process lives; only steps, layers and bytes prove that the work goes on. Knows neither the
database nor the engine.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from backend.core.domain import DownloadPhase, Progress, Stage

#: Shortest time without a sign of progress that counts as a stall in a stage, in seconds, where no unit of the phase
#: has been measured: large files on a slow disk give none for a long time.
OWN_SECONDS: Final = {
    Stage.INITIALIZING: 600.0,
    Stage.DOWNLOADING_MODEL: 1800.0,
    Stage.LOADING_MODEL: 1800.0,
    Stage.PREPARING_INPUTS: 900.0,
    Stage.GENERATING: 1800.0,
    Stage.POST_PROCESSING: 1800.0,
    Stage.SAVING: 900.0,
}
#: An interval between two looks that is longer than planned by this factor, plus a second for a busy machine, means
#: that this process was not running itself.
_LATE: Final = 2.0
_BUSY_SECONDS: Final = 1.0
#: Innermost functions of the stack that a stall names.
_FRAMES: Final = 4

log = structlog.get_logger(__name__)


class SignsOfLife:
    """When one attempt last moved, by the monotonic clock; written by the engine's thread, read by another."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.since = clock()
        self.progress: Progress | None = None  #: the newest report
        self.exempt = False  #: whether it waits for something that is watched elsewhere

    def layer(self) -> None:
        """Note that a layer of a model begins."""
        self.since = self._clock()

    def report(self, progress: Progress) -> None:
        """Note a report. While a model is downloaded, only more bytes or another phase are a sign of progress."""
        before, self.progress = self.progress, progress
        if before is None or progress.fetch is None or before.fetch is None or _bytes(before) != _bytes(progress):
            self.since = self._clock()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Exempt the time of the block, such as a call that may wait for the database."""
        began, self.exempt = self._clock(), True
        try:
            yield
        finally:
            self.since += self._clock() - began
            self.exempt = False


@dataclass(frozen=True, slots=True)
class Stall:
    """An attempt that does not move."""

    seconds: float  #: since the newest sign of progress
    allowed_seconds: float
    stage: str | None
    step: int | None

    @property
    def reason(self) -> str:
        """What happened, as a clause."""
        return f"there was no sign of progress for {self.seconds:.0f} s, {self.allowed_seconds:.0f} s are allowed,"


class StallAlarm:
    """Judges the signs of life of the attempt in progress; call `look` at a steady interval."""

    def __init__(
        self,
        stall_seconds: float,
        factor: float,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stall_seconds = stall_seconds
        self._factor = factor
        self._longest_gap = _LATE * interval_seconds + _BUSY_SECONDS
        self._clock = clock
        self._looked_at: float | None = None
        self._not_before = float("-inf")  # nothing counts that happened while this process was not running

    def look(self, signs: SignsOfLife | None) -> Stall | None:
        """Return the stall of this attempt, or None when it moves, waits or may still move."""
        now = self._clock()
        if self._looked_at is None or now - self._looked_at > self._longest_gap:
            self._not_before = now
        self._looked_at = now
        if signs is None or signs.exempt or not self._stall_seconds or _waits(signs.progress):
            return None
        seconds, allowed = now - max(signs.since, self._not_before), self._allowed(signs.progress)
        if seconds < allowed:
            return None
        progress = signs.progress
        return Stall(seconds, allowed, *(None, None) if progress is None else (progress.stage, progress.step))

    def _allowed(self, progress: Progress | None) -> float:
        if progress is not None and progress.unit_seconds is not None:
            return max(self._stall_seconds, self._factor * progress.unit_seconds)
        stage = Stage.INITIALIZING if progress is None else progress.stage
        return max(self._stall_seconds, OWN_SECONDS.get(stage, 0.0))


def innermost_calls(thread: threading.Thread) -> str | None:
    """Return the innermost functions of a thread with file and line, the innermost first; None when it has ended."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return None
    calls = traceback.extract_stack(frame)[-_FRAMES:]
    return " < ".join(f"{call.name} ({Path(call.filename).name}:{call.lineno})" for call in reversed(calls))


def _bytes(progress: Progress) -> tuple[int, DownloadPhase] | None:
    return None if progress.fetch is None else (progress.fetch.done_bytes, progress.fetch.phase)


def _waits(progress: Progress | None) -> bool:
    """Whether another process downloads the model: that one is watched itself."""
    return progress is not None and progress.fetch is not None and progress.fetch.phase is DownloadPhase.WAITING
