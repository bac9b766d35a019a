"""Measures a download (true bytes, speed over the last seconds, time to the end) and keeps it below a speed limit.

A status file in the folder lets other processes follow a download that they only wait for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from backend.core.config.download_limit import LOOK_SECONDS, Limit
from backend.core.domain import DownloadPhase, DownloadProgress, DownloadRetry, OnProgress
from backend.core.files import read_json, write_json

STATUS_FILE = "wan22-download.json"
_REPORT_SECONDS = 0.2
_STATUS_SECONDS = 1.0
_WINDOW_SECONDS = 10.0


class ProgressMeter:
    """Adds up the bytes that arrive and reports them a few times a second."""

    def __init__(self, on_progress: OnProgress, folder: Path, total_bytes: int) -> None:
        """`folder` is where the status file is written."""
        self._on_progress = on_progress
        self._status = folder / STATUS_FILE
        self._total = total_bytes
        self._done = 0
        self._received = 0
        self._window: deque[tuple[float, int]] = deque()
        self._reported = self._noted = float("-inf")
        self._phase, self._file = DownloadPhase.VERIFYING, ""
        self._retry: DownloadRetry | None = None

    def at(self, phase: DownloadPhase, file: str) -> None:
        """Set what the download does from now on."""
        changed = phase is not self._phase
        self._phase, self._file, self._retry = phase, file, None
        self._send(note=changed)

    def add(self, count: int, network: bool) -> None:
        """Count bytes of the model on the disk; negative when some had to be discarded."""
        self._done += count
        if network:
            self._retry = None
            self._received += count
            self._window.append((time.monotonic(), self._received))
        if time.monotonic() - self._reported >= _REPORT_SECONDS:
            self._send()

    def wait(self, retry: DownloadRetry) -> None:
        """Report that the hub failed and is asked again after a pause."""
        self._retry = retry
        self._window.clear()
        self._send()

    def close(self) -> None:
        """Report the last state; it stays in the folder, so that others know how much is missing."""
        self._window.clear()
        self._retry = None
        self._send(note=True)

    def _send(self, *, note: bool = False) -> None:
        now = time.monotonic()
        self._reported = now
        progress = self._progress(now)
        if note or now - self._noted >= _STATUS_SECONDS:
            self._noted = now
            # Only information for others: the transfer itself reports a full disk.
            with suppress(OSError):
                write_json(self._status, asdict(progress))
        self._on_progress(progress)

    def _progress(self, now: float) -> DownloadProgress:
        while self._window and now - self._window[0][0] > _WINDOW_SECONDS:
            self._window.popleft()
        speed = None
        if len(self._window) > 1 and (elapsed := now - self._window[0][0]) > _REPORT_SECONDS:
            speed = (self._received - self._window[0][1]) / elapsed
        left = self._total - self._done
        return DownloadProgress(
            self._phase,
            self._file or None,
            self._done,
            self._total,
            speed,
            left / speed if speed else None,
            self._retry,
        )


def read_status(folder: Path) -> DownloadProgress | None:
    """Return the progress that a download last wrote into its folder; None when there is none."""
    try:
        value = read_json(folder / STATUS_FILE)
        return DownloadProgress(**value | {"phase": DownloadPhase(value["phase"]), "retry": None})
    except (OSError, ValueError, KeyError, TypeError):
        return None


class RateLimiter:
    """Keeps a download below a number of bytes per second, which may change while it runs."""

    def __init__(self, limit: Limit, wait: Callable[[float], None], now: Callable[[], float] = time.monotonic) -> None:
        """`limit` is called again and again; `wait` waits for a number of seconds; `now` is a clock in seconds."""
        self._limit = limit
        self._wait = wait
        self._now = now
        self._owed = 0.0  # bytes that arrived ahead of the limit
        self._at = now()

    def __call__(self, count: int) -> None:
        """Account for `count` bytes, and wait until the limit allows the next ones."""
        before, self._at = self._at, self._now()
        limit = self._limit()
        if limit is None:
            self._owed = 0.0
            return
        self._owed = max(0.0, self._owed - (self._at - before) * limit) + count
        waited = 0.0  # in bytes, at the limit then in force
        # In short waits, so that a new limit applies to bytes already owed.
        while limit is not None and (left := self._owed - waited) >= 1.0:
            seconds = min(left / limit, LOOK_SECONDS)
            self._wait(seconds)
            waited += seconds * limit
            limit = self._limit()
        if limit is None:
            self._owed = 0.0
