"""What WebSocket clients hear of model downloads: how far they are, and when they change their state."""

from __future__ import annotations

from backend.api.model_views import download_view
from backend.api.websocket import ConnectionManager
from backend.services.model_downloads import Download, DownloadState

DOWNLOAD_TOPIC = "download_progress"


def tell_download(sockets: ConnectionManager, before: DownloadState | None, download: Download) -> None:
    """Publish a change of a download; any thread may call."""
    data = download_view(download).model_dump(exclude_none=True)
    if "progress" in data:
        data["progress_percent"] = data["progress"]
    if before is download.state:
        sockets.tell(DOWNLOAD_TOPIC, "download_progress_update", data)
        return
    changed = {"new_status": download.state} | ({} if before is None else {"old_status": before})
    sockets.tell(DOWNLOAD_TOPIC, "download_status_change", data | changed)
