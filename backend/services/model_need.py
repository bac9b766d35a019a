"""Who needs a model: tasks that have not ended, workers that hold it. Nobody begins to while it is being removed.

Removes nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from backend.core.catalogue.table import ModelSpec
from backend.core.domain import TERMINAL, TaskStatus
from backend.core.errors import StateConflict
from backend.core.paths import Home
from backend.models.folder.locks import need_lock
from backend.store.download_orders import DownloadOrders
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerStore


class ModelNeed:
    """Answers for one home and its database, in whichever process."""

    def __init__(
        self, home: Home, tasks: TaskStore, workers: WorkerStore, orders: DownloadOrders, lease_seconds: float
    ) -> None:
        """`lease_seconds` is how long a worker counts that was not heard of."""
        self._home = home
        self._tasks = tasks
        self._workers = workers
        self._orders = orders
        self._lease_seconds = lease_seconds

    def models(self) -> frozenset[str]:
        """Return the ids of all models that somebody needs, or whose download is ordered or paused."""
        waiting = {task.model for state in TaskStatus if state not in TERMINAL for task in self._tasks.list(state)}
        return frozenset(waiting | self._held() | {order.model for order in self._orders.list()})

    @contextmanager
    def nobodys(self, spec: ModelSpec) -> Iterator[None]:
        """Make sure that nobody needs a model, and that nobody queues a task for it before the block ends.

        Raises:
            StateConflict: somebody needs it.
            ModelUnavailable: another process removes it just now.
        """
        with need_lock(self._home, spec):
            if self._tasks.needing(spec.id):
                raise StateConflict(
                    f"{spec.id} is needed by a task", suggestions=("Cancel the task, or wait for its end.",)
                )
            if spec.id in self._held():
                raise StateConflict(
                    f"{spec.id} is loaded by a worker", suggestions=("Stop the worker, or let it load another model.",)
                )
            yield

    def _held(self) -> set[str]:
        return {one.model for one in self._workers.alive(self._lease_seconds) if one.model and not one.is_dead()}
