"""The files of one attempt at a task: preview, unfinished video, finished video, thumbnail.

Whatever happens, a file under its final name is complete, and what an attempt leaves behind goes when it
ends, or at the latest when the next attempt begins. Knows nothing about frames.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from backend.core.errors import LeaseLost, StorageFull
from backend.core.paths import Home

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def storage_errors() -> Iterator[None]:
    """Raise `StorageFull` where the system says that the disk or the quota is used up."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise StorageFull from error


class AttemptFiles:
    """Names and moves the files of one attempt; a context manager that cleans up on every way out.

    The unfinished video has a random part in its name, so that an attempt that lost its lease and does not know
    it yet cannot write into its successor's file.
    """

    def __init__(self, home: Home, task_id: str) -> None:
        self._home = home
        self._task_id = task_id
        self._mark = secrets.token_hex(4)
        self._wrote_thumbnail = False
        self._published = False
        self.part: Path = home.outputs / f"{task_id}.{self._mark}.mp4.part"
        self.video: Path = home.video_of(task_id)
        self.thumbnail: Path = home.thumbnail_of(task_id)
        self.preview: Path = home.preview_of(task_id)

    def __enter__(self) -> AttemptFiles:
        with storage_errors():
            self._home.create()
            remove_attempt_files(self._home, self._task_id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.part.unlink(missing_ok=True)
        if isinstance(error, LeaseLost):
            return  # everything under the task's own names belongs to the next attempt now
        shutil.rmtree(self._home.work_of(self._task_id), ignore_errors=True)
        if error is not None:
            if self._wrote_thumbnail:
                self.thumbnail.unlink(missing_ok=True)
            if self._published:
                self.video.unlink(missing_ok=True)

    def write_preview(self, picture: bytes) -> None:
        """Put a new preview in place of the old one; readers see one or the other."""
        with storage_errors():
            self.preview.parent.mkdir(parents=True, exist_ok=True)
            self._replace(self.preview, picture)

    def write_thumbnail(self, picture: bytes) -> None:
        """Write the still picture of the video."""
        with storage_errors():
            self._wrote_thumbnail = True
            self._replace(self.thumbnail, picture)

    def publish(self) -> None:
        """Give the finished video its final name, for good: the folder's entry is on disk when this returns."""
        with storage_errors():
            self.part.replace(self.video)
            self._published = True
            _sync_folder(self.video.parent)

    def _replace(self, path: Path, content: bytes) -> None:
        part = path.with_name(f"{path.name}.{self._mark}.part")
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def remove_attempt_files(home: Home, task_id: str) -> None:
    """Remove what earlier attempts at a task left, video and thumbnail too; only for a task without an output."""
    shutil.rmtree(home.work_of(task_id), ignore_errors=True)
    for name in (f"{task_id}.*.part", f"{task_id}_thumb.jpg.*.part"):
        for path in home.outputs.glob(name):
            path.unlink(missing_ok=True)
    home.video_of(task_id).unlink(missing_ok=True)
    home.thumbnail_of(task_id).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # Windows cannot open folders and keeps its own order
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
