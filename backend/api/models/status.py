"""Routes about the models: which are installed, loaded and in use, what the others need, what each accepts.

The shapes are those that clients of the earlier application expect. An unknown value is absent: nothing is estimated to
fill a field.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import Path
from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp, known
from backend.core.catalogue.table import ModelSpec, find_model, models_in_force
from backend.core.domain import TERMINAL, DownloadProgress, TaskStatus, iso, utcnow
from backend.core.errors.models import ModelUnavailable
from backend.core.planning.constraints import OptimizationSettings
from backend.core.requests.prompts import MAX_PROMPT_CHARS
from backend.core.requests.rules import MAX_FPS, MAX_GUIDANCE, MAX_SEED, MAX_STEPS
from backend.models.folder.integrity import FileFinding, FileState
from backend.models.folder.manager import ModelState, Presence, folder_hint
from backend.models.folder.manifest import read_last_seen, read_manifest
from backend.services.downloads.state import RUNNING, Download, DownloadState
from backend.services.system.container import Services
from backend.services.system.host_stats import MIB
from backend.store.gallery.outputs import ModelUse
from backend.store.workers import WorkerInfo

GB: Final = 1000**3
MB: Final = 1000**2
router = Routes(prefix="/models", tags=["models"])

ModelName = Annotated[str, Path(description="A model's id or one of its aliases", max_length=128)]


def model_info(state: ModelState) -> ModelInfo:
    """Show one model: whether it is installed, its requirements and its inputs."""
    spec = state.spec
    defaults = {
        "steps": spec.steps,
        "guidance_scale": spec.guidance_scale,
        "guidance_scale_2": spec.guidance_scale_2,
        "flow_shift": spec.flow_shift,
        "fps": spec.fps,
        "num_frames": spec.num_frames,
        "resolution": f"{spec.width}x{spec.height}",
        "max_sequence_length": spec.max_sequence_length,
        "negative_prompt": spec.negative_prompt,
    }
    limits = {
        "size_multiple": spec.size_multiple,
        "min_side": spec.min_side,
        "max_pixels": spec.max_pixels,
        "max_resolution": max_resolution(spec),
        "max_frames": spec.max_frames,
        "max_steps": MAX_STEPS,
        "max_guidance": MAX_GUIDANCE,
        "max_fps": MAX_FPS,
        "max_seed": MAX_SEED,
        "max_prompt_chars": MAX_PROMPT_CHARS,
        "takes_image": spec.takes_image,
        "requires_image": spec.needs_image,
        "takes_end_image": spec.takes_end_image,
    }
    return ModelInfo(
        id=spec.id,
        title=spec.title,
        mode=spec.mode,
        aliases=list(spec.aliases),
        status=state.presence,
        is_available=state.available,
        reason=state.reason,
        repository=spec.repo_id,
        licence=spec.licence,
        weights_gb=spec.weights_gb,
        size_mb=round(state.size_bytes / MIB, 1) if state.size_bytes else None,
        embedded=spec.embedded,
        base=spec.base,
        experts=spec.experts,
        defaults=known(defaults),
        limits=limits,
    )


def max_resolution(spec: ModelSpec) -> str:
    """Return the largest size of the model in its native aspect."""
    step = spec.size_multiple
    width = math.isqrt(spec.max_pixels * spec.width // spec.height) // step * step
    return f"{width}x{spec.max_pixels // width // step * step}"


class ModelInfo(BaseModel):
    """One model: whether it is installed, its requirements and its inputs."""

    id: str
    title: str
    mode: str
    aliases: list[str]
    status: str = Field(description="available, missing, partial, downloading, verifying, corrupted or unsupported")
    is_available: bool
    reason: str | None = Field(None, description="Why it cannot be used")
    repository: str | None = None
    licence: str
    weights_gb: float
    size_mb: float | None = None
    embedded: bool
    base: str | None = Field(
        None, description="The built-in model with the same structure, for a model of the user's own"
    )
    experts: int
    defaults: dict[str, Any]
    limits: dict[str, Any]


class ModelList(BaseModel):
    """Every model this server knows."""

    models: list[ModelInfo]
    default: str | None = Field(None, description="What `auto` takes for a request without an image")
    total_models: int
    available_models: int
    timestamp: Timestamp


class ModelStatus(BaseModel):
    """The current state of one model on this machine."""

    model_id: str
    model_type: str = Field(description="The same as `model_id`, for older clients")
    status: str = Field(description="available, missing, partial, corrupted or unsupported")
    is_available: bool
    is_loaded: bool
    loaded_by: list[str] = Field(description="Ids of the workers that have it in memory")
    is_valid: bool = Field(description="Whether every file is present and of a supported type")
    in_use: bool = Field(description="Whether a task that waits or runs needs it")
    size_mb: float | None = None
    model_path: str | None = Field(None, description="Its folder, relative to the home folder")
    error_message: str | None = Field(None, description="Why it cannot be used")


class ModelStatuses(BaseModel):
    """Every model by its id."""

    models: dict[str, ModelStatus]
    total_models: int
    available_models: int
    configuration_faults: list[str] | None = Field(None, description="Entries of config.json that were ignored")
    timestamp: Timestamp


class ModelDetails(ModelStatus):
    """One model and its use."""

    availability_status: str = Field(
        description="available, missing, partial, corrupted or unsupported; queued, downloading, verifying, paused or "
        "failed where a download says more"
    )
    missing_files: list[str] = Field(description="Of a model that is damaged; what was never downloaded is not listed")
    corruption_detected: bool
    last_health_check: Timestamp | None = Field(None, description="When the oldest of its files was last verified")
    download_progress: float | None = Field(None, description="Percent of a download")
    can_pause_download: bool
    can_resume_download: bool
    estimated_download_time: float | None = Field(None, description="Seconds until a running download is done")
    usage_frequency: int = Field(description="Its videos in the gallery")
    last_used: Timestamp | None = None
    average_generation_time: float | None = Field(None, description="Seconds, over these videos")


class ModelTotals(BaseModel):
    """All models in numbers."""

    total_models: int
    available_models: int
    loaded_models: int
    missing_models: int
    downloading_models: int
    corrupted_models: int
    total_size_gb: float = Field(description="Of the installed files")
    last_updated: Timestamp


class DetailedStatuses(BaseModel):
    """Every model with its use, and the totals."""

    models: dict[str, ModelDetails]
    system_statistics: ModelTotals
    timestamp: Timestamp


class SystemSummary(BaseModel):
    """Whether the server is ready for models."""

    integration_initialized: bool = Field(description="Whether every component was started without an error")
    optimization_applied: bool = Field(description="Whether settings restrict the planner, which is free without any")
    hardware_detected: bool = Field(description="Whether a card was found")


class ModelsSummary(BaseModel):
    """The totals, then a line for each model."""

    models_summary: ModelTotals
    system_summary: SystemSummary
    models: dict[str, ModelStatus]
    timestamp: Timestamp


@dataclass(frozen=True, slots=True)
class ModelContext:
    """What is known about the models besides their files: workers, tasks, videos."""

    workers: Sequence[WorkerInfo]
    needed: frozenset[str]  #: ids of models that a waiting or running task names
    uses: Mapping[str, ModelUse]
    downloads: Mapping[str, Download]  #: by model, also those that have ended
    broken: Mapping[str, Sequence[FileFinding]]  #: the bad files of each damaged model

    def holders(self, model_id: str) -> list[str]:
        """Return the ids of the workers that have this model in memory."""
        return [worker.id for worker in self.workers if worker.model == model_id]


def model_status(state: ModelState, scene: ModelContext) -> ModelStatus:
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
    """Name a model's location without paths of the server."""
    return "embedded" if state.spec.embedded else folder_hint(state)


