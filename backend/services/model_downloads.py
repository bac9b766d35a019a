"""The downloads that people asked this server for: started, paused, continued, cancelled, one after the other.

What has arrived lies on the disk and outlives this process; the list of wishes does not. Fetches nothing itself
(`models.downloader`), and does not decide which models there are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import structlog

from backend.core.domain import utcnow
from backend.core.errors import DownloadNotFound, DownloadStopped, StateConflict, WanError
from backend.core.model_table import ModelSpec
from backend.core.paths import Home
from backend.models.download_progress import DownloadProgress, OnProgress, Phase
from backend.models.manager import ModelManager
from backend.models.removal import discard_unfinished

log = structlog.get_logger(__name__)


class Urgency(StrEnum):
    """Which download goes first; within one urgency the oldest does."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class DownloadState(StrEnum):
    """Where a download stands."""

    QUEUED = "queued"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


RUNNING: Final = frozenset({DownloadState.DOWNLOADING, DownloadState.VERIFYING})
_ENDED: Final = frozenset({DownloadState.COMPLETED, DownloadState.FAILED, DownloadState.CANCELLED})
_ORDER: Final = {urgency: rank for rank, urgency in enumerate(Urgency)}


@dataclass(frozen=True, slots=True)
class Download:
    """One download as it is now."""

    spec: ModelSpec
    state: DownloadState
    urgency: Urgency
    number: int  #: order of arrival
    updated_at: datetime
    progress: DownloadProgress | None = None
    error: WanError | None = None


class Fetcher(Protocol):
    """Who fetches (`models.downloader.ModelDownloader`)."""

    def download(self, spec: ModelSpec, *, check: Callable[[], None], on_progress: OnProgress) -> Path:
        """Bring the model here; `check` raises to stop."""


#: Makes a fetcher that keeps below so many bytes per second; None = as fast as it goes.
MakeFetcher = Callable[[float | None], Fetcher]
#: Told the state before and the download after each change and, now and then, of its progress.
OnChange = Callable[[DownloadState | None, Download], None]


