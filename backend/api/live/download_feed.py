"""WebSocket messages about model downloads: their progress, and their changes of state.

The same messages for a download that was ordered from this server and for one that a worker runs for a task.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from backend.api.models.downloads import download_view
from backend.core.catalogue.table import models_in_force
from backend.core.domain import DownloadPhase, DownloadProgress, iso, utcnow
from backend.services.downloads.state import Download, DownloadState, Runner
from backend.services.system.container import Sockets
from backend.store.download_orders import Urgency

DOWNLOAD_TOPIC: Final = "download_progress"


#: The words of earlier clients for the end of a download.
_ENDS: Final = {DownloadState.COMPLETED: "success", DownloadState.FAILED: "failed"}


def publish_download(sockets: Sockets, before: DownloadState | None, download: Download) -> None:
    """Publish a change of a download; any thread may call."""
    sockets.publish(DOWNLOAD_TOPIC, *download_message(before, download))
    if (end := download_end(before, download)) is not None:
        sockets.publish(None, *end)


def download_end(before: DownloadState | None, download: Download) -> tuple[str, dict[str, Any]] | None:
    """Return the message to all clients about a download that was completed or given up just now."""
    word = _ENDS.get(download.state)
    if word is None or before is download.state:
        return None
    model = download.spec.id
    message = f"{model} was downloaded" if download.error is None else download.error.message
    data = {"model_type": model, "model_id": model, "status": word, "message": message, "timestamp": iso(utcnow())}
    return "model_download_complete", data


def download_message(before: DownloadState | None, download: Download) -> tuple[str, dict[str, Any]]:
    """Return the type and the data of the message about a download."""
    data = download_view(download).model_dump(exclude_none=True) | {"timestamp": iso(utcnow())}
    if "progress" in data:
        data["progress_percent"] = data["progress"]
    if before is download.state:
        return "download_progress_update", data
    changed: dict[str, Any] = {"new_status": download.state} | ({} if before is None else {"old_status": before})
    total = data.get("total_mb")
    if download.state is DownloadState.COMPLETED:
        # Every byte was compared with the hub's digest: without that no download is complete.
        changed |= {"integrity_verified": True} | ({} if total is None else {"final_size_mb": total})
    elif download.error is not None:
        changed["error_message"] = download.error.message
    elif total is not None:
        changed["total_size_mb"] = total
    return "download_status_change", data | changed


def fetch_of_task(model: str | None, fetch: dict[str, Any] | None, moment: datetime) -> Download | None:
    """Return the download in a task's progress event; None when the task downloads nothing, or only waits for one."""
    spec, progress = models_in_force().get(model or ""), DownloadProgress.from_json(fetch) if fetch else None
    if spec is None or progress is None or progress.phase is DownloadPhase.WAITING:
        return None
    return Download(
        spec, DownloadState(progress.phase), Urgency.MEDIUM, 0, moment, progress, runner=Runner.TASK, needed=True
    )
