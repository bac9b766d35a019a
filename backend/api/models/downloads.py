"""Routes that download, verify and delete the files of models. Unknown values are absent."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Timestamp
from backend.api.models.status import MB, ModelName, percent_of
from backend.core.catalogue.table import find_model
from backend.core.config.download_limit import BANDWIDTH, HIGHEST_MBPS
from backend.core.domain import iso, utcnow
from backend.models.folder.integrity import FileState
from backend.models.folder.storage import remove_model
from backend.services.downloads.state import RUNNING, Download
from backend.services.system.host_stats import MIB
from backend.store.download_orders import Urgency

router = Routes(prefix="/models", tags=["models"])


class DownloadAsked(BaseModel):
    """The requested model."""

    model_config = ConfigDict(protected_namespaces=())

    model_type: str = Field(max_length=128, description="A model's id or one of its aliases")


class DownloadAnswer(BaseModel):
    """The result of the request."""

    message: str
    model_type: str
    status: Literal["already_available", "download_started"]
    download_required: bool


class RetryView(BaseModel):
    """A pause after a failure, before the hub is asked again."""

    count: int = Field(description="Failures in a row without a byte in between")
    most: int = Field(description="After so many of them the download fails")
    message: str = Field(description="What went wrong")
    seconds: float = Field(description="Length of the pause; it begins at `last_update`")


class DownloadView(BaseModel):
    """One download; unknown values are absent."""

    model_id: str
    model_type: str
    status: str = Field(description="queued, downloading, verifying, paused, completed, failed or cancelled")
    progress: float | None = Field(None, description="Percent of the model's bytes that have arrived")
    downloaded_mb: float | None = None
    total_mb: float | None = None
    speed_mbps: float | None = Field(None, description="Megabytes per second, over the last seconds")
    eta_seconds: float | None = None
    retry: RetryView | None = Field(None, description="While the download pauses after a failure of the hub")
    priority: str
    error: str | None = None
    suggestions: list[str] = []
    can_pause: bool
    can_resume: bool
    can_cancel: bool
    last_update: Timestamp


class Action(StrEnum):
    """What can be done with a download."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    PRIORITY = "priority"
    BANDWIDTH = "bandwidth"


class Manage(BaseModel):
    """A change to a download."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str = Field(max_length=128)
    action: Action
    priority: Urgency | None = Field(None, description="With `priority`: critical, high, medium or low")
    bandwidth_limit_mbps: float | None = Field(
        None,
        gt=0,
        le=HIGHEST_MBPS,
        description="With `bandwidth`: megabytes per second for each download, kept over restarts; without, no limit",
    )


class Managed(BaseModel):
    """The result of the change."""

    success: bool
    message: str
    model_id: str
    action: Action
    current_status: str | None
    progress_percent: float | None
    timestamp: Timestamp


class FileFault(BaseModel):
    """One file that differs from its verified content."""

    name: str
    state: str = Field(description="missing, truncated or corrupted")


class Verified(BaseModel):
    """Whether a model's files match their download."""

    model_type: str
    is_valid: bool
    integrity_status: str = Field(description="valid, corrupted, unsupported, not_available or unknown")
    message: str
    checked: str = Field(description="contents, sizes or nothing")
    files_checked: int
    missing_files: list[str]
    details: list[FileFault]


class RepairAsked(BaseModel):
    """The damaged files."""

    model_config = ConfigDict(extra="forbid")

    files: list[Annotated[str, Field(max_length=512)]] = Field(
        [], max_length=10_000, description="Names that a full check found corrupted; each is read once more"
    )


class RepairAnswer(DownloadAnswer):
    """The result of the request."""

    put_aside: list[str] = Field(description="Files that were moved into the quarantine and are downloaded again")


class Removed(BaseModel):
    """What was deleted."""

    message: str
    model_type: str
    freed_mb: float


@router.create("/download", summary="Download a model")
def download(asked: DownloadAsked, services: ServicesDep) -> DownloadAnswer:
    """Download a model from the hub in the background; a second request joins the running download."""
    spec = find_model(asked.model_type)
    if services.control.start(spec) is None:
        return DownloadAnswer(
            message=f"{spec.id} is installed", model_type=spec.id, status="already_available", download_required=False
        )
    return DownloadAnswer(
        message=f"{spec.id} is being downloaded; GET /api/v1/models/download/progress/{spec.id} shows its progress",
        model_type=spec.id,
        status="download_started",
        download_required=True,
    )


@router.get("/download/progress", summary="All downloads")
def all_progress(services: ServicesDep) -> dict[str, DownloadView]:
    """Return the downloads ordered from this server and those of workers and commands, by model."""
    return {name: download_view(one) for name, one in services.control.all().items()}


