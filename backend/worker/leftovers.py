"""Removes files that attempts left on disk. The database decides what is still needed, not the clock."""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog

from backend.core.domain import TaskStatus
from backend.core.paths import Home
from backend.services.run.files import clear_work
from backend.store.gallery.outputs import OutputStore
from backend.store.tasks import TaskStore

log = structlog.get_logger(__name__)


class Leftovers:
    """Knows which files belong to which task."""

    def __init__(self, home: Home, tasks: TaskStore, outputs: OutputStore, keep_seconds: float = 0.0) -> None:
        """Failed and cancelled tasks keep their saved states for `keep_seconds`, so that a retry goes on from them."""
        self._keep_seconds = keep_seconds
        self._home = home
        self._tasks = tasks
        self._outputs = outputs

    def sweep(self) -> None:
        """Remove partial files of tasks that are not running, states of ended tasks, and unrecorded videos."""
        for path in self._home.outputs.glob("*.part"):
            if self._tasks.status_of(_task_id(path)) is not TaskStatus.PROCESSING:
                _remove(path)
        self.sweep_work()
        recorded = self._outputs.ids()
        for pattern in ("*.mp4", "*_thumb.jpg", "*_sheet.jpg", "*.latents.safetensors"):
            for path in self._home.outputs.glob(pattern):
                # A worker that died between the rename and the commit of its last attempt. Files that are not
                # a task's are the user's own.
                given_up = (TaskStatus.FAILED, TaskStatus.CANCELLED)
                if _task_id(path) not in recorded and self._tasks.status_of(_task_id(path)) in given_up:
                    _remove(path)

    def sweep_work(self) -> None:
        """Remove the work folders of tasks that cannot continue, and everything but saved states from the others'."""
        for path in self._home.work.iterdir():
            self._clear(path.name)

    def remove(self, task_id: str) -> None:
        """Remove the working files of an attempt, unless another attempt is running by now.

        A task that can run again keeps its saved states.
        """
        if self._tasks.status_of(task_id) is TaskStatus.PROCESSING:
            return
        for path in self._home.outputs.glob(f"{task_id}*.part"):
            _remove(path)
        self._clear(task_id)

    def _clear(self, name: str) -> None:
        path = self._home.work / name
        status, goes_on = self._tasks.fate(name, self._keep_seconds)
        if goes_on and path.is_dir():
            clear_work(self._home, name)
        elif status is not TaskStatus.PROCESSING:
            _remove(path)


def _task_id(path: Path) -> str:
    return path.name.partition(".")[0].removesuffix("_thumb").removesuffix("_sheet").removesuffix("-MOCK")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
