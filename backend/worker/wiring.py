"""What a worker computes with, found out before it loads its first model: device, kernel of attention, precision.

Imports the engine; whoever must start without torch imports this only when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from backend.core.planning.hardware import detect_hardware
from backend.core.planning.machine import Machine
from backend.core.settings import Settings
from backend.engine.device.choice import choose_device
from backend.engine.device.facts import DeviceFacts, TorchDevices
from backend.engine.loading.pipeline_loader import WanPipelineLoader
from backend.services.planning.self_test import find_abilities
from backend.store.workers import Equipment

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Equipped:
    """A loader for the device that works, and what is to be told about it."""

    loader: WanPipelineLoader
    equipment: Equipment
    machine: Machine  #: for the planner


def equip(settings: Settings, devices: DeviceFacts | None, found_device: Callable[[str], None]) -> Equipped:
    """Find the device, then what it can do.

    Args:
        settings: what the operator wishes.
        devices: what is known about the cards; None = what torch says.
        found_device: hears of the device before it is tried further, which may take a while.

    Raises:
        DeviceUnusable: the device that was ordered cannot be used.
    """
    hardware = detect_hardware(settings.paths.root)
    verdict = choose_device(settings.device, devices or TorchDevices(), hardware)
    log.info("worker.device", device=verdict.device, reason=verdict.reason)
    found_device(verdict.device)
    file = settings.paths.abilities_file
    abilities = find_abilities(file, verdict.device, verdict.name, hardware.driver, settings.attention)
    attention, precision = abilities.attention, abilities.precision.precision
    log.info("worker.abilities", attention=attention, precision=precision, reason=abilities.precision.reason)
    warnings = verdict.warnings + abilities.warnings
    for warning in warnings:
        log.warning("worker.not_usable", message=warning)
    loader = WanPipelineLoader(verdict.device, settings.threads, attention=attention, precision=precision)
    machine = Machine.of(hardware, verdict.device, precision)
    return Equipped(loader, Equipment(verdict.reason, warnings, attention, precision, machine), machine)
