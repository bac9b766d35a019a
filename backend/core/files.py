"""Writing files so that a crash leaves the old content or the new, never a part of it.

A file is written beside its place and renamed into it. What the system says about a full disk becomes one error.
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

#: How a file ends that is being written.
PART_SUFFIX: Final = ".part"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: What file systems answer that cannot sync a folder; they keep the order of names in some other way.
_CANNOT_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EBADF})


@contextmanager
def storage_errors(message: str | None = None) -> Iterator[None]:
    """Raise `StorageFull`, with `message` if given, where the system says that the disk or the quota is used up."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull(message) from error


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a fresh path beside `path` to write to; when the block ends well, the file takes the place of `path`.

    Whoever writes flushes the content to disk where that matters. With `durable` the new name is on disk, too, when
    this returns. A block that fails leaves the old file as it was.
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
    """Write a file durably; after any crash the old content or the new one is there."""
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON, durably; after any crash the old content or the new one is there."""
    write_bytes(path, json.dumps(value, indent=1).encode())


def sync_folder(folder: Path) -> None:
    """Put a folder's names on disk, where the system can: a file that was renamed into it stays there."""
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
