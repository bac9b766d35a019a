"""Atomic, durable file writes: after a crash a file has its old or its new content, never a mix.

A file is written next to its target and renamed over it. All forms of "disk full" become `StorageFull`.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from backend.core.errors import StorageFull

#: Suffix of a file that is being written.
PART_SUFFIX: Final = ".part"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Answers of file systems that cannot sync a folder; they order renames in some other way.
_CANNOT_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EBADF})


@contextmanager
def storage_errors(message: str | None = None) -> Iterator[None]:
    """Turn an OSError about a full disk or an exhausted quota into `StorageFull`, with `message` if given."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(message) from error


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a fresh path next to `path` to write to; when the block succeeds, that file replaces `path`.

    The writer flushes the content to disk where that matters. With `durable`, the rename is on disk, too, when this
    returns. When the block fails, the old file stays as it was.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    if durable:
        sync_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically and durably."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, atomically and durably."""
    write_bytes(path, json.dumps(value, indent=1).encode())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk, where the system can, so that renames into it survive a crash."""
    if os.name != "posix":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(handle)
