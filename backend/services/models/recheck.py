"""Re-reads the files of complete models, slowly and in the background, to find silent disk corruption.

Never while a task runs; stops immediately. A changed file goes to the quarantine, so that no task uses it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from backend.core.catalogue.table import ModelSpec
from backend.core.domain import utcnow
from backend.core.paths import Home
from backend.core.repeating import Repeating
from backend.models.folder.integrity import FileState, digest_of, is_ours, put_away, quick_state
from backend.models.folder.manager import ModelManager, ModelState
from backend.models.folder.manifest import FileRecord, read_last_seen, read_manifest
from backend.models.folder.progress import RateLimiter

log = structlog.get_logger(__name__)

#: Slow enough to go unnoticed: a model of 70 GB takes forty minutes.
BYTES_PER_SECOND: Final = 30e6
#: Interval between scans for files due for a re-read, in seconds.
SCAN_SECONDS: Final = 60.0
#: Interval between checks whether the machine is idle again, in seconds.
_PAUSE_SECONDS: Final = 5.0


class _Stopped(Exception):
    """The server stops."""


class Recheck:
    """The thread that re-reads files; started and stopped with the server."""

    def __init__(
        self,
        home: Home,
        manager: ModelManager,
        busy: Callable[[], bool],
        days: float,
        *,
        now: Callable[[], datetime] = utcnow,
        bytes_per_second: float | None = BYTES_PER_SECOND,
        scan_seconds: float = SCAN_SECONDS,
    ) -> None:
        """Prepare.

        Args:
            home: where the models are.
            manager: judges which of them are complete.
            busy: whether a task runs.
            days: interval between two reads of a file, in days; 0 = never.
            now: the clock.
            bytes_per_second: reading speed; None = unlimited.
            scan_seconds: interval between scans for files that are due.
        """
        self._home = home
        self._manager = manager
        self._busy = busy
        self._days = days
        self._now = now
        self._pace = RateLimiter(lambda: bytes_per_second, self._stop_waiting)
        self._thread = Repeating("recheck", self.poll, scan_seconds)
        self._stopping = self._thread.stopping

    def start(self) -> None:
        """Start the thread, unless re-reading is turned off."""
        if self._days > 0:
            self._thread.start()

    def stop(self) -> None:
        """End; a file that is being read is read again another time."""
        self._thread.stop()

    def poll(self) -> list[str]:
        """Read every file that is due and return those that have changed, as `MODEL/FILE`."""
        changed = []
        try:
            for state, name, record in self._due():
                if not self._whole(state, name, record):
                    changed.append(f"{state.spec.id}/{name}")
        except _Stopped:
            pass
        return changed

    def put_aside(self, spec: ModelSpec, names: Iterable[str]) -> list[str]:
        """Read these files at once, at full speed; those that have changed go to the quarantine, and are returned.

        A download then brings them again. Files of a folder that somebody keeps elsewhere stay.
        """
        state = self._manager.state(spec)
        manifest = read_manifest(state.folder)
        if manifest is None or not is_ours(spec, state.folder):
            return []
        records = {name: manifest.files[name] for name in names if name in manifest.files}
        changed = [name for name, record in records.items() if not _matches(state.folder / name, record)]
        return [name for name in changed if put_away(self._home, spec, state.folder, name, records[name])]

    def _due(self) -> Iterator[tuple[ModelState, str, FileRecord]]:
        for state in self._manager.states():
            manifest = read_manifest(state.folder)
            if not state.available or manifest is None or not is_ours(state.spec, state.folder):
                continue
            for name in read_last_seen(state.folder).due(manifest, self._now(), self._days):
                if os.access(state.folder / name, os.R_OK):  # an unreadable file is not a changed file
                    yield state, name, manifest.files[name]

    def _whole(self, state: ModelState, name: str, record: FileRecord) -> bool:
        """Read one file; a file that differs twice goes to the quarantine."""
        path = state.folder / name
        if self._same(path, record):
            with suppress(OSError):  # the folder was moved meanwhile
                read_last_seen(state.folder).saw(name, self._now())
            return True
        if self._same(path, record):  # not the disk, then, but what lies between it and here
            log.warning("recheck.misread", model=state.spec.id, file=name)
            return True
        if put_away(self._home, state.spec, state.folder, name, record):
            log.error("recheck.quarantined", model=state.spec.id, file=name)
        return False

    def _same(self, path: Path, record: FileRecord) -> bool:
        self._wait_for_idleness()
        return quick_state(path, record.size) is FileState.OK and digest_of(path, self._on_read) == record.sha256

    def _on_read(self, count: int) -> None:
        self._wait_for_idleness()
        self._pace(count)

    def _wait_for_idleness(self) -> None:
        while not self._stopping.is_set() and self._busy():
            self._stopping.wait(_PAUSE_SECONDS)
        if self._stopping.is_set():
            raise _Stopped

    def _stop_waiting(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped


def _matches(path: Path, record: FileRecord) -> bool:
    return quick_state(path, record.size) is FileState.OK and digest_of(path, lambda _count: None) == record.sha256