@router.get("/download/progress/{model_type}", summary="One download")
def progress(model_type: ModelName, services: ServicesDep) -> DownloadView | None:
    """Return a download's progress; null when there is none."""
    found = services.control.snapshot(find_model(model_type))
    return None if found is None else download_view(found)


@router.post(
    "/download/manage",
    response_model_exclude_none=False,
    summary="Pause, resume, cancel, prioritise, limit",
    responses=refusals({404: "Nobody has ordered this download"}),
)
def manage(wish: Manage, services: ServicesDep) -> Managed:
    """Change a download, whoever runs it. A cancelled download discards its bytes; a paused one keeps them.

    What a task needs is paused and resumed like any other; it cannot be cancelled, and the order of tasks decides.
    """
    spec, control = find_model(wish.model_id), services.control
    found: Download | None
    if wish.action is Action.BANDWIDTH:
        limit = wish.bandwidth_limit_mbps
        services.pace.change({BANDWIDTH: limit})
        message = "No limit" if limit is None else f"At most {limit:g} MB/s for each download, whoever runs it"
        found = control.snapshot(spec)
    elif wish.action is Action.PRIORITY:
        found, message = control.prioritise(spec, wish.priority), f"{spec.id} has priority {wish.priority}"
    else:
        change = {Action.PAUSE: control.pause, Action.RESUME: control.resume, Action.CANCEL: control.cancel}
        found = change[wish.action](spec)
        message = f"The download of {spec.id} is {'no longer paused' if found is None else found.state}"
    view = None if found is None else download_view(found)
    return Managed(
        success=True,
        message=message,
        model_id=spec.id,
        action=wish.action,
        current_status=view.status if view else None,
        progress_percent=view.progress if view else None,
        timestamp=iso(utcnow()),
    )


@router.post("/verify/{model_type}", summary="Check a model's files")
@router.post("/validate/{model_type}", summary="Check a model's files (older path)")
def verify(
    model_type: ModelName,
    services: ServicesDep,
    full: bool = Query(False, description="Read every byte and compare its SHA-256; else sizes and headers only"),
) -> Verified:
    """Compare a model's files with their checksums, offline. A folder that wan22 did not download has none."""
    spec = find_model(model_type)
    found = services.models.verify(spec, full=full)
    return Verified(
        model_type=spec.id,
        is_valid=found.valid,
        integrity_status=found.status,
        message=found.message,
        checked=found.checked,
        files_checked=len(found.findings),
        missing_files=[one.name for one in found.wrong if one.state is FileState.MISSING],
        details=[FileFault(name=one.name, state=one.state) for one in found.wrong],
    )


@router.post("/repair/{model_type}", summary="Download a model's damaged files again")
def repair(model_type: ModelName, asked: RepairAsked, services: ServicesDep) -> RepairAnswer:
    """Put files aside whose bytes have changed, and download these and the missing ones again, and no others.

    A check of sizes alone does not see a changed byte: name the files that a full check found.
    """
    spec = find_model(model_type)
    aside = services.recheck.put_aside(spec, asked.files)
    return RepairAnswer(**download(DownloadAsked(model_type=spec.id), services).model_dump(), put_aside=aside)


@router.delete("/{model_type}", summary="Delete a model's files")
def remove(model_type: ModelName, services: ServicesDep) -> Removed:
    """Delete a model; refused if it ships with wan22, a task needs it, or a worker has loaded it."""
    spec = find_model(model_type)
    with services.need.exclusive(spec):
        freed = remove_model(services.home, spec)
    return Removed(message=f"{spec.id} was removed", model_type=spec.id, freed_mb=round(freed / MIB, 1))


def download_view(download: Download) -> DownloadView:
    """Show one download."""
    progress, state = download.progress, download.state
    runs = state in RUNNING
    total = progress.total_bytes if progress else None
    retry = progress.retry if progress and runs else None
    return DownloadView(
        model_id=download.spec.id,
        model_type=download.spec.id,
        status=state,
        progress=percent_of(progress),
        downloaded_mb=round(progress.done_bytes / MB, 3) if progress else None,
        total_mb=round(total / MB, 3) if total else None,
        speed_mbps=round(progress.speed / MB, 3) if progress and progress.speed and runs else None,
        eta_seconds=progress.eta_seconds if progress and runs else None,
        retry=None
        if retry is None
        else RetryView(count=retry.count, most=retry.most, message=retry.message, seconds=round(retry.seconds, 1)),
        priority=download.urgency,
        error=download.error.message if download.error else None,
        suggestions=list(download.error.next_steps) if download.error else [],
        can_pause=download.can_pause,
        can_resume=download.can_resume,
        can_cancel=download.can_cancel,
        last_update=iso(download.updated_at),
    )
