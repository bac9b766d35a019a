"""The shapes of the health and statistics routes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from backend.api.schemas import Timestamp


class SystemStats(BaseModel):
    """How busy this machine is, in the units of the field names; the GPU numbers are 0 where `gpu_available` is false.

    Old clients format these fields without looking, so they must be numbers; more than one card is added up.
    """

    cpu_percent: float
    ram_used_gb: float
    ram_total_gb: float
    ram_percent: float
    gpu_percent: float
    vram_used_mb: float
    vram_total_mb: float
    vram_percent: float
    gpu_available: bool
    memory_percent: float
    disk_usage: float
    timestamp: Timestamp


class WorkerView(BaseModel):
    """One worker process."""

    worker_id: str
    device: str
    state: str
    detail: str | None = None
    seen_at: Timestamp
    device_reason: str | None = Field(default=None, description="Why it computes on this device")
    attention: str | None = None
    precision: str | None = None
    warnings: list[str] = Field(default_factory=list, description="What does not work there, and what helps")


class SystemInfo(BaseModel):
    """What the health indicator shows."""

    cpu_percent: float
    ram_percent: float
    vram_percent: float | None = None
    issues: list[str]
    warnings: list[str]
    recommendations: list[str]
    resource_constraints: list[str]


class SystemHealth(BaseModel):
    """Whether the system works; unknown numbers are absent."""

    status: str = Field(description="healthy, degraded or unhealthy; healthy, warning or critical without the prefix")
    health_status: str = Field(description="healthy, warning or critical")
    message: str
    backend_online: bool
    database_connected: bool
    gpu_available: bool
    worker_alive: bool
    memory_usage: float
    gpu_memory_usage: float | None = None
    active_tasks: int | None = None
    uptime: float
    port: int
    timestamp: Timestamp
    version: str
    api_version: str
    system: str
    service: str
    endpoints: dict[str, str]
    connectivity: dict[str, Any]
    server_info: dict[str, Any]
    system_info: SystemInfo
    workers: list[WorkerView]


class BriefHealth(BaseModel):
    """Whether the system works, in brief."""

    status: str = Field(description="healthy, degraded or unhealthy")
    timestamp: Timestamp
    version: str


class Ports(BaseModel):
    """Where this server listens; page and API share one port."""

    backend_port: int
    frontend_port: int
    status: str = "ok"


class Alive(BaseModel):
    """This process answers."""

    status: str = "alive"


class Ready(BaseModel):
    """This server can take and run tasks."""

    status: str = "ready"
    workers: int


class SocketStats(BaseModel):
    """Who listens to what over WebSocket."""

    active_connections: int
    subscription_counts: dict[str, int]
    available_topics: list[str]
