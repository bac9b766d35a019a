"""All parts of a web process in one value.

Built once by `backend.wiring`; parts that the API contributes are known here only as protocols.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from backend.core.config.download_limit import StoredDownloads
from backend.core.config.generation_policy import StoredPolicy
from backend.core.configuration_bridge import ConfigurationBridge
from backend.core.domain import Task, TaskStatus
from backend.core.paths import Home
from backend.core.planning.constraints import StoredOptimization
from backend.core.planning.memory_level import StoredLimits
from backend.core.settings import Settings
from backend.core.system_integration import SystemIntegration
from backend.models.folder.manager import ModelManager
from backend.models.lora.library import LoraLibrary
from backend.models.own.configuration import ModelConfigurationManager
from backend.services.access.ring import KeyRing
from backend.services.deletion import VideoDeletion
from backend.services.downloads.control import DownloadControl
from backend.services.downloads.runner import ModelDownloads
from backend.services.foreign.gallery_import import ClipImport
from backend.services.generation_service import GenerationService
from backend.services.media.images import InputStore
from backend.services.models.adoption import ModelAdoption
from backend.services.models.availability import ModelUsage
from backend.services.models.cleanup import StorageCleanup
from backend.services.models.fallback import FallbackAdvisor
from backend.services.models.recheck import Recheck
from backend.services.performance.measures import Measures
from backend.services.performance.sampling import LoadSampling
from backend.services.planning.advisor import OptimizationAdvisor
from backend.services.planning.resource_check import ResourceCheck, check_resources
from backend.services.system.found_videos import FoundVideos
from backend.services.system.health_monitor import HealthMonitor
from backend.services.system.host_stats import HostStats
from backend.services.system.janitor import Janitor
from backend.services.system.recovery import Recovery
from backend.services.system.surroundings import Surroundings
from backend.services.system.waiting import Waiting
from backend.services.webhooks.delivery import WebhookSender
from backend.store.access.keys import KeyStore
from backend.store.access.usage import UsageOfKeys
from backend.store.clients.answers import AnswerStore
from backend.store.clients.deliveries import DeliveryStore
from backend.store.download_orders import DownloadOrders
from backend.store.events import EventLog
from backend.store.gallery.listing import GalleryListing
from backend.store.gallery.marks import GalleryMarks
from backend.store.gallery.outputs import OutputStore, UsageStore
from backend.store.kept_requests import PresetStore, PromptHistory
from backend.store.performance.ended_tasks import EndedTasks
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerInfo, WorkerStore

#: Names of components that other modules query.
DATABASE, HOME, MODELS, STORAGE, WORKERS = "database", "home", "models", "storage", "workers"


class Sockets(Protocol):
    """The WebSocket clients of this process."""

    @property
    def follows(self) -> bool:
        """Whether the event log is being followed."""

    @property
    def active_connections(self) -> int:
        """Number of connected clients."""

    def subscription_counts(self) -> dict[str, int]:
        """Return the number of subscribers of each topic."""

    async def start(self) -> None:
        """Start following the event log."""

    async def stop(self) -> None:
        """Close every connection."""

    def publish(self, topic: str | None, kind: str, data: dict[str, Any]) -> None:
        """Send a message to the subscribers of a topic, None = to everybody; callable from any thread."""


class LocalWorkerState(Protocol):
    """State of the local worker."""

    @property
    def status(self) -> str:
        """One of starting, running, backoff, defunct, stopped."""

    @property
    def reason(self) -> str | None:
        """Why it is not running."""


class LocalWorker(Protocol):
    """The supervisor of a local worker; the web process starts, stops and queries it."""

    @property
    def state(self) -> LocalWorkerState:
        """Current state of the worker."""

    def start(self) -> None:
        """Start the worker."""

    def stop(self, grace: float) -> None:
        """Stop the worker; kill it after `grace` seconds."""


@dataclass(frozen=True)
class Services:
    """Everything available to routes and components."""

    settings: Settings
    home: Home
    tasks: TaskStore
    events: EventLog
    outputs: OutputStore
    gallery: GalleryListing
    marks: GalleryMarks
    presets: PresetStore
    prompts: PromptHistory
    workers: WorkerStore
    configuration: ModelConfigurationManager
    config: ConfigurationBridge
    models: ModelManager
    loras: LoraLibrary
    inputs: InputStore
    generation: GenerationService
    deletion: VideoDeletion
    clips: ClipImport
    downloads: ModelDownloads
    orders: DownloadOrders
    control: DownloadControl
    pace: StoredDownloads
    need: ModelUsage
    cleanup: StorageCleanup
    adoption: ModelAdoption
    recheck: Recheck
    stats: HostStats
    sockets: Sockets
    supervisor: LocalWorker | None
    system: SystemIntegration
    optimization: StoredOptimization
    limits: StoredLimits
    policy: StoredPolicy
    advisor: OptimizationAdvisor
    usage: UsageStore
    fallbacks: FallbackAdvisor
    surroundings: Surroundings
    janitor: Janitor
    videos: FoundVideos
    answers: AnswerStore
    deliveries: DeliveryStore
    webhooks: WebhookSender
    recovery: Recovery
    monitor: HealthMonitor
    keys: KeyRing
    key_store: KeyStore
    key_usage: UsageOfKeys
    load: LoadSampling
    measures: Measures
    ended: EndedTasks
    started: float = field(default_factory=time.monotonic)

    @property
    def uptime(self) -> float:
        """Seconds since this process started serving."""
        return time.monotonic() - self.started

    def living_workers(self) -> list[WorkerInfo]:
        """Return the workers with a heartbeat within one lease whose processes are not known to be dead."""
        return [one for one in self.workers.alive(self.settings.lease_seconds) if not one.is_dead()]

    def waiting(self, tasks: Iterable[Task]) -> Waiting:
        """Return the reasons for which these tasks wait now."""
        workers = self.living_workers()
        no_worker = None if workers else self.system.state(WORKERS).sentence
        pending = [task.id for task in tasks if task.status is TaskStatus.PENDING]
        return Waiting(self.tasks.positions(pending), self.tasks.holds(), workers, no_worker)

    def check_resources(self) -> ResourceCheck:
        """Measure resource usage and compare it with the limits in force."""
        no_worker = self.system.state(WORKERS).sentence
        return check_resources(self.stats.usage(), self.living_workers(), self.limits.current(), no_worker)
