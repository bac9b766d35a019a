"""Downloads a task's model before the task needs it, and reports the progress; stops when the download is paused.

The download runs in a separate thread, so that a task stops within a second even when the connection is silent. Knows
neither the hub nor the database: the bridge downloads, and the report publishes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

import structlog

from backend.core.domain import DownloadPhase, DownloadProgress, Phase, Stage
from backend.core.errors.interruptions import DownloadPaused, DownloadStopped
from backend.core.errors.surroundings import StoreFailed
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.requests.forms import GenerationRequest
from backend.services.downloads.state import waits_for_resume
from backend.services.run.clock import DOWNLOAD_PARTS
from backend.services.run.report import RunReport

#: Interval between progress reports, each with a check whether the task stops or the download is paused, in seconds.
REPORT_SECONDS: Final = 1.0
#: Longest wait for the thread to stop, in seconds; one that hangs on a silent connection ends with the connection.
_STOP_SECONDS: Final = 0.5
_GB: Final = 1e9

log = structlog.get_logger(__name__)

#: Receives the size of a model in bytes, once, before the first byte is downloaded; raises DoesNotFit.
Admit = Callable[[GenerationRequest, int], None]
#: Whether the download of a model is paused; raises StoreUnavailable or StorageFull when that is unknown.
Paused = Callable[[str], bool]


def never_paused(_model: str) -> bool:
    """Return False: without download orders, nothing can be paused."""
    return False


class ModelFetch:
    """Waits for the model of one request."""

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
        self._progress: DownloadProgress | None = None
        self._parts = 0

    def run(self) -> None:
        """Return when the model is installed and verified.

        Raises:
            Interrupted: the report asked to stop; as DownloadPaused: the download was paused. The bytes are kept.
            DoesNotFit: the machine could not run it; nothing was downloaded.
            WanError: the download failed, as its error says.
        """
        self._stop_where_paused()
        self._report.begin(Phase.DOWNLOAD, f"Downloading {self._request.model}")
        fetch = _Fetch(self._ensure)
        try:
            while not fetch.ended(REPORT_SECONDS):
                self._publish()
                self._stop_where_paused()
        finally:
            fetch.stop()
        if self._progress is not None:
            self._publish()

    # --- in the task's thread ----------------------------------------------------------------------------

    def _stop_where_paused(self) -> None:
        try:
            paused = self._paused(self._request.model)
        except StoreFailed as error:
            # Whether it is paused is unknown, so it continues.
            log.warning("model_fetch.orders_not_read", error=error.code)
            return
        if paused:
            raise DownloadPaused(waits_for_resume(self._request.model))

    def _publish(self) -> None:
        progress = self._progress
        if progress is None:
            self._report.update(Stage.DOWNLOADING_MODEL, f"Contacting the hub for {self._request.model}")
            return
        clock = self._report.clock
        if progress.total_bytes:
            parts = DOWNLOAD_PARTS * progress.done_bytes // progress.total_bytes
            clock.advance(max(0, parts - self._parts))
            self._parts = max(parts, self._parts)
        clock.expect(progress.eta_seconds)
        self._report.update(Stage.DOWNLOADING_MODEL, _in_words(self._request.model, progress), progress)

    # --- in the download's thread ------------------------------------------------------------------------

    def _ensure(self, check: Callable[[], None]) -> None:
        self._bridge.ensure(self._request.model, check=check, on_progress=self._note)

    def _note(self, progress: DownloadProgress) -> None:
        self._progress = progress
        if progress.total_bytes is not None and not self._admitted:
            self._admitted = True
            self._admit(self._request, progress.total_bytes)


class _Fetch:
    """The thread of one download."""

    def __init__(self, ensure: Callable[[Callable[[], None]], None]) -> None:
        self._ensure = ensure
        self._stopped = threading.Event()
        self._done = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=copy_context().run, args=(self._run,), name="model-fetch", daemon=True)
        self._thread.start()

    def ended(self, seconds: float) -> bool:
        """Wait up to `seconds` for the end; raise the error of a download that failed."""
        if not self._done.wait(seconds):
            return False
        if self._error is not None:
            raise self._error
        return True

    def stop(self) -> None:
        """Ask the thread to release the connection and the folder; it does so with the next byte at the latest."""
        self._stopped.set()
        self._thread.join(_STOP_SECONDS)

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
        DownloadPhase.WAITING: f"Waiting for {model}, which another process is downloading",
        DownloadPhase.VERIFYING: f"Verifying the files of {model}",
    }.get(progress.phase, f"Downloading {model}")
    figures = f"{progress.done_bytes / _GB:.2f}"
    if progress.total_bytes is not None:
        figures += f" of {progress.total_bytes / _GB:.2f}"
    speed = f", {progress.speed / 1e6:.1f} MB/s" if progress.speed else ""
    left = "" if progress.eta_seconds is None else f", about {progress.eta_seconds / 60:.0f} min left"
    return f"{what}: {figures} GB{speed}{left}"
