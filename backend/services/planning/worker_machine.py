"""The machine that makes a server's videos: as its living workers say, who have tried it, and before that as it looks.

Asked whenever something is decided, so a card that no worker can use is none. Decides nothing itself.
"""

from __future__ import annotations

import structlog

from backend.core.errors import StoreFailed
from backend.core.planning.hardware import HardwareProfile
from backend.core.planning.machine import Machine
from backend.core.settings import Settings
from backend.services.planning.self_test import recorded_abilities
from backend.store.workers import WorkerInfo, WorkerStore

log = structlog.get_logger(__name__)


def machine_as_it_looks(settings: Settings, profile: HardwareProfile) -> Machine:
    """Return what the device of the settings means here, with the precision that was recorded of its card."""
    machine = Machine.of(profile, settings.device)
    if not machine.cuda:
        return machine
    known = recorded_abilities(settings.paths.abilities_file, machine.name, profile.driver, settings.attention)
    return machine if known is None else Machine.of(profile, settings.device, known.precision.precision)


class WorkingMachine:
    """Asks the register of workers; any thread may ask."""

    def __init__(self, settings: Settings, workers: WorkerStore, profile: HardwareProfile) -> None:
        """Prepare.

        Args:
            settings: which device the workers are told to take, and how long one counts as alive.
            workers: the register.
            profile: the machine as it looks, for as long as no worker has tried it.
        """
        self._settings = settings
        self._workers = workers
        self._profile = profile
        self._looks = machine_as_it_looks(settings, profile)

    def now(self) -> Machine:
        """Return the machine of the living workers; where they have several, the one that can do most of them.

        A request may wait for that one, and nothing is refused that one of them can make.
        """
        try:
            alive = self._workers.alive(self._settings.lease_seconds)
        except StoreFailed as error:
            log.warning("planner.knows_no_workers", error=error.code)
            return self._looks
        tried = [machine for machine in map(self._tried, alive) if machine is not None]
        return max(tried, key=_reach, default=self._looks)

    def computes_on_gpu(self) -> bool:
        """Whether videos are made on a card."""
        return self.now().cuda

    def _tried(self, worker: WorkerInfo) -> Machine | None:
        """Return what a worker computes on; None while it has not found that out."""
        equipment = worker.equipment
        if equipment is None:
            return None
        # A worker of an older version says its device and its precision alone.
        return equipment.machine or Machine.of(self._profile, worker.device, equipment.precision)


def _reach(machine: Machine) -> tuple[bool, int, int]:
    return machine.cuda, machine.vram or 0, machine.ram or 0
