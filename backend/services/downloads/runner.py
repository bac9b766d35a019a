"""The downloads that this process knows of, each as it is now, and who hears of every change.

Decides nothing, starts nothing, and knows neither the database nor the line.

The downloads that people asked this server for: started, paused, continued, cancelled, one after the other.

The bytes lie on the disk and the orders in the database: both outlive this process. Fetches nothing itself
(`models.downloader`), and does not decide which models there are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

import structlog

from backend.core.catalogue.table import ModelSpec, models_in_force
from backend.core.domain import DownloadPhase, DownloadProgress, OnProgress, utcnow
from backend.core.errors import (
    DownloadNotFound,
    DownloadStopped,
    StateConflict,
    StoreFailed,
    WanError,
)
from backend.core.paths import Home
from backend.models.download.retries import PATIENT
from backend.models.folder.manager import ModelManager
from backend.models.folder.storage import discard_unfinished
from backend.services.downloads.state import ENDED, RUNNING, Download, DownloadState, orders_in_force
from backend.store.download_orders import DownloadOrders, Order, Urgency

_ORDER: Final = {urgency: rank for rank, urgency in enumerate(Urgency)}

#: Told the state before and the download after each change and, now and then, of its progress.
OnChange = Callable[[DownloadState | None, Download], None]


#: How often a running or paused download looks whether another process has changed its order.
LOOK_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class DownloadList:
    """One download for each model. Any thread may call; within `changed` the list stands still."""

    def __init__(self) -> None:
        self.changed = threading.Condition()  #: notified at every change
        self.on_change: OnChange = lambda _before, _download: None
        self._downloads: dict[str, Download] = {}

    def get(self, spec: ModelSpec) -> Download | None:
        """Return the download of a model, also one that has ended; None when nobody asked for it."""
        with self.changed:
            return self._downloads.get(spec.id)

    def active(self, spec: ModelSpec) -> Download:
        """Return the download of a model that has not ended.

        Raises:
            DownloadNotFound, StateConflict: nobody asked for this model; it has ended.
        """
        known = self.get(spec)
        if known is None:
            raise DownloadNotFound
        if known.state in ENDED:
            raise StateConflict(f"The download of {spec.id} has ended: {known.state}")
        return known

    def all_active(self) -> list[Download]:
        """Return the downloads that have not ended."""
        with self.changed:
            return [one for one in self._downloads.values() if one.state not in ENDED]

    def next_waiting(self) -> Download | None:
        """Return the download whose turn it is: the most urgent one, and of these the oldest."""
        waiting = [one for one in self.all_active() if one.state is DownloadState.QUEUED]
        return min(waiting, key=lambda one: (_ORDER[one.urgency], one.number), default=None)

    def move(self, spec: ModelSpec, state: DownloadState) -> Download:
        """Change the state of a download that has not ended. Raises like `active`."""
        with self.changed:
            return self.set(self.active(spec), state)

    def set(self, download: Download, state: DownloadState, error: WanError | None = None) -> Download:
        """Put a download in with another state, and what it failed with."""
        return self.put(replace(download, state=state, error=error))

    def put(self, download: Download) -> Download:
        """Put a download in the place of what was known of its model, and tell."""
        with self.changed:
            before = self._downloads.get(download.spec.id)
            download = replace(download, updated_at=utcnow())
            self._downloads[download.spec.id] = download
            self.changed.notify_all()
            self.on_change(None if before is None else before.state, download)
            return download


class Fetcher(Protocol):
    """Who fetches (`models.downloader.ModelDownloader`)."""

    def download(self, spec: ModelSpec, *, check: Callable[[], None], on_progress: OnProgress) -> Path:
        """Bring the model here; `check` raises to stop."""


#: Makes a fetcher; told whether it is to wait long for a hub that does not answer.
MakeFetcher = Callable[[bool], Fetcher]


class ModelDownloads:
    """The orders of a database as this process carries them out, with one thread. Any thread may call.

    The database has the orders, and this process what became of them: progress, errors, ends.
    """

    def __init__(self, make_fetcher: MakeFetcher, home: Home, models: ModelManager, orders: DownloadOrders) -> None:
        self._make_fetcher = make_fetcher
        self._home = home
        self._models = models
        self._orders = orders
        self._ordering = threading.Lock()  # taken before the list's own: an order is the same here and in the database
        self._list = DownloadList()
        self._restored: set[str] = set()  # models whose download goes on though nobody is there to ask again
        self._look_at = 0.0
        self._stopping = False
        self._at: str | None = None  # the model that the thread works on, until it has let go of its files
        self._thread: threading.Thread | None = None

    def subscribe(self, on_change: OnChange) -> None:
        """Tell every change from now on."""
        self._list.on_change = on_change

    def restore(self) -> None:
        """Take up the orders that are in the database: the wanted ones go on in their order, the paused ones wait.

        One for a model that the table does not have stays in the database. After a power cut the network may come back
        later than this machine, so these wait longer for the hub than what somebody asks for now.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        with self._ordering:
            for order in self._orders.list():
                spec = models_in_force().get(order.model)
                if order.wished and spec is not None and not self._is_active(spec):
                    self._restored.add(spec.id)
                    self._enter(spec, order)
            self._start_thread()  # without an order, too: it strikes pauses that have no purpose any more

    def start(self, spec: ModelSpec) -> Download:
        """Ask for a model; one that is asked for already, or waits, is not asked for twice. A paused one goes on.

        Raises:
            StoreUnavailable, StorageFull: the order could not be written down; nothing was started.
        """
        with self._ordering:
            order = self._orders.want(spec.id)
            with self._list.changed:
                if not self._is_active(spec):
                    self._restored.discard(spec.id)
                    return self._enter(spec, order)
                known = self._list.active(spec)
                return self._list.set(known, DownloadState.QUEUED) if known.state is DownloadState.PAUSED else known

    def pause(self, spec: ModelSpec) -> Download:
        """Stop for now; what has arrived is kept.

        Raises:
            DownloadNotFound, StateConflict: nobody asked for this model; it has ended.
            StoreUnavailable, StorageFull: the order could not be changed; all is as it was.
        """
        with self._ordering:
            self._list.active(spec)
            self._orders.pause(spec.id, wished=True)
            return self._list.move(spec, DownloadState.PAUSED)

    def resume(self, spec: ModelSpec) -> Download:
        """Go on with a paused download. Raises like `pause`."""
        return self.start(self._list.active(spec).spec)

    def cancel(self, spec: ModelSpec) -> Download:
        """Give a download up and throw away what has arrived. Raises like `pause`."""
        with self._ordering:
            running = self._list.active(spec).state in RUNNING
            self._orders.remove(spec.id)
            moved = self._list.move(spec, DownloadState.CANCELLED)
        if not running:
            discard_unfinished(self._home, spec)  # the thread does it for one that runs
        return moved

    def prioritise(self, spec: ModelSpec, urgency: Urgency) -> Download:
        """Change when a waiting download gets its turn. Raises like `pause`."""
        with self._ordering:
            self._list.active(spec)
            self._orders.rank(spec.id, urgency)
            with self._list.changed:
                return self._list.put(replace(self._list.active(spec), urgency=urgency))

    def get(self, spec: ModelSpec) -> Download | None:
        """Return the download of a model, also one that has ended; None when nobody asked for it."""
        return self._list.get(spec)

    def is_at(self, spec: ModelSpec) -> bool:
        """Whether this process has the model's files in its hands: also of a paused download for a moment."""
        with self._list.changed:
            return self._at == spec.id

    def stop(self) -> None:
        """Stop what runs, keep what has arrived and what is ordered, and end the thread."""
        with self._list.changed:
            self._stopping = True
            self._list.changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _is_active(self, spec: ModelSpec) -> bool:
        known = self._list.get(spec)
        return known is not None and known.state not in ENDED

    def _enter(self, spec: ModelSpec, order: Order) -> Download:
        """Take an order up."""
        state = DownloadState.PAUSED if order.paused else DownloadState.QUEUED
        entered = Download(spec, state, order.urgency, order.number, utcnow(), needed=order.needed)
        self._start_thread()
        return self._list.put(entered)

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="downloads", daemon=True)
            self._thread.start()

    # --- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (download := self._next()) is not None:
            self._fetch(download.spec)
            with self._list.changed:
                self._at = None

    def _next(self) -> Download | None:
        """Wait for the download whose turn it is, and mark it as running; None when everything stops."""
        while True:
            self._follow()
            with self._list.changed:
                if self._stopping:
                    return None
                first = self._list.next_waiting()
                if first is not None:
                    self._at = first.spec.id
                    return self._list.set(first, DownloadState.DOWNLOADING)
                # Another process may resume a download, or complete the model of a paused one.
                self._list.changed.wait(LOOK_SECONDS)

    def _follow(self) -> None:
        """Look now and then whether another process of this database has paused, resumed or ranked something.

        A database that does not answer is no news, and is asked less often: asking it delays the bytes. An order
        that is gone there was carried out by another process, or given up there; a download that runs here continues,
        and a paused one ends when its model is complete.
        """
        if time.monotonic() < self._look_at:
            return
        began = time.monotonic()
        with self._ordering:
            try:
                orders = {order.model: order for order in orders_in_force(self._orders, self._models)}
            except StoreFailed as error:
                log.warning("download.orders_not_read", error=error.code)
                orders = {}
            with self._list.changed:
                for known in self._list.all_active():
                    if known.spec.id in orders:
                        self._take_over(known, orders[known.spec.id])
                    elif known.state is DownloadState.PAUSED and self._models.complete(known.spec):
                        self._list.set(known, DownloadState.COMPLETED)
        took = time.monotonic() - began
        self._look_at = time.monotonic() + max(LOOK_SECONDS, 10 * took)

    def _take_over(self, known: Download, order: Order) -> None:
        state = known.state
        if order.paused:
            state = DownloadState.PAUSED
        elif state is DownloadState.PAUSED:
            state = DownloadState.QUEUED
        now = replace(known, state=state, urgency=order.urgency, needed=order.needed)
        if now != known:
            self._list.put(now)

    def _fetch(self, spec: ModelSpec) -> None:
        def check() -> None:
            self._follow()
            with self._list.changed:
                if self._stopping or not self._runs(spec):
                    raise DownloadStopped

        def on_progress(progress: DownloadProgress) -> None:
            state = DownloadState.VERIFYING if progress.phase is DownloadPhase.VERIFYING else DownloadState.DOWNLOADING
            with self._list.changed:
                if self._runs(spec):
                    self._list.put(replace(self._list.active(spec), state=state, progress=progress))

        try:
            self._make_fetcher(spec.id in self._restored).download(spec, check=check, on_progress=on_progress)
        except DownloadStopped:
            self._stopped(spec)
        except WanError as error:
            log.warning("download.failed", model=spec.id, error=error.code)
            self._end(spec, DownloadState.FAILED, error)
        except Exception as error:  # the boundary of a thread that must live as long as the process
            log.exception("download.crashed", model=spec.id)
            self._end(spec, DownloadState.FAILED, WanError(f"The download failed: {type(error).__name__}"))
        else:
            self._end(spec, DownloadState.COMPLETED)

    def _runs(self, spec: ModelSpec) -> bool:
        now = self._list.get(spec)
        return now is not None and now.state in RUNNING

    def _stopped(self, spec: ModelSpec) -> None:
        now = self._list.get(spec)
        if now is not None and now.state is DownloadState.CANCELLED:
            discard_unfinished(self._home, spec)

    def _end(self, spec: ModelSpec, state: DownloadState, error: WanError | None = None) -> None:
        with self._ordering:
            try:
                self._orders.remove(spec.id)
            except StoreFailed as failure:
                # The next start finds the order: it ends at once where the model is here, and is tried again where not.
                log.warning("download.order_not_removed", model=spec.id, error=failure.code)
            with self._list.changed:
                now = self._list.get(spec)
                if now is not None:
                    self._list.set(now, state, error)


def downloads_into(
    home: Home, manager: ModelManager, orders: DownloadOrders, roots: Iterable[Path] = ()
) -> ModelDownloads:
    """Return the downloads of a home folder. The hub's library is imported by the first of them, not before.

    What the Hugging Face cache and the folders `roots` have of a model is linked instead of fetched.
    """

    def make_fetcher(patient: bool) -> Fetcher:
        from backend.models.download.downloader import downloader_into

        return downloader_into(home, manager, roots, policy=PATIENT if patient else None)

    return ModelDownloads(make_fetcher, home, manager, orders)
