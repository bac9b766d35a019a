"""How an estimate looks to a client: from a decision to the shapes of `estimate_schemas.py`."""

from __future__ import annotations

from backend.api.estimate_schemas import Estimated, MachineView, PlanView, Quantity, WouldFit
from backend.api.views import download_first, known
from backend.core.planning.cost_model import TERA, Basis, denoise_flops
from backend.core.planning.hardware import GIB
from backend.core.planning.machine import Machine
from backend.core.planning.optimizer import Decision, Option
from backend.services.generation_service import Estimate
from backend.services.planning.forecast import suggestion


def estimated(estimate: Estimate) -> Estimated:
    """Show an estimate."""
    decision, prepared = estimate.decision, estimate.prepared
    request, work = prepared.requests[0], decision.work
    fitting = suggestion(decision)
    message = decision.reason if decision.fits else f"{decision.reason}. {decision.would_fit}."
    return Estimated(
        message=message,
        fits=decision.fits,
        detected_model_type=work.model,
        available=estimate.available,
        download=download_first(estimate.fetch),
        reasons=[*prepared.choice.reasons, decision.reason],
        adjustments=list(prepared.notes),
        parameters=known(request.to_json()) | {"model_type": work.model, "resolution": request.resolution},
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
    told = option.seconds if decision.seconds_known else None
    return PlanView(
        name=plan.name,
        placement=plan.placement,
        storage=plan.storage,
        tiled_decode=plan.tiled_decode,
        tile_size=plan.tile_size if plan.tiled_decode else None,
        text_encoder_on_cpu=plan.text_encoder_on_cpu,
        fits=option.fits,
        reason=option.reason,
        vram=_gib(needs.vram, measured="vram" in needs.measured),
        ram_pinned=_gib(needs.pinned, measured="ram" in needs.measured),
        ram_pageable=_gib(needs.pageable, measured="ram" in needs.measured),
        disk=_gib(needs.disk),
        seconds=None if told is None else Quantity(value=round(told.warm, 2), unit="s", basis=told.basis.value),
        load_seconds=None
        if option.seconds.load is None
        else Quantity(value=round(option.seconds.load, 2), unit="s", basis=Basis.MEASURED.value),
    )


def _gib(size: int, *, measured: bool = False) -> Quantity:
    basis = Basis.MEASURED if measured else Basis.ESTIMATED
    return Quantity(value=round(size / GIB, 3), unit="GiB", basis=basis.value)


def machine_view(machine: Machine) -> MachineView:
    """Show the machine that was decided for."""
    capability = machine.compute_capability
    return MachineView(
        device=machine.name,
        kind="cuda" if machine.cuda else "cpu",
        vram_gib=None if machine.vram is None else round(machine.vram / GIB, 2),
        ram_gib=None if machine.ram is None else round(machine.ram / GIB, 2),
        compute_capability=None if capability is None else f"{capability[0]}.{capability[1]}",
    )