class ModelDownloads:
    """A list of wishes and the one thread that fulfils them. Any thread may call."""

    def __init__(self, make_fetcher: MakeFetcher, discard: Callable[[ModelSpec], None]) -> None:
        """Take who fetches, and who throws the unfinished files of a cancelled download away."""
        self._make_fetcher = make_fetcher
        self._discard = discard
        self._changed = threading.Condition()
        self._downloads: dict[str, Download] = {}
        self._limit: float | None = None
        self._arrivals = 0
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.on_change: OnChange = lambda _before, _download: None

    def start(self, spec: ModelSpec) -> Download:
        """Ask for a model; one that is asked for already, or waits, is not asked for twice. A paused one goes on."""
        with self._changed:
            known = self._downloads.get(spec.id)
            if known is not None and known.state not in _ENDED:
                return self._set(known, DownloadState.QUEUED) if known.state is DownloadState.PAUSED else known
            self._arrivals += 1
            fresh = Download(spec, DownloadState.QUEUED, Urgency.MEDIUM, self._arrivals, utcnow())
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="downloads", daemon=True)
                self._thread.start()
            return self._set(fresh, DownloadState.QUEUED)

    def pause(self, spec: ModelSpec) -> Download:
        """Stop for now; what has arrived is kept.

        Raises:
            DownloadNotFound, StateConflict: nobody asked for this model; it has ended.
        """
        return self._move(spec, DownloadState.PAUSED)

    def resume(self, spec: ModelSpec) -> Download:
        """Go on with a paused download. Raises like `pause`."""
        with self._changed:
            return self.start(self._active(spec).spec)

    def cancel(self, spec: ModelSpec) -> Download:
        """Give a download up and throw away what has arrived. Raises like `pause`."""
        return self._move(spec, DownloadState.CANCELLED)

    def prioritise(self, spec: ModelSpec, urgency: Urgency) -> Download:
        """Change when a waiting download gets its turn. Raises like `pause`."""
        with self._changed:
            return self._put(replace(self._active(spec), urgency=urgency))

    def limit(self, bytes_per_second: float | None) -> None:
        """Keep all downloads below a rate from now on; None takes the limit away."""
        with self._changed:
            self._limit = bytes_per_second
            self._changed.notify_all()

    def get(self, spec: ModelSpec) -> Download | None:
        """Return the download of a model, also one that has ended; None when nobody asked for it."""
        with self._changed:
            return self._downloads.get(spec.id)

    def all(self) -> list[Download]:
        """Return every download since this process started, in the order of arrival."""
        with self._changed:
            return sorted(self._downloads.values(), key=lambda download: download.number)

    def stop(self) -> None:
        """Stop what runs, keep what has arrived, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()

    # --- under the lock ----------------------------------------------------------------------------------

    def _active(self, spec: ModelSpec) -> Download:
        known = self._downloads.get(spec.id)
        if known is None:
            raise DownloadNotFound
        if known.state in _ENDED:
            raise StateConflict(f"The download of {spec.id} has ended: {known.state}")
        return known

    def _move(self, spec: ModelSpec, state: DownloadState) -> Download:
        with self._changed:
            known = self._active(spec)
            moved = self._set(known, state)
        if state is DownloadState.CANCELLED and known.state not in RUNNING:
            self._discard(spec)  # the thread does it for one that runs
        return moved

    def _set(self, download: Download, state: DownloadState, error: WanError | None = None) -> Download:
        return self._put(replace(download, state=state, error=error))

    def _put(self, download: Download) -> Download:
        before = self._downloads.get(download.spec.id)
        download = replace(download, updated_at=utcnow())
        self._downloads[download.spec.id] = download
        self._changed.notify_all()
        self.on_change(None if before is None else before.state, download)
        return download

    # --- the thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (download := self._next()) is not None:
            self._fetch(download.spec)

    def _next(self) -> Download | None:
        """Wait for the download whose turn it is, and mark it as running; None when everything stops."""
        with self._changed:
            while not self._stopping:
                waiting = [one for one in self._downloads.values() if one.state is DownloadState.QUEUED]
                if waiting:
                    first = min(waiting, key=lambda one: (_ORDER[one.urgency], one.number))
                    return self._set(first, DownloadState.DOWNLOADING)
                self._changed.wait()
        return None

    def _fetch(self, spec: ModelSpec) -> None:
        with self._changed:
            limit = self._limit

        def check() -> None:
            with self._changed:
                if self._stopping or self._downloads[spec.id].state not in RUNNING or self._limit != limit:
                    raise DownloadStopped

        def on_progress(progress: DownloadProgress) -> None:
            state = DownloadState.VERIFYING if progress.phase is Phase.VERIFYING else DownloadState.DOWNLOADING
            with self._changed:
                now = self._downloads[spec.id]
                if now.state in RUNNING:
                    self._put(replace(now, state=state, progress=progress))

        try:
            self._make_fetcher(limit).download(spec, check=check, on_progress=on_progress)
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

    def _stopped(self, spec: ModelSpec) -> None:
        with self._changed:
            now = self._downloads[spec.id]
            if now.state in RUNNING and not self._stopping:
                self._set(now, DownloadState.QUEUED)  # another limit: it goes on with that at once
        if now.state is DownloadState.CANCELLED:
            self._discard(spec)

    def _end(self, spec: ModelSpec, state: DownloadState, error: WanError | None = None) -> None:
        with self._changed:
            self._set(self._downloads[spec.id], state, error)


def downloads_into(home: Home, manager: ModelManager, roots: Iterable[Path] = ()) -> ModelDownloads:
    """Return the downloads of a home folder. The hub's library is imported by the first of them, not before.

    What the Hugging Face cache and the folders `roots` have of a model is linked instead of fetched.
    """

    def make_fetcher(limit: float | None) -> Fetcher:
        from backend.models.downloader import ModelDownloader
        from backend.models.hub import Hub
        from backend.models.local_files import LocalFiles, hugging_face_cache

        local = LocalFiles(roots, hugging_face_cache())
        return ModelDownloader(home, manager, Hub(), bytes_per_second=limit, local=local)

    return ModelDownloads(make_fetcher, partial(discard_unfinished, home))
