"""Brings a task's model here before the task needs it, and says how far that is; gives up when that is paused.

The bytes move in a thread of their own, so that a task that is to stop does so within a second even where the line
has gone quiet. Knows neither the hub nor the database: the bridge fetches, and the report hears.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

import structlog

from backend.core.domain import DownloadPhase, DownloadProgress, Phase, Stage
from backend.core.errors import DownloadPaused, DownloadStopped, StoreFailed
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.requests import GenerationRequest
from backend.services.downloads.state import waits_for_resume
from backend.services.run.clock import DOWNLOAD_PARTS
from backend.services.run.report import RunReport

#: How often the world is told, and asked whether the task is to stop or the download is paused.
TELL_SECONDS: Final = 1.0
#: How long a thread that was told to stop is waited for; one that hangs on a quiet line ends when the line does.
_LET_GO_SECONDS: Final = 0.5
_GB: Final = 1e9

log = structlog.get_logger(__name__)

#: Asked once how many bytes a model has, before the first one is fetched; raises DoesNotFit.
Admit = Callable[[GenerationRequest, int], None]
#: Asked whether somebody paused the download of a model; StoreUnavailable and StorageFull mean that nobody knows.
Paused = Callable[[str], bool]


def never_paused(_model: str) -> bool:
    """Say that nobody can pause anything."""
    return False


class ModelFetch:
    """One wait for the model of one request."""

    def __init__(
        self,
        bridge: ModelIntegrationBridge[Any],
        request: GenerationRequest,
        report: RunReport,
        admit: Admit,
        paused: Paused = never_paused,
    ) -> None:
        self._bridge = bridge
        self._request = request
        self._report = report
        self._admit = admit
        self._paused = paused
        self._admitted = False
        self._seen: DownloadProgress | None = None
        self._told_parts = 0

    def run(self) -> None:
        """Return when the model is here and verified.

        Raises:
            Interrupted: the report asked to stop; as DownloadPaused: somebody paused it. What has arrived is kept.
            DoesNotFit: the machine could not run it; nothing was fetched.
            WanError: the fetch failed, as its error says.
        """
        self._stop_where_paused()
        self._report.begin(Phase.DOWNLOAD, f"Fetching {self._request.model}")
        fetch = _Fetch(self._ensure)
        try:
            while not fetch.ended(TELL_SECONDS):
                self._tell()
                self._stop_where_paused()
        finally:
            fetch.stop()
        if self._seen is not None:
            self._tell()

    # --- in the task's thread ----------------------------------------------------------------------------

    def _stop_where_paused(self) -> None:
        try:
            paused = self._paused(self._request.model)
        except StoreFailed as error:
            # Nobody knows whether it is paused, so it goes on.
            log.warning("model_fetch.orders_not_read", error=error.code)
            return
        if paused:
            raise DownloadPaused(waits_for_resume(self._request.model))

    def _tell(self) -> None:
        seen = self._seen
        if seen is None:
            self._report.update(Stage.DOWNLOADING_MODEL, f"Asking the hub for {self._request.model}")
            return
        clock = self._report.clock
        if seen.total_bytes:
            parts = DOWNLOAD_PARTS * seen.done_bytes // seen.total_bytes
            clock.advance(max(0, parts - self._told_parts))
            self._told_parts = max(parts, self._told_parts)
        clock.expect(seen.eta_seconds)
        self._report.update(Stage.DOWNLOADING_MODEL, _in_words(self._request.model, seen), seen)

    # --- in the thread of a fetch ------------------------------------------------------------------------

    def _ensure(self, check: Callable[[], None]) -> None:
        self._bridge.ensure(self._request.model, check=check, on_progress=self._note)

    def _note(self, progress: DownloadProgress) -> None:
        self._seen = progress
        if progress.total_bytes is not None and not self._admitted:
            self._admitted = True
            self._admit(self._request, progress.total_bytes)


class _Fetch:
    """One thread that fetches until it is done or told to stop."""

    def __init__(self, ensure: Callable[[Callable[[], None]], None]) -> None:
        self._ensure = ensure
        self._stopped = threading.Event()
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="model-fetch", daemon=True)
        self._thread.start()

    def ended(self, seconds: float) -> bool:
        """Wait so long for the end; raise what it ended with, if that was no success."""
        if not self._done.wait(seconds):
            return False
        if self._error is not None:
            raise self._error
        return True

    def stop(self) -> None:
        """Let go of the line and of the folder, at the next byte at the latest."""
        self._stopped.set()
        self._thread.join(_LET_GO_SECONDS)

    def _run(self) -> None:
        try:
            self._ensure(self._check)
        except BaseException as error:  # the boundary of the thread; `ended` raises it where it is expected
            self._error = error
        finally:
            self._done.set()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise DownloadStopped


def _in_words(model: str, progress: DownloadProgress) -> str:
    what = {
        DownloadPhase.WAITING: f"Waiting for {model}, which somebody else fetches",
        DownloadPhase.VERIFYING: f"Verifying the files of {model}",
    }.get(progress.phase, f"Downloading {model}")
    figures = f"{progress.done_bytes / _GB:.2f}"
    if progress.total_bytes is not None:
        figures += f" of {progress.total_bytes / _GB:.2f}"
    speed = f", {progress.speed / 1e6:.1f} MB/s" if progress.speed else ""
    left = "" if progress.eta_seconds is None else f", about {progress.eta_seconds / 60:.0f} min left"
    return f"{what}: {figures} GB{speed}{left}"
