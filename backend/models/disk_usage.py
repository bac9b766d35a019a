"""How many bytes a folder has, and how many of them deleting it would free: files can have names elsewhere too."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """The bytes of one folder."""

    size: int = 0
    own: int = 0  #: what deleting the folder would free
    shared: int = 0  #: of files that have further names elsewhere
    elsewhere: int = 0  #: of files on other disks that are only linked to


def usage_of(folder: Path) -> Usage:
    """Add up a folder's files; links are not followed, and a file with further names elsewhere frees nothing."""
    size = own = shared = elsewhere = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            if path.is_symlink():
                elsewhere += path.stat().st_size
            elif path.is_file():
                size += status.st_size
                own += status.st_size if status.st_nlink == 1 else 0
                shared += status.st_size if status.st_nlink > 1 else 0
    return Usage(size, own, shared, elsewhere)