def model_details(state: ModelState, scene: ModelContext) -> ModelDetails:
    """Show one model with its use."""
    status = model_status(state, scene)
    use = scene.uses.get(state.spec.id)
    download = scene.downloads.get(state.spec.id)
    ended = download is None or state.available or download.state in (DownloadState.COMPLETED, DownloadState.CANCELLED)
    progress = None if ended or download is None else download.progress
    checked = last_check(state)
    return ModelDetails(
        **status.model_dump(),
        availability_status=status.status if ended or download is None else download.state,
        missing_files=[one.name for one in scene.broken.get(state.spec.id, ()) if one.state is FileState.MISSING],
        corruption_detected=state.presence is Presence.CORRUPTED,
        last_health_check=None if checked is None else iso(checked),
        download_progress=percent_of(progress),
        can_pause_download=download is not None and download.can_pause,
        can_resume_download=download is not None and download.can_resume,
        estimated_download_time=progress.eta_seconds if progress else None,
        usage_frequency=use.videos if use else 0,
        last_used=iso(use.last) if use else None,
        average_generation_time=round(use.mean_seconds, 2) if use else None,
    )


def model_totals(states: Sequence[ModelState], scene: ModelContext) -> ModelTotals:
    """Count the models."""
    return ModelTotals(
        total_models=len(states),
        available_models=_count(states, Presence.AVAILABLE),
        loaded_models=sum(bool(scene.holders(state.spec.id)) for state in states),
        missing_models=_count(states, Presence.MISSING),
        downloading_models=sum(one.state in RUNNING for one in scene.downloads.values()),
        corrupted_models=_count(states, Presence.CORRUPTED),
        total_size_gb=round(sum(state.size_bytes for state in states) / GB, 3),
        last_updated=iso(utcnow()),
    )


