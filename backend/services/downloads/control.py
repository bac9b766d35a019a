"""All downloads of a home as people see and change them, whichever process carries them out.

Writes every change into the orders in the database: this server's `ModelDownloads` and the workers obey those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from backend.core.catalogue.table import ModelSpec, models_in_force
from backend.core.domain import Stage, Task, TaskStatus, utcnow
from backend.core.errors.lookups import DownloadInUse
from backend.core.errors.requests import InvalidRequest
from backend.core.paths import Home
from backend.models.folder.manager import ModelManager, Presence
from backend.models.folder.progress import read_status
from backend.models.folder.storage import discard_unfinished
from backend.services.downloads.runner import ModelDownloads
from backend.services.downloads.state import ENDED, Download, DownloadState, Runner
from backend.store.download_orders import DownloadOrders, Order, Urgency
from backend.store.tasks import TaskStore

#: The states of a model's folder while a download runs.
_IN_FOLDER: Final = {
    Presence.DOWNLOADING: DownloadState.DOWNLOADING,
    Presence.VERIFYING: DownloadState.VERIFYING,
}


@dataclass(frozen=True, slots=True)
class _Around:
    """What is known about one model besides its files."""

    own: Download | None  #: this server's download of it, also one that has ended
    order: Order | None
    needing: tuple[Task, ...]  #: unfinished tasks for it

    @property
    def active(self) -> Download | None:
        """This server's download of it, unless it has ended."""
        return None if self.own is None or self.own.state in ENDED else self.own

    @property
    def fetched_for_task(self) -> bool:
        """Whether a worker is downloading it."""
        return any(
            task.status is TaskStatus.PROCESSING and task.stage == Stage.DOWNLOADING_MODEL for task in self.needing
        )

    @property
    def paused(self) -> bool:
        """Whether its order is paused."""
        return self.order is not None and self.order.paused


