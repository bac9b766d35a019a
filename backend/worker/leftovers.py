"""Removes what attempts that died left on disk. The database says what is still needed, not the clock."""

from __future__ import annotations

import shutil
from pathlib import Path

import structlog

from backend.core.domain import TaskStatus
from backend.core.paths import Home
from backend.store.outputs import OutputStore
from backend.store.tasks import TaskStore

log = structlog.get_logger(__name__)


class Leftovers:
    """Knows which files belong to whom."""

    def __init__(self, home: Home, tasks: TaskStore, outputs: OutputStore) -> None:
        self._home = home
        self._tasks = tasks
        self._outputs = outputs

    def sweep(self) -> None:
        """Remove partial files and work folders of tasks that nobody works on, and videos that nobody recorded."""
        for path in [*self._home.outputs.glob("*.part"), *self._home.work.iterdir()]:
            if self._tasks.status_of(_task_id(path)) is not TaskStatus.PROCESSING:
                _remove(path)
        recorded = {output.task_id for output in self._outputs.list()}
        for path in [*self._home.outputs.glob("*.mp4"), *self._home.outputs.glob("*_thumb.jpg")]:
            # A worker that died between the rename and the commit of its last attempt. Files that are not
            # a task's are the user's own.
            given_up = (TaskStatus.FAILED, TaskStatus.CANCELLED)
            if _task_id(path) not in recorded and self._tasks.status_of(_task_id(path)) in given_up:
                _remove(path)

    def remove(self, task_id: str) -> None:
        """Remove what an attempt kept while it ran, unless another attempt works on the task by now."""
        if self._tasks.status_of(task_id) is TaskStatus.PROCESSING:
            return
        for path in [*self._home.outputs.glob(f"{task_id}*.part"), self._home.work_of(task_id)]:
            _remove(path)


def _task_id(path: Path) -> str:
    return path.name.partition(".")[0].removesuffix("_thumb")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
