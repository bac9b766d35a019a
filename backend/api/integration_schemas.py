"""The shapes of the status of the whole system: its components, its machine, what plans keep to."""

from __future__ import annotations

from pydantic import BaseModel, Field

from backend.api.optimization_schemas import OptimizationValues
from backend.api.schemas import Timestamp
from backend.api.system_schemas import WorkerView


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
