"""Routes about the models: which are here, loaded and in use, what the others need, what each accepts."""

from __future__ import annotations

import shutil
from typing import Annotated

from fastapi import APIRouter, Path

from backend.api.deps import Services, ServicesDep
from backend.api.model_schemas import (
    DetailedStatuses,
    ModelsHealth,
    ModelsSummary,
    ModelStatus,
    ModelStatuses,
    SystemModelHealth,
)
from backend.api.model_views import ModelScene, model_details, model_health, model_status, model_totals
from backend.api.schemas import ModelList
from backend.api.views import model_info
from backend.core.catalogue.table import find_model, models_in_force
from backend.core.domain import TERMINAL, TaskStatus, iso, utcnow
from backend.core.errors import ModelDamaged, ModelUnavailable
from backend.models.folder.manager import ModelState

router = APIRouter(prefix="/models", tags=["models"])

ModelName = Annotated[str, Path(description="A model's id or one of its aliases", max_length=128)]


@router.get("", response_model=ModelList, response_model_exclude_none=True, summary="All models")
def list_models(services: ServicesDep) -> ModelList:
    """List every model with its defaults and limits; what is not here says what it needs."""
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


@router.get(
    "/status/detailed",
    response_model=DetailedStatuses,
    response_model_exclude_none=True,
    summary="All models, and their use",
)
def detailed_statuses(services: ServicesDep) -> DetailedStatuses:
    """Say of every model where it stands and what it has been used for."""
    states, scene = services.models.states(), _scene(services)
    totals = model_totals(states, scene)
    return DetailedStatuses(
        models={state.spec.id: model_details(state, scene) for state in states},
        system_statistics=totals,
        timestamp=totals.last_updated,
    )


@router.get(
    "/status", response_model=ModelStatuses, response_model_exclude_none=True, summary="Where every model stands"
)
def statuses(services: ServicesDep) -> ModelStatuses:
    """Say of every model whether it is here, loaded and in use."""
    states, scene = services.models.states(), _scene(services)
    return ModelStatuses(
        models={state.spec.id: model_status(state, scene) for state in states},
        total_models=len(states),
        available_models=sum(state.available for state in states),
        configuration_faults=list(models_in_force().faults) or None,
        timestamp=iso(utcnow()),
    )


@router.get(
    "/status/{model_type}",
    response_model=ModelStatus,
    response_model_exclude_none=True,
    summary="Where one model stands",
)
def status(model_type: ModelName, services: ServicesDep) -> ModelStatus:
    """Say whether a model is here, loaded and in use. An unknown name is refused."""
    return model_status(services.models.state(find_model(model_type)), _scene(services))


@router.get("/summary", response_model=ModelsSummary, response_model_exclude_none=True, summary="The models in numbers")
def summary(services: ServicesDep) -> ModelsSummary:
    """Count the models, and say in brief where each stands."""
    states, scene = services.models.states(), _scene(services)
    totals = model_totals(states, scene)
    return ModelsSummary(
        models_summary=totals,
        models={state.spec.id: model_status(state, scene) for state in states},
        timestamp=totals.last_updated,
    )


@router.get(
    "/health",
    response_model=ModelsHealth,
    response_model_exclude_none=True,
    summary="Whether the models can be relied on",
)
def health(services: ServicesDep) -> ModelsHealth:
    """Say of every model what is wrong with it and how that is mended. A model that was never fetched is no fault."""
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
            if one.health_status == "corrupted"
            for issue in one.issues
        ],
        timestamp=now,
    )


def _scene(services: Services) -> ModelScene:
    active = (task for status in TaskStatus if status not in TERMINAL for task in services.tasks.list(status))
    return ModelScene(
        workers=services.living_workers(),
        needed=frozenset(task.model for task in active),
        uses=services.outputs.uses(),
    )


def _advice(services: Services, state: ModelState) -> tuple[str, ...]:
    """Return what the error says that a task for this model would get."""
    try:
        services.models.folder(state.spec)
    except (ModelUnavailable, ModelDamaged) as error:
        return error.next_steps
    return ()
