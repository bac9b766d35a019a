"""What the routes are given: the stores and services of this process, made once by `backend.app`.

Also the ids in paths: clients name tasks and outputs by id only, and an id that cannot be one is not found.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from fastapi import Depends, Path, Request

from backend.api.host_stats import HostStats
from backend.api.websocket import ConnectionManager
from backend.core.config.download_limit import KeptDownloads
from backend.core.errors import OutputNotFound, TaskNotFound
from backend.core.paths import Home
from backend.core.planning.constraints import KeptOptimization
from backend.core.planning.memory_level import KeptLimits
from backend.core.settings import Settings
from backend.core.system_integration import SystemIntegration
from backend.models.folder.manager import ModelManager
from backend.models.lora.library import LoraLibrary
from backend.models.own.configuration import ModelConfigurationManager
from backend.services.downloads.control import DownloadControl
from backend.services.downloads.runner import ModelDownloads
from backend.services.generation_service import GenerationService
from backend.services.media.images import InputStore
from backend.services.models.availability import ModelNeed
from backend.services.models.cleanup import StorageCleanup
from backend.services.models.fallback import FallbackAdvisor
from backend.services.models.recheck import Recheck
from backend.services.planning.advisor import OptimizationAdvisor
from backend.store.download_orders import DownloadOrders
from backend.store.events import EventLog
from backend.store.outputs import OutputStore, UsageStore
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerInfo, WorkerStore

_ID = re.compile(r"^[A-Za-z0-9-]{1,64}$")


class SupervisorState(Protocol):
    """How the local worker is doing."""

    @property
    def status(self) -> str:
        """One of starting, running, backoff, defunct, stopped."""

    @property
    def reason(self) -> str | None:
        """Why it is not running."""


class Supervisor(Protocol):
    """Whoever keeps a local worker alive; the web process starts and stops it and asks how it is."""

    @property
    def state(self) -> SupervisorState:
        """How the worker is doing."""

    def start(self) -> None:
        """Start the worker."""

    def stop(self, grace: float) -> None:
        """Stop the worker; after `grace` seconds by force."""


@dataclass(frozen=True)
class Services:
    """Everything a route may use."""

    settings: Settings
    home: Home
    tasks: TaskStore
    events: EventLog
    outputs: OutputStore
    workers: WorkerStore
    configuration: ModelConfigurationManager
    models: ModelManager
    loras: LoraLibrary
    inputs: InputStore
    generation: GenerationService
    downloads: ModelDownloads
    orders: DownloadOrders
    control: DownloadControl
    pace: KeptDownloads
    need: ModelNeed
    cleanup: StorageCleanup
    recheck: Recheck
    stats: HostStats
    sockets: ConnectionManager
    supervisor: Supervisor | None
    system: SystemIntegration
    optimization: KeptOptimization
    limits: KeptLimits
    advisor: OptimizationAdvisor
    usage: UsageStore
    fallbacks: FallbackAdvisor
    started: float = field(default_factory=time.monotonic)

    @property
    def uptime(self) -> float:
        """Seconds since this process started to serve."""
        return time.monotonic() - self.started

    def living_workers(self) -> list[WorkerInfo]:
        """Return the workers that were heard of within a lease and whose processes are not known to be gone."""
        return [one for one in self.workers.alive(self.settings.lease_seconds) if not one.is_dead()]


async def services_of(request: Request) -> Services:
    """Return the services of the app that serves this request, with the table of models as config.json has it now."""
    services: Services = request.app.state.services
    services.configuration.refresh()
    return services


async def task_in_path(task_id: Annotated[str, Path(description="Id of the task")]) -> str:
    """Return the path's task id if it can be one.

    Raises:
        TaskNotFound: it cannot.
    """
    if not _ID.match(task_id):
        raise TaskNotFound
    return task_id


async def output_in_path(output_id: Annotated[str, Path(description="Id of the video, which is its task's id")]) -> str:
    """Return the path's output id if it can be one.

    Raises:
        OutputNotFound: it cannot.
    """
    if not _ID.match(output_id):
        raise OutputNotFound
    return output_id


ServicesDep = Annotated[Services, Depends(services_of)]
TaskId = Annotated[str, Depends(task_in_path)]
OutputId = Annotated[str, Depends(output_in_path)]
