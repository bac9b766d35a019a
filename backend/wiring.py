"""Composition root of the web process: builds and connects stores, services and components.

Imports neither the engine nor torch.
"""

from __future__ import annotations

from functools import partial

from backend.api.live.download_feed import publish_download
from backend.api.live.manager import ConnectionManager
from backend.api.live.messages import ALERTS_TOPIC
from backend.api.live.standing import watched
from backend.core.config.download_limit import stored_downloads
from backend.core.config.file import ConfigFile
from backend.core.config.generation_policy import stored_policy
from backend.core.domain import TaskStatus
from backend.core.planning.constraints import stored_optimization
from backend.core.planning.hardware import HardwareProfile, detect_hardware
from backend.core.planning.memory_level import stored_limits
from backend.core.settings import Settings
from backend.core.system_integration import SystemIntegration
from backend.models.folder.manager import ModelManager
from backend.models.lora.library import LoraLibrary
from backend.models.own.configuration import ModelConfigurationManager
from backend.services.access.ring import KeyRing
from backend.services.deletion import VideoDeletion
from backend.services.downloads.control import DownloadControl
from backend.services.downloads.runner import downloads_into
from backend.services.foreign.gallery_import import ClipImport
from backend.services.generation_service import GenerationService
from backend.services.media.images import InputStore
from backend.services.models.adoption import ModelAdoption
from backend.services.models.availability import ModelAvailability, ModelUsage
from backend.services.models.cleanup import StorageCleanup
from backend.services.models.fallback import FallbackAdvisor
from backend.services.models.recheck import Recheck
from backend.services.outbound.targets import OutboundRules
from backend.services.performance.measures import Gauges, Measures
from backend.services.performance.sampling import LoadSampling
from backend.services.planning.advisor import OptimizationAdvisor
from backend.services.planning.forecast import Forecast
from backend.services.planning.worker_machine import WorkingMachine
from backend.services.system.conditions import web_components
from backend.services.system.configuration import configuration_of
from backend.services.system.container import LocalWorker, Services
from backend.services.system.findings import Examination
from backend.services.system.found_videos import FoundVideos
from backend.services.system.health_monitor import HealthMonitor
from backend.services.system.host_stats import HostStats
from backend.services.system.janitor import Janitor
from backend.services.system.memory_growth import MemoryGrowth
from backend.services.system.placeholders import Placeholders
from backend.services.system.recovery import Recovery
from backend.services.system.surroundings import Surroundings
from backend.services.webhooks.delivery import WebhookSender
from backend.services.webhooks.signing import ServerSecret
from backend.store.access.keys import KeyStore
from backend.store.access.ownership import FileKind, OwnedFiles
from backend.store.access.usage import UsageOfKeys
from backend.store.clients.answers import AnswerStore
from backend.store.clients.deliveries import DeliveryStore
from backend.store.download_orders import DownloadOrders
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.gallery.listing import GalleryListing
from backend.store.gallery.marks import GalleryMarks
from backend.store.gallery.outputs import OutputStore, UsageStore
from backend.store.kept_requests import PresetStore, PromptHistory
from backend.store.performance.counted_events import CountedEvents
from backend.store.performance.ended_tasks import EndedTasks
from backend.store.performance.samples import LoadSamples
from backend.store.tasks import TaskStore
from backend.store.upkeep.adoption import VideoRegister
from backend.store.upkeep.recovery_log import RecoveryLog
from backend.store.upkeep.task_health import TaskHealthStore
from backend.store.workers import WorkerInfo, WorkerStore


