"""The route about the health of the models: what is wrong with their files, and how to repair it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp
from backend.api.models.status import broken_files, last_check
from backend.core.domain import iso, utcnow
from backend.core.errors.models import ModelDamaged, ModelUnavailable
from backend.models.folder.integrity import FileFinding
from backend.models.folder.manager import ModelState, Presence
from backend.services.system.container import Services

router = Routes(prefix="/models", tags=["models"])


class ModelHealth(BaseModel):
    """The health of one model, and how to repair it."""

    model_id: str
    health_status: str = Field(description="healthy, corrupted, unsupported, partial or missing")
    is_healthy: bool
    issues: list[str]
    corruption_types: list[str] = Field(description="missing, truncated or corrupted: the states of its bad files")
    can_auto_repair: bool = Field(description="Whether a download would repair it; intact files are kept")
    last_check: Timestamp | None = Field(None, description="When the oldest of its files was last verified")
    repair_suggestions: list[str]


class SystemModelHealth(BaseModel):
    """The health of all models in numbers."""

    models_healthy: int
    models_degraded: int = Field(description="Unfinished downloads, and files in a form that is not supported")
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


@router.get("/health", summary="Health of the models")
def health(services: ServicesDep) -> ModelsHealth:
    """Return the problems of each model and how to repair them. A model that was never downloaded is not a problem."""
    states = services.models.states()
    broken = broken_files(services, states)
    found = {
        state.spec.id: model_health(state, _advice(services, state), broken.get(state.spec.id, ())) for state in states
    }
    words = [one.health_status for one in found.values()]
    disk = shutil.disk_usage(services.home.root)
    now = iso(utcnow())
    return ModelsHealth(
        system_health=SystemModelHealth(
            models_healthy=words.count("healthy"),
            models_degraded=words.count(Presence.PARTIAL) + words.count(Presence.UNSUPPORTED),
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


def model_health(state: ModelState, suggestions: Sequence[str], broken: Sequence[FileFinding] = ()) -> ModelHealth:
    """Show the health of one model; `suggestions` say what to do if it is damaged, `broken` are its bad files."""
    seen = last_check(state)
    damaged = state.presence in (Presence.CORRUPTED, Presence.PARTIAL)
    return ModelHealth(
        model_id=state.spec.id,
        health_status="healthy" if state.available else state.presence,
        is_healthy=state.available,
        issues=[] if state.reason is None else [state.reason],
        corruption_types=sorted({one.state for one in broken}),
        can_auto_repair=damaged and state.spec.repo_id is not None and not state.folder.is_symlink(),
        last_check=None if seen is None else iso(seen),
        repair_suggestions=list(suggestions),
    )


def _advice(services: Services, state: ModelState) -> tuple[str, ...]:
    """Return the advice of the error that a task for this model would get."""
    try:
        services.models.folder(state.spec)
    except (ModelUnavailable, ModelDamaged) as error:
        return error.next_steps
    return ()
