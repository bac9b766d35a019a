"""Disk space: what a folder occupies, what deleting it would free, and whether the rest of a model fits.

Deleting a file frees nothing while the file has further names elsewhere.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backend.core.catalogue.table import ModelSpec
from backend.core.errors.actions import free_disk
from backend.core.errors.surroundings import StorageFull

#: Bytes that stay free beside a model, for the database and the videos.
RESERVE_BYTES: Final = 512 * 2**20
_GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """The bytes of one folder."""

    size: int = 0
    own: int = 0  #: what deleting the folder would free
    shared: int = 0  #: of files with further names (hard links) elsewhere
    elsewhere: int = 0  #: of files behind symbolic links


def usage_of(folder: Path) -> DiskUsage:
    """Add up a folder's files; links are not followed, and a file with further names elsewhere frees nothing."""
    size = own = shared = elsewhere = 0
    # Unlike `rglob`, `os.walk` tolerates folders that disappear: a download or a repair may be at work.
    paths = (Path(place, name) for place, folders, names in os.walk(folder) for name in (*folders, *names))
    for path in paths:
        with suppress(OSError):
            status = path.lstat()
            if path.is_symlink():
                elsewhere += path.stat().st_size
            elif path.is_file():
                size += status.st_size
                own += status.st_size if status.st_nlink == 1 else 0
                shared += status.st_size if status.st_nlink > 1 else 0
    return DiskUsage(size, own, shared, elsewhere)


def require_room(spec: ModelSpec, needed: int, free: int) -> None:
    """Check that `needed` bytes and a reserve fit into the `free` bytes.

    Raises:
        StorageFull: they do not.
    """
    if needed and needed + RESERVE_BYTES > free:
        raise StorageFull(
            f"{spec.id} needs {needed / _GB:.1f} GB more and {RESERVE_BYTES / _GB:.1f} GB in reserve, and "
            f"{free / _GB:.1f} GB are free; nothing was downloaded",
            suggestions=("Free some disk space, or set WAN22_HOME to a folder on a larger disk.",),
            details={"needed_bytes": needed, "free_bytes": free},
            actions=(free_disk(needed + RESERVE_BYTES - free),),
        )
