"""A home with an SQLite database in use, and the damage that may come to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backend.core.domain import new_task_id
from backend.core.paths import Home
from backend.store.engine import Database
from backend.store.tasks import TaskStore
from backend.store.upkeep.opening import Restoration, open_database
from tests.store.samples import claimed, output_of, submit


class Owner:
    """Who starts servers on one home: every `open` is a start, every `close` an ordered stop."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.database = Database(home.database)

    @property
    def tasks(self) -> TaskStore:
        return TaskStore(self.database)

    def open(self) -> Restoration | None:
        self.database.close()
        self.database = Database(self.home.database)
        return open_database(self.database, self.home)

    def close(self) -> None:
        self.database.close()

    def work(self, count: int) -> set[str]:
        """Queue tasks and complete every second one; return all ids."""
        ids = set()
        for index in range(count):
            task = submit(self.tasks, f"a red circle moving right, clip {index} " + "very " * (index % 40) + "slowly")
            ids.add(task.id)
            if index % 2:
                leased, token = claimed(self.tasks)
                self.tasks.complete(leased.id, token, output_of(leased.id))
        return ids

    def ids(self) -> set[str]:
        return {task.id for task in self.tasks.list()}

    def set_aside(self) -> list[str]:
        """Names of the files that were moved out of the way."""
        return sorted(path.name for path in self.home.root.glob("wan22.db.set-aside-*"))

    def video(self) -> str:
        """Put the file of a finished video into the outputs folder."""
        task_id = new_task_id()
        self.home.video_of(task_id).write_bytes(b"video")
        return task_id


@pytest.fixture
def owner(home: Home) -> Iterator[Owner]:
    owner = Owner(home)
    yield owner
    owner.close()
