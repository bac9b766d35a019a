"""The route that says for every model, also for missing ones, whether this machine can run it at its native size."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp
from backend.api.planning.estimate import MachineView, machine_view
from backend.core.domain import iso, utcnow
from backend.core.planning.memory_plan import Placement
from backend.core.planning.optimizer import Decision
from backend.services.planning.advisor import to_gib

router = Routes(prefix="/models", tags=["models"])

#: A clip that takes longer than this, in seconds, is nothing that somebody waits for at the page.
SLOW_SECONDS: Final = 1800.0


class FitVerdict(StrEnum):
    """Whether a model runs on this machine."""

    YES = "yes"
    SLOWLY = "slowly"
    NO = "no"


class ModelFit(BaseModel):
    """What one clip at a model's native size would take here; all numbers are estimates."""

    verdict: FitVerdict = Field(
        description="slowly: it fits, but its weights stream from the host's memory in every step, or a clip takes "
        "more than half an hour"
    )
    reason: str
    clip: str = Field(description="The clip that was weighed: size and frames")
    plan: str | None = None
    seconds: float | None = Field(None, description="With the model in memory; absent for an unknown card")
    vram_gb: float | None = Field(None, description="GiB of the card at the peak; absent without a card")
    ram_gb: float | None = Field(None, description="GiB of the host's memory at the peak")


class ModelFits(BaseModel):
    """Every model on this machine."""

    machine: MachineView
    models: dict[str, ModelFit]
    timestamp: Timestamp


@router.get("/fit", summary="Which models this machine can run")
def fit(services: ServicesDep) -> ModelFits:
    """Weigh one clip of each model at its native size under the settings in force. Looks at no files."""
    decisions = services.advisor.native_decisions()
    return ModelFits(
        machine=machine_view(services.advisor.machine),
        models={spec.id: model_fit(decision) for spec, decision in decisions.items()},
        timestamp=iso(utcnow()),
    )


def model_fit(decision: Decision) -> ModelFit:
    """Show one model."""
    chosen, work = decision.chosen, decision.work
    clip = f"{work.width}x{work.height}, {work.num_frames} frames"
    if chosen is None:
        return ModelFit(
            verdict=FitVerdict.NO, reason=decision.reason, clip=clip, seconds=None, vram_gb=None, ram_gb=None
        )
    seconds = round(chosen.seconds.warm, 2) if decision.seconds_known else None
    slow = chosen.plan.placement is Placement.BLOCK_STREAM or (seconds or 0.0) > SLOW_SECONDS
    return ModelFit(
        verdict=FitVerdict.SLOWLY if slow else FitVerdict.YES,
        reason=decision.reason,
        clip=clip,
        plan=chosen.name,
        seconds=seconds,
        vram_gb=to_gib(chosen.needs.vram) if decision.machine.cuda else None,
        ram_gb=to_gib(chosen.needs.ram),
    )
