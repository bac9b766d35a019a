"""Routes of the system as a whole: every component with its state, and the machine below them."""

from __future__ import annotations

from fastapi import APIRouter

from backend.api.deps import ServicesDep
from backend.api.diagnosis import diagnose
from backend.api.integration_schemas import (
    BriefHardware,
    CardView,
    ComponentView,
    HardwareView,
    IntegrationStatus,
    OptimizationStatus,
    SystemIntegrationView,
)
from backend.api.model_views import folder_of
from backend.api.optimization import advice, values_view
from backend.api.system import worker_view
from backend.core.domain import iso, utcnow
from backend.core.planning.hardware import HardwareProfile, detect_hardware, last_profile
from backend.core.system_integration import ComponentState
from backend.services.planning.advisor import to_gib

router = APIRouter(tags=["system"])


@router.get(
    "/models/integration/status",
    response_model=IntegrationStatus,
    response_model_exclude_none=True,
    summary="Every component of this server",
)
def integration_status(services: ServicesDep) -> IntegrationStatus:
    """Ask every component how it is now: from the disk to the workers, each with a sentence and since when."""
    found = diagnose(services)
    system = found.system
    return IntegrationStatus(
        status=system.status,
        initialized=not system.errors,
        message=found.message,
        components={one.name: _component(one) for one in system.components},
        initialization_errors=list(system.errors),
        available_models=[state.spec.id for state in services.models.states() if state.available],
        loaded_models=sorted({worker.model for worker in found.workers if worker.model is not None}),
        workers=[worker_view(worker) for worker in found.workers],
        timestamp=iso(utcnow()),
    )


@router.get(
    "/system/optimization/status",
    response_model=OptimizationStatus,
    response_model_exclude_none=True,
    summary="The system and what plans keep to",
)
def optimization_status(services: ServicesDep) -> OptimizationStatus:
    """Say which components are ready, which optimization settings are in force, and what this machine is."""
    system = services.system.look()
    return OptimizationStatus(
        system_integration=SystemIntegrationView(
            initialized=not system.errors,
            components={one.name: one.ready for one in system.components},
            initialization_errors=list(system.errors),
        ),
        optimization_settings=values_view(services.advisor.current()),
        hardware_profile=_brief(detect_hardware(services.home.root)),
        model_paths={state.spec.id: folder_of(state) for state in services.models.states() if state.available},
        timestamp=iso(utcnow()),
    )


@router.get(
    "/system/hardware/profile", response_model=HardwareView, response_model_exclude_none=True, summary="This machine"
)
def hardware_profile(services: ServicesDep) -> HardwareView:
    """Look at the machine now: processor, memory, cards, disk, and what of it could not be found out."""
    profile = detect_hardware(services.home.root)
    before = last_profile(services.home.hardware_file)
    disk = profile.disk
    return HardwareView(
        **_brief(profile).model_dump(),
        architecture_type="cuda" if profile.gpus else "cpu",
        installed_memory_gb=to_gib(profile.memory_total) or 0.0,
        available_memory_gb=to_gib(profile.memory_available),
        cards=[
            CardView(
                index=gpu.index,
                name=gpu.name,
                vram_gb=to_gib(gpu.memory_total),
                compute_capability=".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else None,
            )
            for gpu in profile.gpus
        ],
        driver=profile.driver,
        disk_free_gb=None if disk is None else to_gib(disk.free),
        disk_total_gb=None if disk is None else to_gib(disk.total),
        findings=list(profile.findings),
        changes=[] if before is None else profile.changes_since(before),
        optimization_recommendations=[f"{one.message} ({one.reason})" for one in advice(services)],
    )


def _component(state: ComponentState) -> ComponentView:
    return ComponentView(
        status=state.status,
        is_ready=state.ready,
        message=state.sentence,
        since=iso(state.since),
        essential=state.essential,
    )


def _brief(profile: HardwareProfile) -> BriefHardware:
    first = profile.gpus[0] if profile.gpus else None
    return BriefHardware(
        cpu_model=profile.processor,
        cpu_cores=profile.cores,
        total_memory_gb=to_gib(profile.memory) or 0.0,
        gpu_model=None if first is None else first.name,
        vram_gb=None if first is None else to_gib(first.memory_total),
    )
