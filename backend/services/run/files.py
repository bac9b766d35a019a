"""The files of a task's run: preview, video, thumbnail and kept latents of one attempt, and the saved states.

A file under its final name is always complete, and what an attempt leaves behind is removed when it ends, or at the
latest when the next one starts. States outlive a killed process and are removed when the task ends. Knows nothing about
frames and nothing about the content of states.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import structlog

from backend.core.errors.interruptions import LeaseLost
from backend.core.files import replacing, storage_errors, sync_folder
from backend.core.paths import Home
from backend.services.media.placeholder import placeholder_of

#: States kept for one task: the newest, and one more in case that one turns out to be damaged.
KEPT = 2
#: Limit for the states of all tasks, in bytes. One state of an 81-frame clip in 720p takes 77 MB.
MAX_BYTES = 4 * 2**30
_NAME = re.compile(r"step-(\d{4,})\.safetensors")
_SET_ASIDE = ".set-aside"

log = structlog.get_logger(__name__)


class AttemptFiles:
    """Names and moves the files of one attempt; a context manager that always cleans up.

    The unfinished video has a random part in its name, so that an attempt that has lost its lease without knowing it
    cannot write into its successor's file.
    """

    def __init__(self, home: Home, task_id: str, *, mock: bool = False) -> None:
        self.home = home
        self._task_id = task_id
        self._wrote: list[Path] = []  # removed again when the attempt fails
        self.states = StateFiles(home, task_id)
        self.part: Path = home.outputs / f"{task_id}.{secrets.token_hex(4)}.mp4.part"
        self.video: Path = home.mock_of(task_id) if mock else home.video_of(task_id)
        self.thumbnail: Path = home.thumbnail_of(task_id)
        self.latents: Path = home.latents_of(task_id)
        self.preview: Path = home.preview_of(task_id)
        self.placeholder: bytes | None = None  #: of the thumbnail, once that is written

    def __enter__(self) -> AttemptFiles:
        with storage_errors():
            remove_attempt_files(self.home, self._task_id)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.part.unlink(missing_ok=True)
        if isinstance(error, LeaseLost):
            return  # everything under the task's own names now belongs to the next attempt
        clear_work(self.home, self._task_id)
        if error is not None:
            for path in self._wrote:
                path.unlink(missing_ok=True)

    def work_folder(self) -> Path:
        """Return the folder for files that are needed only while the attempt runs."""
        with storage_errors():
            self.preview.parent.mkdir(parents=True, exist_ok=True)
        return self.preview.parent

    def write_preview(self, picture: bytes) -> None:
        """Replace the preview; readers see the old one or the new one."""
        with storage_errors():
            self.preview.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.preview, durable=False) as part:
                part.write_bytes(picture)

    def write_thumbnail(self, picture: bytes) -> None:
        """Write the still picture of the video."""
        with storage_errors():
            self._wrote.append(self.thumbnail)
            with replacing(self.thumbnail, durable=False) as part:
                part.write_bytes(picture)
        self.placeholder = placeholder_of(picture)

    def write_latents(self, write: Callable[[Path], None]) -> None:
        """Store the latents beside the video; `write` gets the path of a new file and flushes it to disk."""
        with storage_errors():
            self._wrote.append(self.latents)
            with replacing(self.latents, durable=False) as part:
                write(part)

    def publish(self) -> None:
        """Give the finished video its final name, durably: the folder's entry is on disk when this returns."""
        with storage_errors():
            self.part.replace(self.video)
            self._wrote.append(self.video)
            sync_folder(self.video.parent)


def remove_attempt_files(home: Home, task_id: str) -> None:
    """Remove what earlier attempts at a task left, including video and thumbnail, but not its saved states.

    Only for a task without an output.
    """
    clear_work(home, task_id)
    for name in (f"{task_id}.*.part", f"{task_id}_thumb.jpg.*.part"):
        for path in home.outputs.glob(name):
            path.unlink(missing_ok=True)
    for path in (home.video_of(task_id), home.mock_of(task_id), home.thumbnail_of(task_id), home.latents_of(task_id)):
        path.unlink(missing_ok=True)


def clear_work(home: Home, task_id: str) -> None:
    """Remove the working files of an attempt, but not the task's saved states."""
    folder, states = home.work_of(task_id), home.state_of(task_id)
    if not states.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for path in folder.iterdir():
        if path.is_file():
            path.unlink(missing_ok=True)


class StateFiles:
    """Names, replaces and removes the states of one task."""

    def __init__(self, home: Home, task_id: str, max_bytes: int = MAX_BYTES) -> None:
        self._home = home
        self._folder = home.state_of(task_id)
        self._max_bytes = max_bytes

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Save the state after `step` steps; `write` gets the path of a new file.

        A reader finds the whole file or none. Afterwards all but the newest two states of this task are removed, and
        then the oldest states of all tasks until they fit the limit; the one just written stays.

        Raises:
            StorageFull: the disk is full; older states are untouched.
        """
        path = self._folder / f"step-{step:04d}.safetensors"
        with storage_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                write(part)
        for _, older in self.newest_first()[KEPT:]:
            older.unlink(missing_ok=True)
        self._make_room(path)

    def newest_first(self) -> list[tuple[int, Path]]:
        """Return step and file of every saved state."""
        found = [
            (int(match[1]), path)
            for path in (self._folder.iterdir() if self._folder.is_dir() else ())
            if (match := _NAME.fullmatch(path.name))
        ]
        return sorted(found, reverse=True)

    def set_aside(self, path: Path) -> None:
        """Rename a state that does not fit the job, so that it is ignored; it is removed with the task."""
        path.replace(path.with_name(path.name + _SET_ASIDE))

    def _make_room(self, newest: Path) -> None:
        states = sorted(_states_of_all(self._home))
        room = sum(size for _, _, size in states)
        for _, path, size in states:
            if room <= self._max_bytes:
                return
            if path != newest:
                log.warning("state.removed", path=str(path), reason="the states of all tasks take too much space")
                path.unlink(missing_ok=True)
                room -= size


def _states_of_all(home: Home) -> Iterator[tuple[float, Path, int]]:
    """Yield time, path and size of every task's states."""
    for path in home.work.glob("*/state/*"):
        try:
            stat = path.stat()
        except FileNotFoundError:  # its task has ended meanwhile
            continue
        yield stat.st_mtime, path, stat.st_size
