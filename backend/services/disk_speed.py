"""How fast the disk of a folder reads, by reading a part of its largest file for a moment. Changes nothing.

Model files are read from end to end, so it is reading in a row that counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

#: A smaller file says more about the start of a read than about its speed.
SMALLEST: Final = 1024**2
#: Enough to leave the disk's own buffers behind, and short on a slow one.
MOST_BYTES, MOST_SECONDS = 256 * 1024**2, 2.0
_CHUNK = 8 * 1024**2


def read_speed(folder: Path, *, clock: Callable[[], float] = time.perf_counter) -> float | None:
    """Return bytes per second; None where there is nothing to read or it cannot be read."""
    with suppress(OSError):
        sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        largest = max(sizes, key=lambda path: sizes[path], default=None)
        if largest is not None and sizes[largest] >= SMALLEST:
            return _read(largest, clock)
    return None


def _read(path: Path, clock: Callable[[], float]) -> float:
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            # What is in memory from an earlier read would tell the memory's speed. Only clean pages go.
            os.posix_fadvise(file.fileno(), 0, MOST_BYTES, os.POSIX_FADV_DONTNEED)
        began, read = clock(), 0
        while read < MOST_BYTES and (part := len(file.read(_CHUNK))):
            read += part
            if clock() - began > MOST_SECONDS:
                break
        return read / max(clock() - began, 1e-9)
