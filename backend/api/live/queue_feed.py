"""The numbers of the queue for each client: how many of the tasks that it may see are in which state.

The counts of all tasks are as of one event of the log; those of one key are counted when it is told them. A change
that they have already, and whose own message is still to come, is followed by new numbers anyway.
"""

from __future__ import annotations

import asyncio
from typing import Any

from backend.api.tasks.queue import queue_counts
from backend.core.access.caller import Caller, acting_as
from backend.core.domain import TaskStatus, iso, utcnow
from backend.store.tasks import TaskStore


class QueueFeed:
    """The newest counts, and whether the queue is paused. Call on the event loop's thread."""

    def __init__(self, tasks: TaskStore) -> None:
        """Begin without counts; `read` is called before anything is asked."""
        self._tasks = tasks
        self._counts: dict[TaskStatus, int] = {}
        self._paused = False

    async def read(self) -> int:
        """Count the tasks, and return the number of the newest event that the counts include.

        Raises:
            StoreFailed: the database cannot be read now.
        """
        self._counts, newest = await asyncio.to_thread(self._tasks.tally)
        return newest

    async def pause_changed(self) -> bool:
        """Look whether the queue is paused, and return whether that has changed.

        Raises:
            StoreFailed: the database cannot be read now.
        """
        before, self._paused = self._paused, await asyncio.to_thread(self._tasks.queue_is_paused)
        return self._paused is not before

    async def numbers(self, caller: Caller) -> dict[str, Any]:
        """Return the data of `queue_update` for a client.

        Raises:
            StoreFailed: the database cannot be read now.
        """
        counts = self._counts
        if caller.confined_to is not None:
            counts = await asyncio.to_thread(self._count, caller)
        return queue_counts(counts).model_dump() | {"paused": self._paused, "timestamp": iso(utcnow())}

    def _count(self, caller: Caller) -> dict[TaskStatus, int]:
        with acting_as(caller):
            return self._tasks.counts()
