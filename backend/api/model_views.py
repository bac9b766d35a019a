"""How the models' state on this machine looks to a client: from folders, workers and tasks to `model_schemas.py`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from backend.api.model_download_schemas import DownloadView
from backend.api.model_schemas import ModelDetails, ModelHealth, ModelStatus, ModelTotals
from backend.core.domain import iso, utcnow
from backend.models.folder.manager import ModelState, Presence, folder_hint
from backend.models.folder.manifest import read_last_seen, read_manifest
from backend.services.downloads.state import RUNNING, Download
from backend.store.outputs import ModelUse
from backend.store.workers import WorkerInfo

MIB: Final = 1024**2
GB: Final = 1000**3
MB: Final = 1000**2


@dataclass(frozen=True, slots=True)
class ModelScene:
    """What surrounds the models: which workers hold them, which tasks need them, what they made."""

    workers: Sequence[WorkerInfo]
    needed: frozenset[str]  #: ids of models that a waiting or running task names
    uses: Mapping[str, ModelUse]

    def holders(self, model_id: str) -> list[str]:
        """Return the ids of the workers that have this model in memory."""
        return [worker.id for worker in self.workers if worker.model == model_id]


def model_status(state: ModelState, scene: ModelScene) -> ModelStatus:
    """Show one model."""
    holders = scene.holders(state.spec.id)
    return ModelStatus(
        model_id=state.spec.id,
        model_type=state.spec.id,
        status=state.presence,
        is_available=state.available,
        is_loaded=bool(holders),
        loaded_by=holders,
        is_valid=state.available,
        in_use=state.spec.id in scene.needed,
        size_mb=round(state.size_bytes / MIB, 1) if state.size_bytes else None,
        model_path=None if state.spec.embedded else folder_hint(state),
        error_message=state.reason,
    )


def folder_of(state: ModelState) -> str:
    """Name where a model lies, without the server's paths."""
    return "embedded" if state.spec.embedded else folder_hint(state)


def model_details(state: ModelState, scene: ModelScene) -> ModelDetails:
    """Show one model with its use."""
    status = model_status(state, scene)
    use = scene.uses.get(state.spec.id)
    return ModelDetails(
        **status.model_dump(),
        availability_status=status.status,
        corruption_detected=state.presence is Presence.CORRUPTED,
        usage_frequency=use.videos if use else 0,
        last_used=iso(use.last) if use else None,
        average_generation_time=round(use.mean_seconds, 2) if use else None,
    )


def model_totals(states: Sequence[ModelState], scene: ModelScene) -> ModelTotals:
    """Count the models."""
    return ModelTotals(
        total_models=len(states),
        available_models=_count(states, Presence.AVAILABLE),
        loaded_models=sum(bool(scene.holders(state.spec.id)) for state in states),
        missing_models=_count(states, Presence.MISSING),
        corrupted_models=_count(states, Presence.CORRUPTED),
        total_size_gb=round(sum(state.size_bytes for state in states) / GB, 3),
        last_updated=iso(utcnow()),
    )


def model_health(state: ModelState, suggestions: Sequence[str]) -> ModelHealth:
    """Show whether one model can be relied on; `suggestions` say what to do if not."""
    manifest = read_manifest(state.folder)
    seen = None if manifest is None else read_last_seen(state.folder).oldest(manifest)
    return ModelHealth(
        model_id=state.spec.id,
        health_status="healthy" if state.available else state.presence,
        is_healthy=state.available,
        issues=[] if state.reason is None else [state.reason],
        last_check=None if seen is None else iso(seen),
        repair_suggestions=list(suggestions),
    )


def download_view(download: Download) -> DownloadView:
    """Show one download."""
    progress, state = download.progress, download.state
    runs = state in RUNNING
    total = progress.total_bytes if progress else None
    return DownloadView(
        model_id=download.spec.id,
        model_type=download.spec.id,
        status=state,
        progress=round(100 * progress.done_bytes / total, 2) if progress and total else None,
        downloaded_mb=round(progress.done_bytes / MB, 3) if progress else None,
        total_mb=round(total / MB, 3) if total else None,
        speed_mbps=round(progress.speed / MB, 3) if progress and progress.speed and runs else None,
        eta_seconds=progress.eta_seconds if progress and runs else None,
        priority=download.urgency,
        error=download.error.message if download.error else None,
        suggestions=list(download.error.next_steps) if download.error else [],
        can_pause=download.can_pause,
        can_resume=download.can_resume,
        can_cancel=download.can_cancel,
        last_update=iso(download.updated_at),
    )


def _count(states: Iterable[ModelState], presence: Presence) -> int:
    return sum(state.presence is presence for state in states)
