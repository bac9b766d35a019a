"""Whether a task's model is here, or will be fetched when the task runs; looked at before the task is queued.

Fetches nothing and asks no hub: what is known of a model that is not here is what the disk tells.

Who needs a model: tasks that have not ended, workers that hold it. Nobody begins to while it is being removed.

Removes nothing itself.
"""

from __future__ import annotations

import shutil
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backend.core.catalogue.table import ModelSpec
from backend.core.domain import TERMINAL, TaskStatus
from backend.core.errors import StateConflict
from backend.core.paths import Home
from backend.models.folder.disk import require_room
from backend.models.folder.locks import removal_lock
from backend.models.folder.manager import ModelManager, ModelState, Presence
from backend.store.download_orders import DownloadOrders
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerStore


@dataclass(frozen=True, slots=True)
class FetchFirst:
    """What a task waits for before it can run."""

    spec: ModelSpec
    presence: Presence  #: what the disk has of it now
    missing_bytes: int | None  #: what is still to be fetched; None until the hub was asked


class ModelAvailability:
    """Answers for this home folder."""

    def __init__(
        self,
        home: Home,
        models: ModelManager,
        *,
        fetches: bool,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """Take what is here; `fetches` says that workers fetch what is not, `free_bytes` the room beside a folder."""
        self._home = home
        self._models = models
        self._fetches = fetches
        self._free_bytes = free_bytes
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def hold(self, spec: ModelSpec) -> Iterator[None]:
        """Keep a model as it is: within the block nobody else of this home queues a task for it or removes it.

        Raises:
            ModelUnavailable: another process removes it just now, and takes long.
        """
        # The threads of this process wait for each other here, which is fair and polls nothing.
        with self._locks[spec.id], removal_lock(self._home, spec):
            yield

    def inspect(self, spec: ModelSpec) -> tuple[ModelState, FetchFirst | None]:
        """Return what the disk has of a model, and what has to be fetched before it can be used.

        Raises:
            ModelUnavailable, ModelDamaged: it cannot be used, and no task would fetch it.
            StorageFull: there is no room for what is known to be missing.
        """
        state = self._models.state(spec)
        if state.available:
            return state, None
        if not self._would_fetch(state):
            self._models.folder_of(state)  # says why not, and what to do
        if state.missing_bytes is not None:
            require_room(spec, state.missing_bytes, self._free_bytes(state.folder.parent))
        return state, FetchFirst(spec, state.presence, state.missing_bytes)

    def foresee(self, spec: ModelSpec) -> tuple[bool, FetchFirst | None]:
        """Say whether a model is here, and what a task would fetch first; None also where none would."""
        state = self._models.state(spec)
        fetched = not state.available and self._would_fetch(state)
        return state.available, FetchFirst(spec, state.presence, state.missing_bytes) if fetched else None

    def _would_fetch(self, state: ModelState) -> bool:
        # A damaged folder behind a link is the user's own, and is not mended.
        if not self._fetches or state.spec.embedded or state.folder.is_symlink():
            return False
        from backend.models.download.hub import is_offline  # the hub's library is loaded when it is needed

        return not is_offline()


class ModelUsage:
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
    def exclusive(self, spec: ModelSpec) -> Iterator[None]:
        """Make sure that nobody needs a model, and that nobody queues a task for it before the block ends.

        Raises:
            StateConflict: somebody needs it.
            ModelUnavailable: another process removes it just now.
        """
        with removal_lock(self._home, spec):
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
