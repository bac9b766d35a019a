"""The route that lists the models: which are here, what the others need, what each accepts."""

from __future__ import annotations

from fastapi import APIRouter

from backend.api.deps import ServicesDep
from backend.api.schemas import ModelList
from backend.api.views import model_info
from backend.core.domain import iso, utcnow
from backend.core.errors import ModelUnavailable

router = APIRouter(prefix="/models", tags=["models"])


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
