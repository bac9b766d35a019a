"""Routes of the system as a whole: the state of every component, the machine, and the constraints on plans."""

from __future__ import annotations

from pydantic import BaseModel, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.http.shapes import Timestamp
from backend.api.models.status import folder_of
from backend.api.planning.settings import OptimizationValues, advice, values_view
from backend.api.system.health import WorkerView, diagnose, worker_view
from backend.core.domain import iso, utcnow
from backend.core.planning.hardware import HardwareProfile, detect_hardware, last_profile
from backend.core.system_integration import ComponentState
from backend.services.planning.advisor import to_gib

router = Routes(tags=["system"])


class ComponentView(BaseModel):
    """One part of this server, asked just now."""

    status: str = Field(description="not_started, starting, ready, degraded or failed")
    is_ready: bool
    message: str
    since: Timestamp = Field(description="When it came into this status, as far as it was looked at")
    essential: bool = Field(description="Whether the server cannot live without it")


class IntegrationStatus(BaseModel):
    """Everything below the routes, in one answer."""

    status: str = Field(description="not_started, starting, ready, degraded or failed")
    initialized: bool = Field(description="Whether every component was started without an error")
    message: str
    components: dict[str, ComponentView] = Field(description="In the order of their start")
    initialization_errors: list[str]
    available_models: list[str]
    loaded_models: list[str] = Field(description="In the memory of a worker")
    workers: list[WorkerView]
    timestamp: Timestamp


class SystemIntegrationView(BaseModel):
    """The components in brief."""

    initialized: bool
    components: dict[str, bool] = Field(description="Whether each is ready")
    initialization_errors: list[str]


class CardView(BaseModel):
    """One NVIDIA card."""

    index: int
    name: str
    vram_gb: float | None = None
    compute_capability: str | None = None


class BriefHardware(BaseModel):
    """The machine in the words of older clients."""

    cpu_model: str
    cpu_cores: int
    total_memory_gb: float = Field(description="What this server may use of the memory")
    gpu_model: str | None = None
    vram_gb: float | None = None


class HardwareView(BriefHardware):
    """The machine, looked at just now; what could not be found out is absent."""

    architecture_type: str = Field(description="cuda where there is a card, else cpu")
    installed_memory_gb: float
    available_memory_gb: float | None = None
    cards: list[CardView]
    driver: str | None = None
    disk_free_gb: float | None = None
    disk_total_gb: float | None = None
    findings: list[str] = Field(description="What could not be found out, and why")
    changes: list[str] = Field(description="What is another thing now than at the start of this server")
    optimization_recommendations: list[str]


class OptimizationStatus(BaseModel):
    """How the system is, what plans keep to, and the machine."""

    system_integration: SystemIntegrationView
    optimization_settings: OptimizationValues
    hardware_profile: BriefHardware
    model_paths: dict[str, str] = Field(description="Of the models that are here, inside the home folder; or embedded")
    timestamp: Timestamp


@router.get("/models/integration/status", summary="Every component of this server")
def integration_status(services: ServicesDep) -> IntegrationStatus:
    """Ask every component how it is now: from the disk to the workers, each with a sentence and since when."""
    system = services.system.inspect()
    found = diagnose(services, system)
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


@router.get("/system/optimization/status", summary="The system and what plans keep to")
def optimization_status(services: ServicesDep) -> OptimizationStatus:
    """Say which components are ready, which optimization settings are in force, and what this machine is."""
    system = services.system.snapshot()
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


@router.get("/system/hardware/profile", summary="This machine")
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
