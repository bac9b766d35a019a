"""What WebSocket clients hear of model downloads: how far they are, and when they change their state.

The same messages for a download that this server was asked for and for one that a task's worker runs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from backend.api.models.downloads import download_view
from backend.core.catalogue.table import models_in_force
from backend.models.folder.progress import DownloadPhase, DownloadProgress
from backend.services.downloads.state import Download, DownloadState, Runner
from backend.services.system.container import Sockets
from backend.store.download_orders import Urgency

DOWNLOAD_TOPIC: Final = "download_progress"
_STATES: Final = {
    "downloading": (DownloadState.DOWNLOADING, DownloadPhase.DOWNLOADING),
    "verifying": (DownloadState.VERIFYING, DownloadPhase.VERIFYING),
}


def publish_download(sockets: Sockets, before: DownloadState | None, download: Download) -> None:
    """Publish a change of a download; any thread may call."""
    sockets.publish(DOWNLOAD_TOPIC, *download_message(before, download))


def download_message(before: DownloadState | None, download: Download) -> tuple[str, dict[str, Any]]:
    """Return the message that says how a download is now: its type and its data."""
    data = download_view(download).model_dump(exclude_none=True)
    if "progress" in data:
        data["progress_percent"] = data["progress"]
    if before is download.state:
        return "download_progress_update", data
    changed = {"new_status": download.state} | ({} if before is None else {"old_status": before})
    return "download_status_change", data | changed


def fetch_of_task(model: str | None, fetch: dict[str, Any] | None, moment: datetime) -> Download | None:
    """Return the download that a task's progress tells of; None when the task fetches nothing, or only waits."""
    spec, known = models_in_force().get(model or ""), _STATES.get((fetch or {}).get("status", ""))
    if spec is None or known is None or fetch is None:
        return None
    state, phase = known
    speed, eta = fetch.get("bytes_per_second"), fetch.get("eta_seconds")
    progress = DownloadProgress(phase, None, fetch["done_bytes"], fetch.get("total_bytes"), speed, eta)
    return Download(spec, state, Urgency.MEDIUM, 0, moment, progress, runner=Runner.TASK, needed=True)