class DownloadControl:
    """Starts, shows and changes the downloads of one home."""

    def __init__(
        self, home: Home, models: ModelManager, downloads: ModelDownloads, orders: DownloadOrders, tasks: TaskStore
    ) -> None:
        self._home = home
        self._models = models
        self._downloads = downloads
        self._orders = orders
        self._tasks = tasks

    def snapshot(self, spec: ModelSpec) -> Download | None:
        """Return the download of a model: the running one, else the paused one, else the one that ended last.

        None when it was not ordered from this server and nobody downloads it.
        """
        return None if spec.embedded else self._seen(spec, self._around(spec))

    def all(self) -> dict[str, Download]:
        """Return the `snapshot` of every model that has one."""
        found = {spec.id: self.snapshot(spec) for spec in models_in_force().specs}
        return {name: one for name, one in found.items() if one is not None}

    def start(self, spec: ModelSpec) -> Download | None:
        """Order a model, or resume its paused download; a model is ordered once, however often this is called.

        None when its files are here already.

        Raises:
            ModelUnavailable, ModelDamaged: it has no repository to download from.
            StoreUnavailable, StorageFull: the order could not be stored; nothing was started.
        """
        state = self._models.state(spec)
        if state.available:
            return None
        if spec.repo_id is None:
            self._models.folder_of(state)  # raises: names the fault of the installation, or where the files belong
        return self._want(spec)

    def pause(self, spec: ModelSpec) -> Download | None:
        """Stop a download, whoever runs it; the bytes are kept, and tasks that need the model are passed over.

        A missing model that tasks wait for can be paused before a worker has started its download.

        Raises:
            DownloadNotFound, StateConflict: there is no download; it has ended.
            DownloadInUse: a command line runs it.
            StoreUnavailable, StorageFull: the order could not be stored; the download continues.
        """
        with self._downloads.ordering:
            around = self._around(spec)
            if around.active is not None:
                self._orders.pause(spec.id, wished=True)
                return self._downloads.change(spec, state=DownloadState.PAUSED)
            if not (around.fetched_for_task or around.paused):
                self._refuse_foreign(spec, around)
                if not around.needing or self._models.state(spec).available:
                    self._downloads.active(spec)  # raises: nothing to pause
            self._orders.pause(spec.id, wished=False)
            return self.snapshot(spec)

    def resume(self, spec: ModelSpec) -> Download | None:
        """Resume a paused download; a running one is returned as it is. Raises like `pause`.

        None when it was paused for tasks that are gone, so that nobody is left to download it.
        """
        with self._downloads.ordering:
            around = self._around(spec)
            if around.active is not None:
                return self._want(spec)
            if around.order is not None:
                resumed = self._orders.resume(spec.id)
                return self.snapshot(spec) if resumed is None else self._downloads.obey(spec, resumed)
            if not around.fetched_for_task:
                self._refuse_foreign(spec, around)
                self._downloads.active(spec)  # raises: nothing to resume
            return self.snapshot(spec)

    def cancel(self, spec: ModelSpec) -> Download:
        """Give up a download and delete its bytes.

        Raises:
            DownloadInUse: a task needs it, or a command line runs it.
            DownloadNotFound, StateConflict, StoreUnavailable, StorageFull: as `pause`.
        """
        with self._downloads.ordering:
            around = self._around(spec)
            order = around.order
            if around.needing:
                raise DownloadInUse(
                    f"{_tasks(around)} {spec.id}, so its download is not given up",
                    suggestions=(
                        "Cancel these tasks: the download ends with them, and what has arrived is kept.",
                        "Or pause the download.",
                    ),
                )
            if around.active is None and order is not None:
                self._orders.remove(spec.id)
                ended = Download(spec, DownloadState.CANCELLED, order.urgency, order.number, utcnow())
            else:
                self._refuse_foreign(spec, around)
                self._downloads.active(spec)
                self._orders.remove(spec.id)
                ended = self._downloads.change(spec, state=DownloadState.CANCELLED)
        discard_unfinished(
            self._home, spec
        )  # while a thread still uses the files, it does nothing, and the thread does
        return ended

    def prioritise(self, spec: ModelSpec, urgency: Urgency | None) -> Download:
        """Change when a queued download gets its turn.

        Raises:
            InvalidRequest: `urgency` is missing.
            DownloadInUse: it runs for a task, or a command line runs it.
            DownloadNotFound, StateConflict, StoreUnavailable, StorageFull: as `pause`.
        """
        if urgency is None:
            raise InvalidRequest("`priority` is missing: critical, high, medium or low", details={"field": "priority"})
        with self._downloads.ordering:
            around = self._around(spec)
            if around.active is None and around.needing:
                raise DownloadInUse(
                    f"{_tasks(around)} {spec.id}, and it is fetched when it is their turn",
                    suggestions=(
                        "The order of the tasks decides; give a task a higher priority when it is submitted.",
                    ),
                )
            self._refuse_foreign(spec, around)
            self._downloads.active(spec)
            self._orders.rank(spec.id, urgency)
            return self._downloads.change(spec, urgency=urgency)

    def _want(self, spec: ModelSpec) -> Download:
        with self._downloads.ordering:
            return self._downloads.obey(spec, self._orders.want(spec.id))

    def _around(self, spec: ModelSpec) -> _Around:
        own, needing = self._downloads.get(spec), tuple(self._tasks.needing(spec.id))
        own = None if own is None else replace(own, needed=bool(needing))
        return _Around(own, self._orders.get(spec.id), needing)

    def _seen(self, spec: ModelSpec, around: _Around) -> Download | None:
        if self._downloads.is_at(spec):
            return around.own
        needed, progress = bool(around.needing), read_status(self._home.partial_model_of(spec.id))
        running = _IN_FOLDER.get(self._models.state(spec).presence)
        if running is not None and progress is not None:
            if around.active is not None:
                # Another process works on what this server was asked for, too: our order is what can be changed.
                state = around.active.state if around.paused else running
                return replace(around.active, state=state, progress=progress)
            # A worker hands a task back at once, and releases the folder with the next byte from the network.
            runner = Runner.TASK if around.fetched_for_task or (around.paused and needed) else Runner.OTHER
            state = DownloadState.PAUSED if around.paused and runner is Runner.TASK else running
            return Download(spec, state, Urgency.MEDIUM, 0, utcnow(), progress, runner=runner, needed=needed)
        if around.active is not None or not (around.paused or around.fetched_for_task):
            return around.own
        state = DownloadState.PAUSED if around.paused else DownloadState.DOWNLOADING
        runner = Runner.TASK if needed else Runner.SERVER
        return Download(spec, state, Urgency.MEDIUM, 0, utcnow(), progress, runner=runner, needed=needed)

    def _refuse_foreign(self, spec: ModelSpec, around: _Around) -> None:
        """Refuse to change what a command line runs: its process reads no orders."""
        seen = self._seen(spec, around) if around.active is None else None
        if seen is not None and seen.runner is Runner.OTHER:
            raise DownloadInUse(
                f"{spec.id} is being fetched by a command on this machine",
                suggestions=("Stop that command (Ctrl-C); what has arrived is kept.",),
            )


def _tasks(around: _Around) -> str:
    count = len(around.needing)
    return "A task needs" if count == 1 else f"{count} tasks need"
