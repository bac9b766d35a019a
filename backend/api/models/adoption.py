"""Routes that use the model files of other programs here. No path comes from a client, and none goes to it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.core.catalogue.table import find_model
from backend.models.adoption.plans import Plan
from backend.services.models.adoption import AdoptionStep

router = Routes(prefix="/models", tags=["models"])


class FoundPart(BaseModel):
    """One file that would be used."""

    name: str = Field(description="What it becomes, relative to the model's folder")
    file: str = Field(description="Its own name and that of its folder")


class AdoptionPlan(BaseModel):
    """What was found of one model."""

    model_id: str
    status: str = Field(description="What the server has of it now")
    found_bytes: int
    missing: list[str] = Field(description="Components that a download would have to bring")
    worthwhile: bool = Field(description="Whether it is not installed and its transformers were all found")
    question: str | None = Field(None, description="What has to be decided first, with `wan22 models adopt --use`")
    files: list[FoundPart]


class AdoptionSurvey(BaseModel):
    """What other programs have."""

    folders: int = Field(description="Folders that were searched: the usual ones, and the setting `model_roots`")
    plans: list[AdoptionPlan]


class AdoptionAsked(BaseModel):
    """The models to adopt."""

    model_config = ConfigDict(extra="forbid")

    models: list[Annotated[str, Field(max_length=128)]] = Field(min_length=1, max_length=50)


class AdoptionProgress(BaseModel):
    """How far one model is."""

    model_id: str
    total_bytes: int
    done_bytes: int
    ended: bool
    complete: bool = Field(description="Whether it is installed; once ended without it, a download completes it")
    error: str | None = None


class AdoptionState(BaseModel):
    """The models of the newest request."""

    models: list[AdoptionProgress]


@router.post("/adoption/survey", summary="Search for model files of other programs")
def survey(services: ServicesDep) -> AdoptionSurvey:
    """Search the Hugging Face cache, ComfyUI, Wan2GP and the folders of `model_roots`; changes nothing."""
    return AdoptionSurvey(
        folders=len(services.adoption.roots()), plans=[_plan(plan) for plan in services.adoption.survey()]
    )


@router.post("/adoption", summary="Use model files of other programs")
def adopt(asked: AdoptionAsked, services: ServicesDep) -> AdoptionState:
    """Link the files that a survey found into the home folder, and verify each once, in the background.

    The other program keeps its files. What is missing then comes with a download, which resumes there.
    """
    specs = list(dict.fromkeys(find_model(name) for name in asked.models))
    return _state(services.adoption.start(specs))


@router.get("/adoption", summary="Progress of an adoption")
def adoption(services: ServicesDep) -> AdoptionState:
    """Return how far the models of the newest request are."""
    return _state(services.adoption.steps())


def _plan(plan: Plan) -> AdoptionPlan:
    return AdoptionPlan(
        model_id=plan.spec.id,
        status=plan.presence,
        found_bytes=plan.size_bytes,
        missing=list(plan.lacking),
        worthwhile=plan.worthwhile,
        question=plan.question or None,
        files=[FoundPart(name=part.name, file="/".join(part.source.parts[-2:])) for part in plan.parts.files],
    )


def _state(steps: list[AdoptionStep]) -> AdoptionState:
    return AdoptionState(
        models=[
            AdoptionProgress(
                model_id=step.spec.id,
                total_bytes=step.total_bytes,
                done_bytes=step.done_bytes,
                ended=step.ended,
                complete=step.complete,
                error=step.error.message if step.error else None,
            )
            for step in steps
        ]
    )
