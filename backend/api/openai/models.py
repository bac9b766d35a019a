"""The models as OpenAI's client libraries list them."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated

from fastapi import Path, Request
from fastapi.responses import Response

from backend.api.http.deps import ServicesDep
from backend.api.http.errors import answer_to
from backend.api.http.routing import Routes, refusals
from backend.api.openai.shapes import Model, ModelPage
from backend.core.errors.requests import UnknownModel
from backend.services.system.container import Services

router = Routes(prefix="/v1/models", tags=["openai"])


@router.get("", summary="The models, as OpenAI lists them")
def list_models(services: ServicesDep) -> ModelPage:
    """List the models that are installed, and those whose files a task would download."""
    return ModelPage(data=_usable(services))


@router.get(
    "/{model}", response_model=Model, summary="One model, as OpenAI shows it", responses=refusals({404: "No such one"})
)
def one_model(
    model: Annotated[str, Path(description="Its id")], services: ServicesDep, request: Request
) -> Model | Response:
    """Show a model of the list."""
    for one in _usable(services):
        if one.id == model:
            return one
    missing = UnknownModel(
        "There is no model with this id",
        suggestions=("List the models with GET /v1/models.",),
        details={"field": "model"},
    )
    return answer_to(missing, request.scope, status=404)


def _usable(services: Services) -> list[Model]:
    found = []
    for state in services.models.states():
        repository, since = state.spec.repo_id, 0
        if state.available:
            with suppress(OSError):
                since = int(state.folder.stat().st_mtime)
        if state.available or (repository is not None and services.settings.auto_download):
            owner = "wan22" if repository is None else repository.partition("/")[0]
            found.append(Model(id=state.spec.id, created=since, owned_by=owner))
    return found
