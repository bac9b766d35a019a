"""All downloads of a home as one picture, whoever runs them, and what people may change about each.

A server's own are `ModelDownloads`; those that workers run for tasks are held through the orders in the database.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backend.core.catalogue.table import ModelSpec, models_in_force
from backend.core.domain import Stage, Task, TaskStatus, utcnow
from backend.core.errors import DownloadInUse
from backend.core.paths import Home
from backend.models.folder.manager import ModelManager, Presence
from backend.models.folder.progress import read_status
from backend.models.folder.storage import discard_unfinished
from backend.services.downloads.runner import ModelDownloads
from backend.services.downloads.state import ENDED, Download, DownloadState, Runner
from backend.store.download_orders import DownloadOrders, Order, Urgency
from backend.store.tasks import TaskStore

#: What a model's folder says while somebody fetches it.
_IN_FOLDER: Final = {
    Presence.DOWNLOADING: DownloadState.DOWNLOADING,
    Presence.VERIFYING: DownloadState.VERIFYING,
}


@dataclass(frozen=True, slots=True)
class _Around:
    """What the database says around one model."""

    order: Order | None
    needing: tuple[Task, ...]  #: tasks for it that have not ended

    @property
    def fetched_for_task(self) -> bool:
        """Whether a worker has come to the download of it."""
        return any(
            task.status is TaskStatus.PROCESSING and task.stage == Stage.DOWNLOADING_MODEL for task in self.needing
        )

    @property
    def held(self) -> bool:
        """Whether somebody paused it."""
        return self.order is not None and self.order.paused


class DownloadControl:
    """The downloads of one home, as people see and change them."""

    def __init__(
        self, home: Home, models: ModelManager, downloads: ModelDownloads, orders: DownloadOrders, tasks: TaskStore
    ) -> None:
        self._home = home
        self._models = models
        self._downloads = downloads
        self._orders = orders
        self._tasks = tasks

    def snapshot(self, spec: ModelSpec) -> Download | None:
        """Return the download of a model: the one that runs, else the one that is paused, else what became of it.

        None when this server was not asked for one and nobody runs one.
        """
        return None if spec.embedded else self._seen(spec, self._around(spec))

    def all(self) -> dict[str, Download]:
        """Return what `look` says of every model that has a download."""
        found = {spec.id: self.snapshot(spec) for spec in models_in_force().specs}
        return {name: one for name, one in found.items() if one is not None}

    def pause(self, spec: ModelSpec) -> Download | None:
        """Stop a download for now, whoever runs it; what has arrived is kept, and tasks that need it are passed over.

        A model that tasks wait for and that is not here can be paused before anybody has come to it.

        Raises:
            DownloadNotFound, StateConflict: there is none; it has ended.
            DownloadInUse: a command line runs it.
            StoreUnavailable, StorageFull: the order could not be written down; it goes on.
        """
        around = self._around(spec)
        if not self._own(spec) and (around.fetched_for_task or around.held):
            self._orders.pause(spec.id, wished=False)
            return self.snapshot(spec)
        self._refuse_foreign(spec, around)
        if not self._own(spec) and around.needing and not self._models.state(spec).available:
            self._orders.pause(spec.id, wished=False)
            return self.snapshot(spec)
        return self._downloads.pause(spec)

    def resume(self, spec: ModelSpec) -> Download | None:
        """Let a paused download go on; one that goes on already is returned as it is. Raises like `pause`.

        None when nobody is left who would fetch: it was paused for tasks that are gone.
        """
        around = self._around(spec)
        if not self._own(spec) and around.order is not None:
            if self._orders.resume(spec.id) is not None:
                return self._downloads.start(spec)  # it was ordered, and this server had not taken it up
            return self.snapshot(spec)
        if not self._own(spec) and around.fetched_for_task:
            return self.snapshot(spec)
        self._refuse_foreign(spec, around)
        return self._downloads.resume(spec)

    def cancel(self, spec: ModelSpec) -> Download:
        """Give a download up, with what has arrived.

        Raises:
            DownloadInUse: a task needs it, or a command line runs it.
            DownloadNotFound, StateConflict, StoreUnavailable, StorageFull: as `pause`.
        """
        around = self._around(spec)
        if around.needing:
            raise DownloadInUse(
                f"{_tasks(around)} {spec.id}, so its download is not given up",
                suggestions=(
                    "Cancel these tasks: the download ends with them, and what has arrived is kept.",
                    "Or pause the download.",
                ),
            )
        if not self._own(spec) and around.order is not None:
            self._orders.remove(spec.id)
            discard_unfinished(self._home, spec)
            return Download(spec, DownloadState.CANCELLED, around.order.urgency, around.order.number, utcnow())
        self._refuse_foreign(spec, around)
        return self._downloads.cancel(spec)

    def prioritise(self, spec: ModelSpec, urgency: Urgency) -> Download:
        """Change when a waiting download gets its turn.

        Raises:
            DownloadInUse: it runs for a task, or a command line runs it.
            DownloadNotFound, StateConflict, StoreUnavailable, StorageFull: as `pause`.
        """
        around = self._around(spec)
        if not self._own(spec) and around.needing:
            raise DownloadInUse(
                f"{_tasks(around)} {spec.id}, and it is fetched when it is their turn",
                suggestions=("The order of the tasks decides; give a task a higher priority when it is submitted.",),
            )
        self._refuse_foreign(spec, around)
        return self._downloads.prioritise(spec, urgency)

    def _around(self, spec: ModelSpec) -> _Around:
        return _Around(self._orders.get(spec.id), tuple(self._tasks.needing(spec.id)))

    def _own(self, spec: ModelSpec) -> bool:
        """Whether it is in this server's list and has not ended."""
        own = self._downloads.get(spec)
        return own is not None and own.state not in ENDED

    def _seen(self, spec: ModelSpec, around: _Around) -> Download | None:
        own, needed = self._downloads.get(spec), bool(around.needing)
        if own is not None:
            own = replace(own, needed=needed)
        if self._downloads.is_at(spec):
            return own
        going, progress = _IN_FOLDER.get(self._models.state(spec).presence), read_status(self._partial(spec))
        if going is not None and progress is not None:
            if own is not None and own.state not in ENDED:
                # In our list too: what can be done with it is what can be done with our order.
                return replace(own, state=own.state if around.held else going, progress=progress)
            # A worker hands a task back at once, and lets go of the folder when the line says its next word.
            runner = Runner.TASK if around.fetched_for_task or (around.held and needed) else Runner.OTHER
            state = DownloadState.PAUSED if around.held and runner is Runner.TASK else going
            return Download(spec, state, Urgency.MEDIUM, 0, utcnow(), progress, runner=runner, needed=needed)
        if (own is not None and own.state not in ENDED) or not (around.held or around.fetched_for_task):
            return own
        state = DownloadState.PAUSED if around.held else DownloadState.DOWNLOADING
        runner = Runner.TASK if needed else Runner.SERVER
        return Download(spec, state, Urgency.MEDIUM, 0, utcnow(), progress, runner=runner, needed=needed)

    def _partial(self, spec: ModelSpec) -> Path:
        return self._home.partial_model_of(spec.id)

    def _refuse_foreign(self, spec: ModelSpec, around: _Around) -> None:
        """Refuse to change what a command line runs; its process hears of nothing."""
        if self._own(spec):
            return
        seen = self._seen(spec, around)
        if seen is not None and seen.runner is Runner.OTHER:
            raise DownloadInUse(
                f"{spec.id} is being fetched by a command on this machine",
                suggestions=("Stop that command (Ctrl-C); what has arrived is kept.",),
            )


def _tasks(around: _Around) -> str:
    count = len(around.needing)
    return "A task needs" if count == 1 else f"{count} tasks need"
