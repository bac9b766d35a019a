"""Messages about model downloads: their progress, their changes of state, and retries.

The same messages for a download that was ordered from this server and for one that a worker runs for a task.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from backend.api.http.shapes import known
from backend.api.live.messages import ALERTS_TOPIC, DOWNLOAD_TOPIC, Notice
from backend.api.models.downloads import DownloadView, download_view
from backend.core.catalogue.table import models_in_force
from backend.core.domain import DownloadPhase, DownloadProgress, iso
from backend.services.downloads.state import Download, DownloadState, Runner
from backend.services.system.container import Sockets
from backend.store.download_orders import Urgency

_SENTENCES: Final = {
    DownloadState.QUEUED: "The download of {} waits",
    DownloadState.DOWNLOADING: "{} is being downloaded",
    DownloadState.VERIFYING: "The files of {} are being verified",
    DownloadState.PAUSED: "The download of {} was paused",
    DownloadState.COMPLETED: "{} was downloaded",
    DownloadState.FAILED: "The download of {} failed",
    DownloadState.CANCELLED: "The download of {} was cancelled",
}


def publish_download(sockets: Sockets, before: Download | None, download: Download) -> None:
    """Publish a change of a download; any thread may call."""
    for notice in download_notices(before, download):
        sockets.publish(notice.topic, notice.type, notice.data)


def download_notices(before: Download | None, download: Download) -> list[Notice]:
    """Return the messages about a download that was `before` and is now otherwise."""
    view = download_view(download)
    data = view.model_dump(exclude_none=True) | {"timestamp": iso(download.updated_at)}
    if view.progress is not None:
        data["progress_percent"] = view.progress
    if before is not None and before.state is download.state:
        return [Notice("download_progress_update", DOWNLOAD_TOPIC, data), *_retry_notices(before, download)]
    sentence = _SENTENCES[download.state].format(download.spec.id)
    changed = known(
        {"new_status": download.state, "old_status": before.state if before else None} | _details(download, view)
    )
    alert = {
        "alert_type": "model_download_progress",
        "severity": "warning" if download.state is DownloadState.FAILED else "info",
        "message": sentence if download.error is None else f"{sentence}: {download.error.message}",
        "model_type": download.spec.id,
        "status": download.state,
        "progress": view.progress,
        "timestamp": data["timestamp"],
    }
    return [
        Notice("download_status_change", DOWNLOAD_TOPIC, data | changed),
        *_retry_notices(before, download),
        Notice("alert", ALERTS_TOPIC, known(alert)),
        *_end_notices(download, str(alert["message"]), data["timestamp"]),
    ]


def _details(download: Download, view: DownloadView) -> dict[str, Any]:
    """Return what a change of state says beyond the figures."""
    if download.state is DownloadState.DOWNLOADING:
        return {"total_size_mb": view.total_mb}
    if download.state is DownloadState.COMPLETED:
        return {"final_size_mb": view.total_mb, "integrity_verified": True}
    if download.state is DownloadState.FAILED:
        return {"error_message": view.error}
    if download.state in (DownloadState.PAUSED, DownloadState.CANCELLED):
        return {"reason": _SENTENCES[download.state].format(download.spec.id)}
    return {}


def _end_notices(download: Download, sentence: str, timestamp: str) -> list[Notice]:
    """Tell everybody that a download ended, as the oldest clients expect."""
    status = {DownloadState.COMPLETED: "success", DownloadState.FAILED: "failed"}.get(download.state)
    if status is None:
        return []
    model = download.spec.id
    data = {"model_type": model, "model_id": model, "status": status, "message": sentence, "timestamp": timestamp}
    return [Notice("model_download_complete", None, data)]


def _retry_notices(before: Download | None, download: Download) -> list[Notice]:
    """Report a pause after a failure, once."""
    retry = download.progress.retry if download.progress is not None else None
    known_retry = before.progress.retry if before is not None and before.progress is not None else None
    if retry is None or retry == known_retry:
        return []
    data = {
        "model_id": download.spec.id,
        "retry_count": retry.count,
        "max_retries": retry.most,
        "error_message": retry.message,
        "next_retry_in_seconds": round(retry.seconds, 1),
        "timestamp": iso(download.updated_at),
    }
    return [Notice("download_retry", DOWNLOAD_TOPIC, data)]


def fetch_of_task(model: str | None, fetch: dict[str, Any] | None, moment: datetime) -> Download | None:
    """Return the download in a task's progress event; None when the task downloads nothing, or only waits for one."""
    spec, progress = models_in_force().get(model or ""), DownloadProgress.from_json(fetch) if fetch else None
    if spec is None or progress is None or progress.phase is DownloadPhase.WAITING:
        return None
    return Download(
        spec, DownloadState(progress.phase), Urgency.MEDIUM, 0, moment, progress, runner=Runner.TASK, needed=True
    )
