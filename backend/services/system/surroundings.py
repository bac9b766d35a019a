"""Whether this machine can keep what tasks produce: the folders are there, on their own disks, writable, with room.

Measures; who asks decides what waits. Knows no tasks.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backend.core.errors.surroundings import StorageFull
from backend.core.files import PART_SUFFIX
from backend.core.paths import Home

#: Less free space than this is a full disk, in bytes.
MIN_FREE_BYTES: Final = 1024**2
#: After a run that found no room, another may try when this much has become free, in bytes ...
_MORE_BYTES: Final = 1024**2
#: ... or after this pause in any case, in seconds; it doubles up to the second.
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 30.0, 600.0
_PROBE_BYTES: Final = 64 * 1024


class Surroundings:
    """The folders of one home, as one process sees them."""

    def __init__(self, home: Home, clock: Callable[[], float] = time.monotonic) -> None:
        """Remember the disks that the folders are on; one that is unmounted later is missed, not written around."""
        self._clock = clock
        self._written = (home.outputs, home.work)
        self._mounts = {folder: _mount_of(folder) for folder in (*self._written, home.models) if folder.is_dir()}
        self._free_at_failure: int | None = None
        self._retry_at = 0.0
        self._pause = _FIRST_PAUSE_SECONDS

    def fault(self) -> str | None:
        """Return why nothing can be kept now, in one sentence, or None; measures without writing."""
        for folder, mount in self._mounts.items():
            if not folder.is_dir():
                return f"The folder `{folder.name}` in the home folder is missing"
            if _mount_of(folder) != mount:
                return f"The disk of the folder `{folder.name}` is not mounted"
        for folder in self._written:
            if not os.access(folder, os.W_OK | os.X_OK):
                return f"The folder `{folder.name}` in the home folder cannot be written to"
        if self._free() < MIN_FREE_BYTES:
            return "The disk is full"
        return None

    def refusal(self) -> str | None:
        """Return why no run can be started now, or None; writes a little to find out, as quotas are seen only so."""
        fault = self.fault() or next(filter(None, map(_probe, self._written)), None)
        if fault is not None or self._free_at_failure is None:
            return fault
        if self._free() >= self._free_at_failure + _MORE_BYTES or self._clock() >= self._retry_at:
            return None
        return "The disk has too little room for the next video"

    def ran_out_of_room(self) -> None:
        """Note that a run found the disk full; its files are removed again, so the disk may look empty enough."""
        self._free_at_failure = self._free()
        self._retry_at = self._clock() + self._pause
        self._pause = min(_LONGEST_PAUSE_SECONDS, 2 * self._pause)

    def had_room(self) -> None:
        """Note that a run kept its video."""
        self._free_at_failure = None
        self._pause = _FIRST_PAUSE_SECONDS

    def _free(self) -> int:
        """Return the free bytes of the fullest disk; 0 where none can be asked."""
        try:
            return min(stat.f_bavail * stat.f_frsize for stat in map(os.statvfs, self._written))
        except OSError:
            return 0


def _mount_of(folder: Path) -> Path:
    """Return the folder where the disk of this one is mounted."""
    path = folder.resolve()
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path


def _probe(folder: Path) -> str | None:
    """Write a small file and remove it; return what is wrong, or None."""
    path = folder / f"probe.{secrets.token_hex(4)}{PART_SUFFIX}"
    try:
        with path.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except OSError as error:
        _remove(path)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return StorageFull().message.rstrip(".")
        return f"The folder `{folder.name}` in the home folder cannot be written to ({error.strerror})"
    return None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the disk is gone or read-only; the next sweep of leftovers removes it
