"""The downloads that this server carries out, one after the other, on one thread.

The bytes are on the disk and the orders in the database, so both outlive the process; progress, errors and ends are
kept here. Other parts change an order in the database first (`control`); this module follows the orders.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

import structlog

from backend.core.catalogue.table import ModelSpec, models_in_force
from backend.core.domain import DownloadPhase, DownloadProgress, OnProgress, utcnow
from backend.core.errors.base import WanError
from backend.core.errors.interruptions import DownloadStopped
from backend.core.errors.lookups import DownloadNotFound, StateConflict
from backend.core.errors.surroundings import StoreFailed
from backend.core.paths import Home
from backend.models.download.retries import PATIENT
from backend.models.folder.manager import ModelManager
from backend.models.folder.storage import discard_unfinished
from backend.services.downloads.state import ENDED, RUNNING, Download, DownloadState, orders_in_force
from backend.store.download_orders import DownloadOrders, Order, Urgency

_ORDER: Final = {urgency: rank for rank, urgency in enumerate(Urgency)}

#: Receives the download before and after each change and, now and then, of its progress.
OnChange = Callable[[Download | None, Download], None]

#: Interval between two reads of the orders, which another process may have changed, in seconds.
POLL_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Fetcher(Protocol):
    """Downloads a model (`models.download.downloader.ModelDownloader`)."""

    def download(self, spec: ModelSpec, *, check: Callable[[], None], on_progress: OnProgress) -> Path:
        """Download the model; `check` raises to stop."""


#: Makes a fetcher; the argument is whether it waits long for a hub that does not answer.
MakeFetcher = Callable[[bool], Fetcher]


class ModelDownloads:
    """One download for each model that was ordered from this server. Any thread may call."""

    def __init__(self, make_fetcher: MakeFetcher, home: Home, models: ModelManager, orders: DownloadOrders) -> None:
        self._make_fetcher = make_fetcher
        self._home = home
        self._models = models
        self._orders = orders
        #: Hold it from the change of an order in the database to its change here, so that the two always agree.
        self.ordering = threading.RLock()  # taken before `_changed`
        self._changed = threading.Condition()  # notified at every change
        self._on_change: OnChange = lambda _before, _download: None
        self._downloads: dict[str, Download] = {}
        self._patient: set[str] = set()  # models whose download waits long for the hub
        self._poll_at = 0.0
        self._stopping = False
        self._at: str | None = None  # the model whose files the thread is working on
        self._thread: threading.Thread | None = None

    def subscribe(self, on_change: OnChange) -> None:
        """Call `on_change` at every change from now on."""
        self._on_change = on_change

    def restore(self) -> None:
        """Start the thread, and take up the orders in the database: wanted ones continue, paused ones wait.

        An order for a model that is not in the table stays in the database. After a power cut the network may return
        later than this machine, so these downloads wait longer for the hub than new ones.

        Raises:
            StoreUnavailable: the database cannot be read.
        """
        with self.ordering:
            for order in self._orders.list():
                spec = models_in_force().get(order.model)
                if order.wished and spec is not None:
                    self.obey(spec, order, patient=True)
            self._start_thread()  # without orders, too: it strikes pauses that have become pointless

    def obey(self, spec: ModelSpec, order: Order, *, patient: bool = False) -> Download:
        """Take up an order, or what has changed in one that was taken up before.

        A `patient` download waits long for a hub that does not answer.
        """
        with self._changed:
            known = self.get(spec)
            if known is None or known.state in ENDED:
                state = DownloadState.PAUSED if order.paused else DownloadState.QUEUED
                (self._patient.add if patient else self._patient.discard)(spec.id)
                self._start_thread()
                return self._put(Download(spec, state, order.urgency, order.number, utcnow(), needed=order.needed))
            state = known.state
            if order.paused:
                state = DownloadState.PAUSED
            elif state is DownloadState.PAUSED:
                state = DownloadState.QUEUED
            now = replace(known, state=state, urgency=order.urgency, needed=order.needed)
            return known if now == known else self._put(now)

    def change(self, spec: ModelSpec, **changes: Any) -> Download:
        """Replace fields of a download that has not ended. Raises like `active`."""
        with self._changed:
            return self._put(replace(self.active(spec), **changes))

    def get(self, spec: ModelSpec) -> Download | None:
        """Return the download of a model, also one that has ended; None when it was not ordered from this server."""
        with self._changed:
            return self._downloads.get(spec.id)

    def active(self, spec: ModelSpec) -> Download:
        """Return the download of a model that has not ended.

        Raises:
            DownloadNotFound, StateConflict: it was not ordered from this server; it has ended.
        """
        known = self.get(spec)
        if known is None:
            raise DownloadNotFound
        if known.state in ENDED:
            raise StateConflict(f"The download of {spec.id} has ended: {known.state}")
        return known

    def waiting(self) -> list[Download]:
        """Return the downloads that wait for their turn, the next one first."""
        waiting = [one for one in self._all_active() if one.state is DownloadState.QUEUED]
        return sorted(waiting, key=lambda one: (_ORDER[one.urgency], one.number))

    def is_at(self, spec: ModelSpec) -> bool:
        """Whether the thread is using the model's files; true for a moment after a pause, too."""
        with self._changed:
            return self._at == spec.id

    def stop(self) -> None:
        """Stop the running download and end the thread; the bytes and the orders stay."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _put(self, download: Download) -> Download:
        with self._changed:
            before = self._downloads.get(download.spec.id)
            download = replace(download, updated_at=utcnow())
            self._downloads[download.spec.id] = download
            self._changed.notify_all()
            self._on_change(before, download)
            return download

    def _all_active(self) -> list[Download]:
        with self._changed:
            return [one for one in self._downloads.values() if one.state not in ENDED]

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="downloads", daemon=True)
            self._thread.start()

    # --- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (download := self._next()) is not None:
            self._fetch(download.spec)
            with self._changed:
                self._at = None

    def _next(self) -> Download | None:
        """Wait for a queued download, and mark the most urgent, oldest one as running; None when everything stops."""
        while True:
            self._follow()
            with self._changed:
                if self._stopping:
                    return None
                first = next(iter(self.waiting()), None)
                if first is not None:
                    self._at = first.spec.id
                    return self._put(replace(first, state=DownloadState.DOWNLOADING))
                self._changed.wait(POLL_SECONDS)

    def _follow(self) -> None:
        """Obey what another process has changed in the orders, at most once in `POLL_SECONDS`.

        A database that does not answer changes nothing, and is asked less often: asking it delays the bytes. An order
        that is gone there was carried out by another process, or given up there; a download that runs here continues,
        and a paused one ends when its model is complete.
        """
        if time.monotonic() < self._poll_at:
            return
        began = time.monotonic()
        with self.ordering:
            try:
                orders = {order.model: order for order in orders_in_force(self._orders, self._models)}
            except StoreFailed as error:
                log.warning("download.orders_not_read", error=error.code)
            else:
                for known in self._all_active():
                    if known.spec.id in orders:
                        self.obey(known.spec, orders[known.spec.id])
                    elif known.state is DownloadState.PAUSED and self._models.complete(known.spec):
                        self._put(replace(known, state=DownloadState.COMPLETED))
        took = time.monotonic() - began
        self._poll_at = time.monotonic() + max(POLL_SECONDS, 10 * took)

    def _fetch(self, spec: ModelSpec) -> None:
        def check() -> None:
            self._follow()
            with self._changed:
                if self._stopping or not self._runs(spec):
                    raise DownloadStopped

        def on_progress(progress: DownloadProgress) -> None:
            state = DownloadState.VERIFYING if progress.phase is DownloadPhase.VERIFYING else DownloadState.DOWNLOADING
            with self._changed:
                if self._runs(spec):
                    self.change(spec, state=state, progress=progress)

        try:
            self._make_fetcher(spec.id in self._patient).download(spec, check=check, on_progress=on_progress)
        except DownloadStopped:
            now = self.get(spec)
            if now is not None and now.state is DownloadState.CANCELLED:
                discard_unfinished(self._home, spec)
        except WanError as error:
            log.warning("download.failed", model=spec.id, error=error.code)
            self._end(spec, DownloadState.FAILED, error)
        except Exception as error:  # the boundary of a thread that must live as long as the process
            log.exception("download.crashed", model=spec.id)
            self._end(spec, DownloadState.FAILED, WanError(f"The download failed: {type(error).__name__}"))
        else:
            self._end(spec, DownloadState.COMPLETED)

    def _runs(self, spec: ModelSpec) -> bool:
        now = self.get(spec)
        return now is not None and now.state in RUNNING

    def _end(self, spec: ModelSpec, state: DownloadState, error: WanError | None = None) -> None:
        with self.ordering:
            try:
                self._orders.remove(spec.id)
            except StoreFailed as failure:
                # The next start finds the order: a complete model ends it at once, anything else is tried again.
                log.warning("download.order_not_removed", model=spec.id, error=failure.code)
            with self._changed:
                self._put(replace(self._downloads[spec.id], state=state, error=error))


def downloads_into(
    home: Home, manager: ModelManager, orders: DownloadOrders, roots: Iterable[Path] = ()
) -> ModelDownloads:
    """Return the downloads of a home folder; the hub's library is imported by the first download.

    Files that the Hugging Face cache or the folders `roots` have of a model are linked instead of downloaded.
    """

    def make_fetcher(patient: bool) -> Fetcher:
        from backend.models.download.downloader import downloader_into

        return downloader_into(home, manager, roots, policy=PATIENT if patient else None)

    return ModelDownloads(make_fetcher, home, manager, orders)
