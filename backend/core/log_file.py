"""A log file of bounded size: at the limit it becomes `.1`, the older ones move on, and the oldest goes.

Several processes may write the same file: a record is one append, and one process at a time moves the files. What
cannot be written to the file goes to stderr, because a log never stops the program.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

#: A longer record is cut in the middle, so that none fills the file alone.
MAX_RECORD_BYTES: Final = 65_536
_CUT: Final = b"\n[cut]\n"


class BoundedLogFile(logging.Handler):
    """Appends records to a file of at most `max_bytes`, and keeps `generations` older files beside it."""

    def __init__(self, path: Path, *, max_bytes: int, generations: int) -> None:
        super().__init__()
        self._path = path
        self._max_bytes = max_bytes
        self._generations = generations
        self._file: int | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; called by logging under the handler's lock."""
        try:
            text = self.format(record)
        except Exception:  # as every handler of the standard library: a bad record is reported, not raised
            self.handleError(record)
            return
        content = shortened(text.encode(errors="backslashreplace"), min(MAX_RECORD_BYTES, self._max_bytes - 1)) + b"\n"
        try:
            os.write(self._file_for(len(content)), content)
        except OSError:
            self._release()
            with suppress(OSError, ValueError):  # a stderr that nobody reads any more, or that is closed
                sys.stderr.write(content.decode(errors="replace"))

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        self._release()
        super().close()

    def _file_for(self, count: int) -> int:
        """Return the open file, after moving it aside if `count` more bytes would exceed the limit."""
        if self._file is None or not self._is_current(self._file):
            self._open()
        file = self._file
        if file is None or os.fstat(file).st_size + count <= self._max_bytes:
            return -1 if file is None else file
        # Another process that holds the lock moves the file at this moment: this record may exceed the limit.
        with suppress(Timeout), FileLock(f"{self._path}.lock", timeout=1.0):
            if self._is_current(file):
                self._move_aside(file)
        self._open()
        return file if self._file is None else self._file

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except OSError:  # moved or deleted
            return False

    def _move_aside(self, file: int) -> None:
        try:
            if self._generations == 0:
                self._path.unlink()
                return
            for number in range(self._generations, 0, -1):
                newer = self._older(number - 1) if number > 1 else self._path
                if newer.exists():
                    newer.replace(self._older(number))
        except OSError:  # the folder cannot be changed: the limit holds nevertheless
            os.ftruncate(file, 0)

    def _older(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _open(self) -> None:
        self._release()
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _release(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
            self._file = None


def shortened(content: bytes, limit: int) -> bytes:
    """Return the content, cut in the middle when it is longer than `limit` bytes."""
    if len(content) <= limit:
        return content
    half = max(0, limit - len(_CUT)) // 2
    return content[:half] + _CUT + content[len(content) - half :]
