"""Whether a task's model is installed or would be downloaded, and who is using a model.

Judges by the disk and the database: downloads nothing, asks no hub, removes nothing.
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
from backend.core.errors.lookups import StateConflict
from backend.core.paths import Home
from backend.models.folder.disk import require_room
from backend.models.folder.locks import removal_lock
from backend.models.folder.manager import ModelManager, ModelState, Presence
from backend.store.download_orders import DownloadOrders
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerStore


@dataclass(frozen=True, slots=True)
class FetchFirst:
    """The model that has to be downloaded before a task can run."""

    spec: ModelSpec
    presence: Presence  #: its state on the disk
    missing_bytes: int | None  #: still to be downloaded; None until the hub was asked


class ModelAvailability:
    """Which models of a home folder tasks can use."""

    def __init__(
        self,
        home: Home,
        models: ModelManager,
        *,
        fetches: bool,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        """`fetches`: whether workers download missing models; `free_bytes`: free space on the disk of a folder."""
        self._home = home
        self._models = models
        self._fetches = fetches
        self._free_bytes = free_bytes
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    @contextmanager
    def hold(self, spec: ModelSpec) -> Iterator[None]:
        """Within the block, keep everybody else of this home from queuing a task for the model or removing it.

        Raises:
            ModelUnavailable: another process is removing it, and takes long.
        """
        # The threads of this process wait for each other here, which is fair and needs no polling.
        with self._locks[spec.id], removal_lock(self._home, spec):
            yield

    def inspect(self, spec: ModelSpec) -> tuple[ModelState, FetchFirst | None]:
        """Return the state of a model, and what has to be downloaded before it can be used.

        Raises:
            ModelUnavailable, ModelDamaged: it cannot be used, and no task would download it.
            StorageFull: there is no space for the known missing bytes.
        """
        state = self._models.state(spec)
        if state.available:
            return state, None
        if not self._would_fetch(state):
            self._models.folder_of(state)  # raises: explains why, and what to do
        if state.missing_bytes is not None:
            require_room(spec, state.missing_bytes, self._free_bytes(state.folder.parent))
        return state, FetchFirst(spec, state.presence, state.missing_bytes)

    def foresee(self, spec: ModelSpec) -> tuple[bool, FetchFirst | None]:
        """Return whether a model is installed, and what a task would download first; None also when it would not."""
        state = self._models.state(spec)
        fetched = not state.available and self._would_fetch(state)
        return state.available, FetchFirst(spec, state.presence, state.missing_bytes) if fetched else None

    def _would_fetch(self, state: ModelState) -> bool:
        # A damaged folder behind a link is the user's own, and is not repaired.
        if not self._fetches or state.spec.embedded or state.folder.is_symlink():
            return False
        if state.presence is Presence.UNSUPPORTED:  # a download would bring the same form
            return False
        from backend.models.download.hub import is_offline  # loads the hub's library, so only when it is needed

        return not is_offline()


class ModelUsage:
    """Who is using the models of one home: unfinished tasks, workers that hold one in memory, orders."""

    def __init__(
        self, home: Home, tasks: TaskStore, workers: WorkerStore, orders: DownloadOrders, lease_seconds: float
    ) -> None:
        """`lease_seconds` is how long a worker counts as alive after its last heartbeat."""
        self._home = home
        self._tasks = tasks
        self._workers = workers
        self._orders = orders
        self._lease_seconds = lease_seconds

    def models(self) -> frozenset[str]:
        """Return the ids of all models that are in use, or whose download is ordered or paused."""
        waiting = {task.model for state in TaskStatus if state not in TERMINAL for task in self._tasks.list(state)}
        return frozenset(waiting | self._held() | {order.model for order in self._orders.list()})

    @contextmanager
    def exclusive(self, spec: ModelSpec) -> Iterator[None]:
        """Require that a model is not in use, and keep everybody from queuing a task for it within the block.

        Raises:
            StateConflict: it is in use.
            ModelUnavailable: another process is removing it.
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
