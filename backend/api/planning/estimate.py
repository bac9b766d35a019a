"""Response shapes of an estimate, and their construction from the planner's decision."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from backend.api.http.shapes import DownloadFirst, download_first, known
from backend.core.planning.cost_model import TERA, Basis, denoise_flops
from backend.core.planning.hardware import GIB
from backend.core.planning.machine import Machine
from backend.core.planning.memory_plan import Storage
from backend.core.planning.optimizer import Decision, Option
from backend.services.planning.forecast import suggestion
from backend.services.submission import Estimate

BasisWord = Literal["estimated", "measured"]


class Quantity(BaseModel):
    """A number with its unit and origin."""

    value: float
    unit: Literal["GiB", "s"]
    basis: BasisWord = Field(description="`measured`: based on finished tasks of this machine")


class PlanView(BaseModel):
    """One way to lay the model out between the device and the host's memory."""

    name: str
    placement: str = Field(description="resident, expert-swap or block-stream")
    storage: str = Field(description="bf16 or fp8; fp32 where everything computes in float32")
    tiled_decode: bool
    tile_size: int | None = Field(None, description="Side of a tile in pixels, if decoding is tiled")
    text_encoder_on_cpu: bool
    fits: bool
    reason: str = Field(description="Why it was chosen or not")
    vram: Quantity | None = Field(None, description="Peak on the card; absent without a card")
    ram_pinned: Quantity
    ram_pageable: Quantity
    disk: Quantity = Field(description="The model's files and a run's saved state, without the finished clip")
    seconds: Quantity | None = Field(None, description="A run with the model in memory; absent for an unknown card")
    load_seconds: Quantity | None = Field(
        None, description="Time to load the model; absent until a model has been loaded"
    )


class MachineView(BaseModel):
    """The machine that the decision is for."""

    device: str
    kind: Literal["cpu", "cuda"]
    vram_gib: float | None = Field(None, description="Absent without a card, or if its memory is unknown")
    ram_gib: float | None = None
    compute_capability: str | None = None


class WouldFit(BaseModel):
    """A request that fits this machine."""

    model_type: str
    resolution: str
    num_frames: int
    steps: int


class Estimated(BaseModel):
    """How a request would run and what it needs; nothing was queued."""

    success: bool = True
    queued: Literal[False] = False
    message: str
    fits: bool
    detected_model_type: str
    available: bool = Field(description="Whether the model is installed")
    download: DownloadFirst | None = Field(None, description="What a task would download first")
    reasons: list[str] = Field(description="Why this model, and why this plan or none")
    adjustments: list[str] = Field(description="One sentence for each value adjusted to fit the model")
    prompt_notes: list[str] = Field(description="Those of them that say what the model does not read of the prompts")
    parameters: dict[str, Any] = Field(description="Every value that affects the frames")
    prompt_tokens: int | None = Field(None, description="Of the whole prompt, where the model's tokenizer is here")
    prompt_tokens_read: int | None = Field(None, description="How many of them the model reads at most")
    tokens: int = Field(description="Of the latents")
    forward_passes: int = Field(description="Forward passes of a transformer over all steps")
    tflop: float = Field(description="Exact number of operations of the denoising, in 10^12")
    machine: MachineView
    plan: PlanView | None = Field(None, description="The chosen plan; absent if none fits")
    would_fit: WouldFit | None = Field(None, description="A request that fits, if this one does not")
    options: list[PlanView] = Field(description="Every plan, each with its reason")


def estimated(estimate: Estimate) -> Estimated:
    """Build the response of an estimate."""
    decision, prepared = estimate.decision, estimate.prepared
    request, work = prepared.requests[0], decision.work
    fitting = suggestion(decision)
    message = decision.reason if decision.fits else f"{decision.reason}. {decision.would_fit}."
    if estimate.fits and not decision.fits:
        message = f"It is accepted but may run out of memory: {message}"
    return Estimated(
        message=message,
        fits=estimate.fits,
        detected_model_type=work.model,
        available=estimate.available,
        download=download_first(estimate.fetch),
        reasons=[*prepared.choice.reasons, decision.reason],
        adjustments=list(prepared.notes),
        prompt_notes=list(prepared.unread),
        parameters=known(request.to_json()) | {"model_type": work.model, "resolution": request.resolution},
        prompt_tokens=None if estimate.length is None else estimate.length.tokens,
        prompt_tokens_read=None if estimate.length is None else estimate.length.limit,
        tokens=work.architecture.tokens(*work.size),
        forward_passes=work.passes,
        tflop=round(denoise_flops(work) / TERA, 4),
        machine=machine_view(decision.machine),
        plan=None if decision.chosen is None else _plan(decision.chosen, decision),
        would_fit=None if fitting is None else WouldFit(**fitting),
        options=[_plan(option, decision) for option in decision.options],
    )


def _plan(option: Option, decision: Decision) -> PlanView:
    plan, needs = option.plan, option.needs
    times = option.seconds if decision.seconds_known else None
    return PlanView(
        name=option.name,
        placement=plan.placement,
        storage="fp32" if option.float32 and plan.storage is Storage.BF16 else plan.storage,
        tiled_decode=plan.tiled_decode,
        tile_size=plan.tile_size if plan.tiled_decode else None,
        text_encoder_on_cpu=plan.text_encoder_on_cpu,
        fits=option.fits,
        reason=option.reason,
        vram=_gib(needs.vram, measured="vram" in needs.measured) if decision.machine.cuda else None,
        ram_pinned=_gib(needs.pinned, measured="ram" in needs.measured),
        ram_pageable=_gib(needs.pageable, measured="ram" in needs.measured),
        disk=_gib(needs.disk),
        seconds=None if times is None else Quantity(value=round(times.warm, 2), unit="s", basis=times.basis.value),
        load_seconds=None
        if option.seconds.load is None
        else Quantity(value=round(option.seconds.load, 2), unit="s", basis=Basis.MEASURED.value),
    )


def _gib(size: int, *, measured: bool = False) -> Quantity:
    basis = Basis.MEASURED if measured else Basis.ESTIMATED
    return Quantity(value=round(size / GIB, 3), unit="GiB", basis=basis.value)


def machine_view(machine: Machine) -> MachineView:
    """Build the view of the planner's machine."""
    capability = machine.compute_capability
    return MachineView(
        device=machine.name,
        kind="cuda" if machine.cuda else "cpu",
        vram_gib=None if machine.vram is None else round(machine.vram / GIB, 2),
        ram_gib=None if machine.ram is None else round(machine.ram / GIB, 2),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
    )