def percent_of(progress: DownloadProgress | None) -> float | None:
    """Return the share of a model's bytes that have arrived, in percent; None while unknown."""
    if progress is None or not progress.total_bytes:
        return None
    return round(100 * progress.done_bytes / progress.total_bytes, 2)


def last_check(state: ModelState) -> datetime | None:
    """Return when the oldest of a model's files was last verified; None for a folder without a record."""
    manifest = read_manifest(state.folder)
    return None if manifest is None else read_last_seen(state.folder).oldest(manifest)


def _count(states: Iterable[ModelState], presence: Presence) -> int:
    return sum(state.presence is presence for state in states)


@router.get("", summary="All models")
def list_models(services: ServicesDep) -> ModelList:
    """List every model with its defaults and limits; models that are not installed say what they need."""
    states = services.models.states()
    try:
        default: str | None = services.models.default().id
    except ModelUnavailable:
        default = None
    return ModelList(
        models=[model_info(state) for state in states],
        default=default,
        total_models=len(states),
        available_models=sum(state.available for state in states),
        timestamp=iso(utcnow()),
    )


@router.get("/status/detailed", summary="Status and use of all models")
def detailed_statuses(services: ServicesDep) -> DetailedStatuses:
    """Return the status and the use of every model."""
    states = services.models.states()
    scene = model_context(services, states)
    totals = model_totals(states, scene)
    return DetailedStatuses(
        models={state.spec.id: model_details(state, scene) for state in states},
        system_statistics=totals,
        timestamp=totals.last_updated,
    )


@router.get("/status", summary="Status of all models")
def statuses(services: ServicesDep) -> ModelStatuses:
    """Return whether each model is installed, loaded and in use."""
    states = services.models.states()
    scene = model_context(services)
    return ModelStatuses(
        models={state.spec.id: model_status(state, scene) for state in states},
        total_models=len(states),
        available_models=sum(state.available for state in states),
        configuration_faults=list(models_in_force().faults) or None,
        timestamp=iso(utcnow()),
    )


@router.get("/status/{model_type}", summary="Status of one model")
def status(model_type: ModelName, services: ServicesDep) -> ModelStatus:
    """Return whether a model is installed, loaded and in use. An unknown name is rejected."""
    return model_status(services.models.state(find_model(model_type)), model_context(services))


@router.get("/summary", summary="Model totals")
def summary(services: ServicesDep) -> ModelsSummary:
    """Return the totals and a short status of each model."""
    states, scene = services.models.states(), model_context(services)
    totals = model_totals(states, scene)
    return ModelsSummary(
        models_summary=totals,
        system_summary=SystemSummary(
            integration_initialized=not services.system.snapshot().errors,
            optimization_applied=services.optimization.current() != OptimizationSettings(),
            hardware_detected=services.stats.has_gpu,
        ),
        models={state.spec.id: model_status(state, scene) for state in states},
        timestamp=totals.last_updated,
    )


def model_context(services: Services, examined: Iterable[ModelState] = ()) -> ModelContext:
    """Gather what is known besides the files; of damaged models among the `examined`, also which files are bad."""
    active = (task for status in TaskStatus if status not in TERMINAL for task in services.tasks.list(status))
    return ModelContext(
        workers=services.living_workers(),
        needed=frozenset(task.model for task in active),
        uses=services.outputs.uses(),
        downloads=services.control.all(),
        broken=broken_files(services, examined),
    )


def broken_files(services: Services, states: Iterable[ModelState]) -> dict[str, Sequence[FileFinding]]:
    """Return the bad files of each damaged model."""
    return {
        state.spec.id: services.models.verify(state.spec, full=False).wrong
        for state in states
        if state.presence is Presence.CORRUPTED
    }
