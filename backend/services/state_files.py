"""The saved states of one task on disk: their names, how many are kept, how much room all tasks' states take.

States belong to a task, not to an attempt: they outlive a killed process and go when the task ends. Does not
know what is in them.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog

from backend.core.paths import Home
from backend.services.attempt_files import storage_errors, sync_folder

#: States of one task that are kept: the newest, and one more for when that one turns out to be damaged.
KEPT = 2
#: Room for the states of all tasks, in bytes. One state of an 81-frame clip in 720p has 77 MB.
MAX_BYTES = 4 * 2**30
_NAME = re.compile(r"step-(\d{4,})\.safetensors")
_SET_ASIDE = ".set-aside"

log = structlog.get_logger(__name__)


class StateFiles:
    """Names, replaces and removes the states of one task."""

    def __init__(self, home: Home, task_id: str, max_bytes: int = MAX_BYTES) -> None:
        self._home = home
        self._folder = home.state_of(task_id)
        self._max_bytes = max_bytes

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep the state after `step` steps; `write` is given the path of a new file.

        A reader finds the whole file or none. Then this task's states but the newest two go, and of all tasks'
        states together those that were written longest ago, as long as they take more room than allowed; the
        one just written stays.

        Raises:
            StorageFull: the disk is full; older states are untouched.
        """
        path = self._folder / f"step-{step:04d}.safetensors"
        part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
        with storage_errors():
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                write(part)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            sync_folder(self._folder)
        for _, older in self.newest_first()[KEPT:]:
            older.unlink(missing_ok=True)
        self._make_room(path)

    def newest_first(self) -> list[tuple[int, Path]]:
        """Return the steps and files of the states that are here."""
        found = [
            (int(match[1]), path)
            for path in (self._folder.iterdir() if self._folder.is_dir() else ())
            if (match := _NAME.fullmatch(path.name))
        ]
        return sorted(found, reverse=True)

    def set_aside(self, path: Path) -> None:
        """Keep a state that does not fit out of the way; it goes with the task."""
        path.replace(path.with_name(path.name + _SET_ASIDE))

    def _make_room(self, newest: Path) -> None:
        states = sorted(_states_of_all(self._home))
        room = sum(size for _, _, size in states)
        for _, path, size in states:
            if room <= self._max_bytes:
                return
            if path != newest:
                log.warning("state.removed", path=str(path), reason="the states of all tasks take too much room")
                path.unlink(missing_ok=True)
                room -= size


def _states_of_all(home: Home) -> Iterator[tuple[float, Path, int]]:
    """Yield time, path and size of every task's states."""
    for path in home.work.glob("*/state/*"):
        try:
            stat = path.stat()
        except FileNotFoundError:  # its task ended in the meantime
            continue
        yield stat.st_mtime, path, stat.st_size
