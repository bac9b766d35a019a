"""The machine that generates a server's videos: as tested by its live workers, and until then as detected here.

Read at every decision, so a card that no worker can use does not count. Decides nothing itself.
"""

from __future__ import annotations

import structlog

from backend.core.errors.surroundings import StoreFailed
from backend.core.planning.hardware import HardwareProfile
from backend.core.planning.machine import Machine
from backend.core.settings import Settings
from backend.services.planning.self_test import recorded_abilities
from backend.store.workers import WorkerInfo, WorkerStore

log = structlog.get_logger(__name__)


def machine_as_it_looks(settings: Settings, profile: HardwareProfile) -> Machine:
    """Return the configured device as detected here, with the recorded precision of its card."""
    machine = Machine.of(profile, settings.device)
    if not machine.cuda:
        return machine
    known = recorded_abilities(settings.paths.abilities_file, machine.name, profile.driver, settings.attention)
    return machine if known is None else Machine.of(profile, settings.device, known.precision.precision)


class WorkingMachine:
    """Reads the register of workers; safe to call from any thread."""

    def __init__(self, settings: Settings, workers: WorkerStore, profile: HardwareProfile) -> None:
        """Prepare.

        Args:
            settings: the workers' device, and how long a worker counts as alive.
            workers: the register.
            profile: the machine as detected, used until a worker has tested it.
        """
        self._settings = settings
        self._workers = workers
        self._profile = profile
        self._looks = machine_as_it_looks(settings, profile)

    def now(self) -> Machine:
        """Return the machine of the live workers; if they differ, the most capable one.

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
        """Whether videos are generated on a card."""
        return self.now().cuda

    def _tried(self, worker: WorkerInfo) -> Machine | None:
        """Return what a worker computes on; None until it has tested that."""
        equipment = worker.equipment
        if equipment is None:
            return None
        # A worker of an older version reports only its device and precision.
        return equipment.machine or Machine.of(self._profile, worker.device, equipment.precision)


def _reach(machine: Machine) -> tuple[bool, int, int]:
    return machine.cuda, machine.vram or 0, machine.ram or 0
