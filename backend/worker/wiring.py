"""Puts the parts of a worker together: device, loader, models, planner, pipeline. Loads no model.

Imports the engine; what must start without torch imports this module only when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from backend.core.config.file import ConfigFile
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.planning.constraints import stored_optimization
from backend.core.planning.hardware import detect_hardware
from backend.core.planning.machine import Machine
from backend.core.planning.memory_level import stored_limits
from backend.core.settings import Settings
from backend.engine.device.choice import choose_device
from backend.engine.device.convolution import choose_convolution
from backend.engine.device.facts import DeviceFacts, TorchDevices
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.memory.others import OtherPrograms
from backend.engine.memory.readings import DeviceMemory
from backend.models.download.downloader import downloader_into
from backend.models.download.retries import RetryPolicy
from backend.models.folder.manager import ModelManager
from backend.models.lora.library import LoraLibrary
from backend.services.planning.forecast import Forecast
from backend.services.planning.self_test import find_abilities
from backend.services.real_generation_pipeline import RealGenerationPipeline, RunOptions
from backend.services.run.memory_watch import Alerted, MemoryWatch
from backend.services.run.model_fallback import ModelFallback
from backend.services.run.start_plans import StartPlans
from backend.store.download_orders import DownloadOrders
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore
from backend.store.workers import Equipment

#: A task whose model the hub does not serve soon returns to the queue, so that others can run.
_BRIEF = RetryPolicy(attempts=3)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What one worker works with."""

    equipment: Equipment  #: for the register of workers
    models: ModelManager
    bridge: ModelIntegrationBridge[WanComponents]
    watch: MemoryWatch
    others: OtherPrograms
    pipeline: RealGenerationPipeline
    generation: ModelFallback  #: the pipeline under the policy in force


def assemble(
    settings: Settings,
    database: Database,
    devices: DeviceFacts | None,
    found_device: Callable[[str], None],
    alerted: Alerted,
) -> WorkerParts:
    """Find the device and what it supports, and build everything that runs on it.

    Args:
        settings: the operator's.
        database: holds the finished videos and the download orders.
        devices: facts about the cards; None = ask torch.
        found_device: called with the device before its trials, which may take a while.
        alerted: receives memory alerts.

    Raises:
        DeviceUnusable: the configured device cannot be used.
    """
    home = settings.paths
    loader, equipment, machine = _equip(settings, devices, found_device)
    models = ModelManager(home, has_gpu=loader.device.type != "cpu")
    fetcher = downloader_into(home, models, settings.model_roots, policy=_BRIEF) if settings.auto_download else None
    bridge = ModelIntegrationBridge(models, loader, fetcher)
    config = ConfigFile(home.config_file)
    memory = DeviceMemory(loader.device)
    watch = MemoryWatch(memory, limits=stored_limits(config).current)
    forecast = Forecast(
        machine,
        OutputStore(database, home),
        LoraLibrary(home),
        binding=True,
        constraints=stored_optimization(config).current,
        policy=settings.oom_policy,
        packed=models.packed,
    )
    options = RunOptions(
        state_seconds=settings.state_seconds,
        oom_policy=settings.oom_policy,
        admit=forecast.check,
        paused=DownloadOrders(database).is_paused,
        start_plans=StartPlans.of(forecast, loader.free_bytes),
        watch=watch,
        alerted=alerted,
    )
    pipeline = RealGenerationPipeline(bridge, home, options)
    generation = ModelFallback(home, pipeline, models, forecast)
    return WorkerParts(equipment, models, bridge, watch, OtherPrograms(loader.device), pipeline, generation)


def _equip(
    settings: Settings, devices: DeviceFacts | None, found_device: Callable[[str], None]
) -> tuple[WanPipelineLoader, Equipment, Machine]:
    hardware = detect_hardware(settings.paths.root)
    verdict = choose_device(settings.device, devices or TorchDevices(), hardware)
    log.info("worker.device", device=verdict.device, reason=verdict.reason)
    found_device(verdict.device)
    file = settings.paths.abilities_file
    abilities = find_abilities(file, verdict.device, verdict.name, hardware.driver, settings.attention)
    attention, precision = abilities.attention, abilities.precision.precision
    log.info("worker.abilities", attention=attention, precision=precision, reason=abilities.precision.reason)
    convolution, doubts = choose_convolution(settings.convolution, verdict.device)
    warnings = verdict.warnings + abilities.warnings + doubts
    for warning in warnings:
        log.warning("worker.not_usable", message=warning)
    loader = WanPipelineLoader(
        verdict.device, settings.threads, attention=attention, convolution=convolution, precision=precision
    )
    machine = Machine.of(hardware, verdict.device, precision)
    return loader, Equipment(verdict.reason, warnings, attention, convolution, precision, machine), machine