def build_services(settings: Settings, supervisor: LocalWorker | None, workers_on: HardwareProfile | None) -> Services:
    """Build all services; nothing is opened or changed before its component starts."""
    home, database = settings.paths, Database(settings.database)
    stats, profile = HostStats(home.root), detect_hardware(home.root)
    tasks, events, outputs = TaskStore(database), EventLog(database), OutputStore(database, home)
    marks = GalleryMarks(database)
    workers, orders = WorkerStore(database), DownloadOrders(database)
    machine = WorkingMachine(settings, workers, workers_on or profile)
    model_manager = ModelManager(home, has_gpu=machine.computes_on_gpu)
    loras = LoraLibrary(home, owned=OwnedFiles(database, FileKind.LORA))
    images = InputStore(home, settings.keep_uploads_hours * 3600.0, OwnedFiles(database, FileKind.IMAGE))
    config = ConfigFile(home.config_file)
    kept, configuration = stored_optimization(config), ModelConfigurationManager(home)
    binding, policy = settings.worker or workers_on is not None, settings.oom_policy
    forecast = Forecast(
        machine.now,
        outputs,
        loras,
        binding=binding,
        constraints=kept.current,
        policy=policy,
        packed=model_manager.packed,
    )
    supply = ModelAvailability(home, model_manager, fetches=settings.auto_download)
    downloads = downloads_into(home, model_manager, orders, settings.model_roots)
    control = DownloadControl(home, model_manager, downloads, orders, tasks)
    need = ModelUsage(home, tasks, workers, orders, settings.lease_seconds)
    generation = GenerationService(settings, home, tasks, outputs, model_manager, loras, images, forecast)
    deletion = VideoDeletion(settings.trash_days, outputs, marks, generation.prune_inputs)
    register = VideoRegister(database)
    videos, clips = FoundVideos(home, register), ClipImport(home, register, outputs, images, loras)
    config_policy, surroundings = stored_policy(config), Surroundings(home)
    key_store, deliveries = KeyStore(database), DeliveryStore(database, home.mark)
    sockets = ConnectionManager(settings, tasks, events, stats)

    def living() -> list[WorkerInfo]:
        return [one for one in workers.alive(settings.lease_seconds) if not one.is_dead()]

    examination = Examination(settings, database, surroundings=surroundings, stats=stats)
    recovery = Recovery(
        RecoveryLog(database),
        policy=config_policy,
        optimization=kept,
        models=model_manager,
        downloads=control,
        workers=workers,
        living=living,
        stats=stats,
        examination=examination,
    )
    gauges = Gauges(
        tasks=tasks.counts,
        workers=lambda: [one.state for one in living()],
        load=lambda: stats.read().load,
        disk_free_gb=lambda: stats.read().disk_free_gb,
        connections=lambda: sockets.active_connections,
        messages=deliveries.counts,
    )
    growth = MemoryGrowth(TaskHealthStore(database).completed_by)
    services = Services(
        settings=settings,
        home=home,
        tasks=tasks,
        events=events,
        outputs=outputs,
        gallery=GalleryListing(database),
        marks=marks,
        presets=PresetStore(database),
        prompts=PromptHistory(database),
        workers=workers,
        configuration=configuration,
        config=configuration_of(home, settings),
        models=model_manager,
        loras=loras,
        inputs=images,
        generation=generation,
        deletion=deletion,
        clips=clips,
        downloads=downloads,
        orders=orders,
        control=control,
        pace=stored_downloads(config),
        need=need,
        cleanup=StorageCleanup(home, model_manager, need, outputs),
        adoption=ModelAdoption(home, model_manager, settings.model_roots),
        recheck=Recheck(home, model_manager, lambda: tasks.counts()[TaskStatus.PROCESSING] > 0, settings.recheck_days),
        stats=stats,
        surroundings=surroundings,
        janitor=Janitor(
            settings,
            home,
            database,
            tasks,
            videos,
            generation.prune_inputs,
            deletion.empty_trash,
            Placeholders(home, GalleryListing(database), marks).draw,
            clips.tidy,
        ),
        videos=videos,
        answers=AnswerStore(database, home.mark),
        deliveries=deliveries,
        webhooks=WebhookSender(deliveries, OutboundRules.of(settings), ServerSecret(settings, home)),
        sockets=sockets,
        recovery=recovery,
        monitor=HealthMonitor(
            settings, examination, growth, recovery, living, lambda alert: sockets.publish(ALERTS_TOPIC, "alert", alert)
        ),
        keys=KeyRing(settings, home, key_store),
        key_store=key_store,
        key_usage=UsageOfKeys(database),
        load=LoadSampling(LoadSamples(database), lambda: stats.read().load, settings.samples_seconds),
        measures=Measures(CountedEvents(database), gauges),
        ended=EndedTasks(database),
        supervisor=supervisor,
        system=SystemIntegration(),
        optimization=kept,
        limits=stored_limits(config),
        policy=config_policy,
        usage=UsageStore(database),
        fallbacks=FallbackAdvisor(model_manager, forecast, downloads, supply),
        advisor=OptimizationAdvisor(kept, forecast, model_manager, outputs),
    )
    sockets.watch(watched(services))
    services.system.include(*web_components(services, database, profile, partial(publish_download, services.sockets)))
    return services
