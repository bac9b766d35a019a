"""Routes that bring model files here, look after them, and take them away."""

from __future__ import annotations

from fastapi import APIRouter, Query

from backend.api.deps import Services, ServicesDep
from backend.api.model_download_schemas import (
    Action,
    DownloadAnswer,
    DownloadAsked,
    DownloadView,
    FileFault,
    Manage,
    Managed,
    Removed,
    Verified,
)
from backend.api.model_views import MB, MIB, download_view
from backend.api.models import ModelName
from backend.core.domain import TERMINAL, TaskStatus, iso, utcnow
from backend.core.errors import InvalidRequest, StateConflict
from backend.core.model_table import ModelSpec, find_model, models_in_force
from backend.models.integrity import FileState, check_full, check_quick
from backend.models.manifest import read_manifest
from backend.models.removal import remove_model
from backend.services.model_downloads import Download, running_elsewhere

router = APIRouter(prefix="/models", tags=["models"])


@router.post("/download", response_model=DownloadAnswer, summary="Fetch a model")
def download(asked: DownloadAsked, services: ServicesDep) -> DownloadAnswer:
    """Fetch a model from the hub, in the background; asked for twice, it is fetched once."""
    spec = find_model(asked.model_type)
    if services.models.state(spec).available:
        return DownloadAnswer(
            message=f"{spec.id} is here", model_type=spec.id, status="already_available", download_required=False
        )
    if spec.repo_id is None:
        services.models.folder(spec)  # says what is wrong with the installation, or where its files belong
    services.downloads.start(spec)
    return DownloadAnswer(
        message=f"{spec.id} is being fetched; GET /api/v1/models/download/progress/{spec.id} says how far it is",
        model_type=spec.id,
        status="download_started",
        download_required=True,
    )


@router.get(
    "/download/progress",
    response_model=dict[str, DownloadView],
    response_model_exclude_none=True,
    summary="All downloads",
)
def all_progress(services: ServicesDep) -> dict[str, DownloadView]:
    """Return the downloads that this server was asked for since it started, and those that a worker runs, by model."""
    found = {spec.id: _newest(services, spec) for spec in models_in_force().specs}
    return {name: download_view(one) for name, one in found.items() if one is not None}


@router.get(
    "/download/progress/{model_type}",
    response_model=DownloadView | None,
    response_model_exclude_none=True,
    summary="One download",
)
def progress(model_type: ModelName, services: ServicesDep) -> DownloadView | None:
    """Return how far a download is; null when this server was not asked for one and no worker runs one."""
    found = _newest(services, find_model(model_type))
    return None if found is None else download_view(found)


@router.post("/download/manage", response_model=Managed, summary="Pause, resume, cancel, prioritise, limit")
def manage(wish: Manage, services: ServicesDep) -> Managed:
    """Change a download. A cancelled one loses what has arrived; a paused one keeps it, over restarts too."""
    spec, downloads = find_model(wish.model_id), services.downloads
    found: Download | None
    if wish.action is Action.BANDWIDTH:
        limit = wish.bandwidth_limit_mbps
        downloads.limit(None if limit is None else limit * MB)
        found, message = (
            downloads.get(spec),
            "No limit" if limit is None else f"At most {limit:g} MB/s for all downloads",
        )
    elif wish.action is Action.PRIORITY:
        if wish.priority is None:
            raise InvalidRequest("`priority` is missing: critical, high, medium or low", details={"field": "priority"})
        found, message = downloads.prioritise(spec, wish.priority), f"{spec.id} has priority {wish.priority}"
    else:
        change = {Action.PAUSE: downloads.pause, Action.RESUME: downloads.resume, Action.CANCEL: downloads.cancel}
        found = change[wish.action](spec)
        message = f"The download of {spec.id} is {found.state}"
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


@router.post("/verify/{model_type}", response_model=Verified, summary="Check a model's files")
@router.post("/validate/{model_type}", response_model=Verified, summary="Check a model's files (older path)")
def verify(
    model_type: ModelName,
    services: ServicesDep,
    full: bool = Query(False, description="Read every byte and compare its SHA-256; else sizes and headers only"),
) -> Verified:
    """Compare a model's files with what was downloaded, without the network. A folder from elsewhere has no record."""
    spec = find_model(model_type)
    state = services.models.state(spec)
    manifest = read_manifest(state.folder)
    if manifest is None:
        words = ("unknown", "Its files are all here; no record says what their contents should be")
        status, message = words if state.available else ("not_available", state.reason or "It is not here")
        return _verdict(spec, state.available, status, message, "nothing", [], 0)
    findings = check_full(state.folder, manifest) if full else check_quick(state.folder, manifest)
    wrong = [FileFault(name=one.name, state=one.state) for one in findings if one.state is not FileState.OK]
    message = (
        f"{len(wrong)} of {len(findings)} files are wrong" if wrong else f"All {len(findings)} files are as they were"
    )
    status = "corrupted" if wrong else "valid"
    return _verdict(spec, not wrong, status, message, "contents" if full else "sizes", wrong, len(findings))


@router.delete("/{model_type}", response_model=Removed, summary="Delete a model's files")
def remove(model_type: ModelName, services: ServicesDep) -> Removed:
    """Delete a model that nobody needs: not one that ships with wan22, waits in a task, or is loaded."""
    spec = find_model(model_type)
    with services.generation.holding(spec):
        _refuse_needed(services, spec)
        freed = remove_model(services.home, spec)
    return Removed(message=f"{spec.id} was removed", model_type=spec.id, freed_mb=round(freed / MIB, 1))


def _newest(services: Services, spec: ModelSpec) -> Download | None:
    """Return the download that this server runs, else one that runs elsewhere, else what became of its own."""
    own = services.downloads.get(spec)
    if spec.embedded or services.downloads.is_at(spec):
        return own
    return running_elsewhere(services.home, services.models, spec) or own


def _refuse_needed(services: Services, spec: ModelSpec) -> None:
    if any(
        task.model == spec.id for state in TaskStatus if state not in TERMINAL for task in services.tasks.list(state)
    ):
        raise StateConflict(f"{spec.id} is needed by a task", suggestions=("Cancel the task, or wait for its end.",))
    if any(worker.model == spec.id for worker in services.living_workers()):
        raise StateConflict(
            f"{spec.id} is loaded by a worker", suggestions=("Stop the worker, or let it load another model.",)
        )


def _verdict(
    spec: ModelSpec, valid: bool, status: str, message: str, checked: str, wrong: list[FileFault], count: int
) -> Verified:
    return Verified(
        model_type=spec.id,
        is_valid=valid,
        integrity_status=status,
        message=message,
        checked=checked,
        files_checked=count,
        missing_files=[fault.name for fault in wrong if fault.state == FileState.MISSING],
        details=wrong,
    )
