"""Routes about the models: which are installed, loaded and in use, what the others need, what each accepts.

The shapes are those that clients of the earlier application expect. An unknown value is absent: nothing is estimated to
fill a field.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import Path
from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp, known
from backend.core.catalogue.table import ModelSpec, find_model, models_in_force
from backend.core.domain import TERMINAL, TaskStatus, iso, utcnow
from backend.core.errors.models import ModelDamaged, ModelUnavailable
from backend.core.requests.prompts import MAX_PROMPT_CHARS
from backend.core.requests.rules import MAX_FPS, MAX_GUIDANCE, MAX_SEED, MAX_STEPS
from backend.models.folder.manager import ModelState, Presence, folder_hint
from backend.models.folder.manifest import read_last_seen, read_manifest
from backend.services.downloads.state import RUNNING
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

    availability_status: str = Field(description="available, missing, partial, corrupted or unsupported")
    corruption_detected: bool
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


class ModelsSummary(BaseModel):
    """The totals, then a line for each model."""

    models_summary: ModelTotals
    models: dict[str, ModelStatus]
    timestamp: Timestamp


class ModelHealth(BaseModel):
    """The health of one model, and how to repair it."""

    model_id: str
    health_status: str = Field(description="healthy, corrupted, unsupported, partial or missing")
    is_healthy: bool
    issues: list[str]
    last_check: Timestamp | None = Field(None, description="When the oldest of its files was last verified")
    repair_suggestions: list[str]


class SystemModelHealth(BaseModel):
    """The health of all models in numbers."""

    models_healthy: int
    models_corrupted: int
    models_missing: int
    storage_usage_percent: float = Field(description="Of the disk that holds the home folder")
    last_updated: Timestamp


class ModelsHealth(BaseModel):
    """The health of every model."""

    system_health: SystemModelHealth
    model_health: dict[str, ModelHealth]
    recommendations: list[str]
    timestamp: Timestamp


@dataclass(frozen=True, slots=True)
class ModelContext:
    """What is known about the models besides their files: workers, tasks, videos."""

    workers: Sequence[WorkerInfo]
    needed: frozenset[str]  #: ids of models that a waiting or running task names
    uses: Mapping[str, ModelUse]
    downloading: int  #: how many are being downloaded

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
    return ModelDetails(
        **status.model_dump(),
        availability_status=status.status,
        corruption_detected=state.presence is Presence.CORRUPTED,
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
        downloading_models=scene.downloading,
        corrupted_models=_count(states, Presence.CORRUPTED),
        total_size_gb=round(sum(state.size_bytes for state in states) / GB, 3),
        last_updated=iso(utcnow()),
    )


def model_health(state: ModelState, suggestions: Sequence[str]) -> ModelHealth:
    """Show the health of one model; `suggestions` say what to do if it is damaged."""
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
    states, scene = services.models.states(), _context(services)
    totals = model_totals(states, scene)
    return DetailedStatuses(
        models={state.spec.id: model_details(state, scene) for state in states},
        system_statistics=totals,
        timestamp=totals.last_updated,
    )


@router.get("/status", summary="Status of all models")
def statuses(services: ServicesDep) -> ModelStatuses:
    """Return whether each model is installed, loaded and in use."""
    states, scene = services.models.states(), _context(services)
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
    return model_status(services.models.state(find_model(model_type)), _context(services))


@router.get("/summary", summary="Model totals")
def summary(services: ServicesDep) -> ModelsSummary:
    """Return the totals and a short status of each model."""
    states, scene = services.models.states(), _context(services)
    totals = model_totals(states, scene)
    return ModelsSummary(
        models_summary=totals,
        models={state.spec.id: model_status(state, scene) for state in states},
        timestamp=totals.last_updated,
    )


@router.get("/health", summary="Health of the models")
def health(services: ServicesDep) -> ModelsHealth:
    """Return the problems of each model and how to repair them. A model that was never downloaded is not a problem."""
    states = services.models.states()
    found = {state.spec.id: model_health(state, _advice(services, state)) for state in states}
    words = [one.health_status for one in found.values()]
    disk = shutil.disk_usage(services.home.root)
    now = iso(utcnow())
    return ModelsHealth(
        system_health=SystemModelHealth(
            models_healthy=words.count("healthy"),
            models_corrupted=words.count("corrupted"),
            models_missing=words.count("missing"),
            storage_usage_percent=round(100 * disk.used / disk.total, 1),
            last_updated=now,
        ),
        model_health=found,
        recommendations=[
            f"{one.model_id}: {issue}"
            for one in found.values()
            if one.health_status in (Presence.CORRUPTED, Presence.UNSUPPORTED)
            for issue in one.issues
        ],
        timestamp=now,
    )


def _context(services: Services) -> ModelContext:
    active = (task for status in TaskStatus if status not in TERMINAL for task in services.tasks.list(status))
    return ModelContext(
        workers=services.living_workers(),
        needed=frozenset(task.model for task in active),
        uses=services.outputs.uses(),
        downloading=sum(one.state in RUNNING for one in services.control.all().values()),
    )


def _advice(services: Services, state: ModelState) -> tuple[str, ...]:
    """Return the advice of the error that a task for this model would get."""
    try:
        services.models.folder(state.spec)
    except (ModelUnavailable, ModelDamaged) as error:
        return error.next_steps
    return ()
