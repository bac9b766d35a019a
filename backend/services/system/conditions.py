"""The components of the web process, in start order: how each is started, checked and stopped.

Conditions are measured on every call, never cached; nothing is reported ready without a check.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from backend.core.catalogue.table import models_in_force
from backend.core.domain import TaskStatus, iso
from backend.core.errors.base import WanError
from backend.core.planning.hardware import HardwareProfile, in_gib, remember
from backend.core.system_integration import Component, ComponentStatus, Condition
from backend.models.folder.manager import Presence
from backend.services.downloads.state import Download
from backend.services.system.configuration import configuration_faults
from backend.services.system.container import DATABASE, HOME, MODELS, STORAGE, WORKERS, Services
from backend.store.engine import Database
from backend.store.upkeep.opening import last_restoration, open_database
from backend.store.upkeep.rows_check import LISTED
from backend.store.workers import WorkerState

#: Usage above which the machine is short of space, in percent.
DISK_WARNING_PERCENT = 95.0
MEMORY_WARNING_PERCENT = 95.0
#: Damaged rows that a condition names; a longer list helps nobody.
_NAMED = 3

log = structlog.get_logger(__name__)


#: Called with a download before and after a change.
Publish = Callable[[Download | None, Download], None]


def web_components(
    services: Services, database: Database, profile: HardwareProfile, publish: Publish
) -> tuple[Component, ...]:
    """Return the components of a web process, in start order.

    Args:
        services: the parts that the components wrap.
        database: opened when its component starts, closed when it stops.
        profile: this machine, as just detected.
        publish: sends a download change to WebSocket clients; callable from any thread.
    """
    sockets, supervisor, grace = services.sockets, services.supervisor, services.settings.stop_grace_seconds

    def resume_downloads() -> None:
        services.downloads.subscribe(publish)
        services.downloads.restore()

    workers = Component(WORKERS, partial(_workers, services))
    if supervisor is not None:
        start, stop = _in_thread(supervisor.start), _in_thread(partial(supervisor.stop, grace))
        workers = Component(WORKERS, partial(_workers, services), start, stop)
    return (
        Component(HOME, partial(_home, services), _in_thread(services.home.create), essential=True, slow=True),
        Component(STORAGE, partial(_storage, services)),
        Component(
            "configuration", partial(_configuration, services), _in_thread(services.configuration.refresh), slow=True
        ),
        Component(
            DATABASE,
            partial(_database, services),
            _in_thread(partial(_open, services, database)),
            _in_thread(database.close),
            essential=True,
        ),
        Component(
            "keys",
            partial(_keys, services),
            _in_thread(services.keys.start),
            _in_thread(services.keys.stop),
            essential=True,
        ),
        Component(
            "upkeep",
            partial(_upkeep, services, database),
            _in_thread(services.janitor.start),
            _in_thread(services.janitor.stop),
            slow=True,
        ),
        Component("hardware", partial(_hardware, services, profile), _in_thread(partial(_note, services, profile))),
        Component(MODELS, partial(_models, services), slow=True),
        Component("loras", partial(_loras, services), slow=True),
        Component("inputs", _inputs, _in_thread(services.generation.prune_inputs)),
        Component("events", partial(_events, services), sockets.start, sockets.stop),
        Component(
            "downloads",
            partial(_downloads, services),
            _in_thread(resume_downloads),
            _in_thread(services.downloads.stop),
        ),
        Component(
            "webhooks",
            partial(_webhooks, services),
            _in_thread(services.webhooks.start),
            _in_thread(services.webhooks.stop),
        ),
        workers,
        Component(
            "health",
            partial(_health, services),
            _in_thread(services.monitor.start),
            _in_thread(services.monitor.stop),
        ),
        Component(
            "performance",
            partial(_performance, services),
            _in_thread(partial(_start_performance, services)),
            _in_thread(services.load.stop),
        ),
        Component(
            "recheck",
            partial(_recheck, services),
            _in_thread(services.recheck.start),
            _in_thread(services.recheck.stop),
        ),
    )


def _in_thread(work: Callable[[], object]) -> Callable[[], Awaitable[None]]:
    """Keep disk and process I/O off the event loop."""

    async def run() -> None:
        await asyncio.to_thread(work)

    return run


def _ready(sentence: str) -> Condition:
    return Condition(ComponentStatus.READY, sentence)


def _degraded(sentence: str) -> Condition:
    return Condition(ComponentStatus.DEGRADED, sentence)


def _failed(sentence: str) -> Condition:
    return Condition(ComponentStatus.FAILED, sentence)


def _keys(services: Services) -> Condition:
    return _ready("Every request needs a key" if services.keys.locked else "No key is needed on this machine")


def _home(services: Services) -> Condition:
    faults = services.home.faults()
    if faults and not services.home.root.is_dir():
        return _failed("; ".join(faults))
    reading = services.stats.read()
    if reading.disk_percent > DISK_WARNING_PERCENT:
        faults.append(f"The disk is {reading.disk_percent:.0f} % full")
    return _degraded("; ".join(faults)) if faults else _ready(f"{reading.disk_free_gb:.1f} GiB free")


def _storage(services: Services) -> Condition:
    fault = services.surroundings.fault()
    if fault is not None:
        return _failed(f"{fault}: tasks wait, and continue automatically once that is repaired")
    return _ready("Videos can be kept")


def _configuration(services: Services) -> Condition:
    services.configuration.refresh()
    if faults := configuration_faults(services.home):
        return _degraded("; ".join(faults))
    return _ready("Every section can be read")


def _open(services: Services, database: Database) -> None:
    """Open and repair the database; close it again if that fails."""
    try:
        open_database(database, services.home)
        services.answers.forget_unfinished()
    except WanError:
        database.close()
        raise


def _database(services: Services) -> Condition:
    try:
        counts = services.tasks.counts()
    except WanError as error:
        return _failed(f"The database cannot be used: {error.message}")
    waiting, running = counts.get(TaskStatus.PENDING, 0), counts.get(TaskStatus.PROCESSING, 0)
    return _ready(f"Reachable; {waiting} tasks waiting, {running} running")


def _upkeep(services: Services, database: Database) -> Condition:
    """Say what was restored, what is not copied or deleted, and which videos are in no list."""
    last, faults = services.janitor.last, []
    restored = last_restoration(services.home)
    if restored is not None and restored.is_news:
        faults.append(restored.sentence)
    if last is not None:
        faults += last.failures
    if rows := services.janitor.damaged_rows:
        count = f"{len(rows)} or more" if len(rows) == LISTED else str(len(rows))
        faults.append(
            f"{count} rows of the database cannot be read and are left out; `wan22 db check` lists them:"
            f" {', '.join(row.split(':')[0] for row in rows[:_NAMED])}"
        )
    faults += services.videos.faults()
    if faults:
        return _degraded("; ".join(faults))
    if database.file is None:
        return _ready("PostgreSQL: copies are made with pg_dump")
    newest = next(iter(services.janitor.backups.list()), None)
    return _ready("No copy of the database yet" if newest is None else f"Newest copy: {iso(newest.made_at)}")


def _note(services: Services, profile: HardwareProfile) -> None:
    """Record the hardware and log what changed since the last start."""
    for change in remember(services.home.hardware_file, profile):
        log.warning("hardware.changed", change=change)
    for finding in profile.findings:
        log.warning("hardware.incomplete", finding=finding)


def _hardware(services: Services, profile: HardwareProfile) -> Condition:
    reading = services.stats.read()
    faults = list(dict.fromkeys((*profile.findings, *reading.findings)))
    if len(reading.gpus) < len(profile.gpus):
        faults.append(f"{len(profile.gpus) - len(reading.gpus)} of {len(profile.gpus)} cards no longer respond")
    if reading.ram_percent > MEMORY_WARNING_PERCENT:
        faults.append(f"Memory is {reading.ram_percent:.0f} % full")
    if faults:
        return _degraded("; ".join(faults))
    cards = [f"{gpu.name} with {in_gib(gpu.memory_total)}" for gpu in profile.gpus]
    return _ready(f"{profile.cores} cores, {in_gib(profile.memory)} memory, {', '.join(cards) or 'no NVIDIA card'}")


def _models(services: Services) -> Condition:
    states = services.models.states()
    here = [state for state in states if state.available]
    corrupted = [
        f"{state.spec.id} is damaged: {state.reason}" for state in states if state.presence is Presence.CORRUPTED
    ]
    if not here:
        return _failed("; ".join(corrupted) or "No model is installed")
    if corrupted:
        return _degraded("; ".join(corrupted))
    return _ready(f"{len(here)} of {len(states)} installed: {', '.join(state.spec.id for state in here)}")


def _loras(services: Services) -> Condition:
    if not services.home.loras.is_dir():
        return _degraded("The folder of the LoRAs cannot be read; those that ship with wan22 can be used")
    found = services.loras.all()
    unusable = [lora.id for lora in found if lora.problem is not None]
    return _ready(f"{len(found)} installed" + (f"; not usable: {', '.join(unusable)}" if unusable else ""))


def _inputs() -> Condition:
    return _ready("Images that are no longer used are removed")


def _events(services: Services) -> Condition:
    sockets = services.sockets
    if not sockets.follows:
        return _failed("The event log is no longer followed: WebSocket clients receive no updates")
    return _ready(f"Followed for {sockets.active_connections} WebSocket clients")


def _downloads(services: Services) -> Condition:
    asked = [services.downloads.get(spec) for spec in models_in_force().specs]
    states = Counter(download.state.value for download in asked if download is not None)
    return _ready(", ".join(f"{count} {state}" for state, count in states.items()) or "No downloads requested")


def _webhooks(services: Services) -> Condition:
    if not services.settings.outbound_hosts:
        return _ready("Turned off: WAN22_OUTBOUND_HOSTS names no host")
    counts = services.deliveries.counts()
    return _ready(", ".join(f"{count} {state}" for state, count in counts.items() if count) or "No messages yet")


def _workers(services: Services) -> Condition:
    alive = services.living_workers()
    if not alive:
        return _without_worker(services)
    waiting = [worker for worker in alive if worker.state is WorkerState.WAITING]
    if len(waiting) == len(alive):
        reasons = "; ".join(dict.fromkeys(worker.detail or "its surroundings" for worker in waiting))
        return _failed(f"{reasons}: tasks wait, and continue automatically once that is repaired")
    working = [worker for worker in alive if worker.state is not WorkerState.LOADING]
    words = "; ".join(
        f"{worker.device} {worker.state}" + (f": {worker.detail}" if worker.detail else "") for worker in alive
    )
    if not working:
        return Condition(ComponentStatus.STARTING, words)
    warnings = dict.fromkeys(text for worker in alive if worker.equipment for text in worker.equipment.warnings)
    return _degraded("; ".join(warnings)) if warnings else _ready(words)


def _without_worker(services: Services) -> Condition:
    if services.supervisor is None:
        sentence = "No worker is connected: tasks wait until one is started with `wan22 worker`"
        return Condition(ComponentStatus.NOT_STARTED, sentence)
    state = services.supervisor.state
    sentence = f"The worker is not ready ({state.status})" + (f": {state.reason}" if state.reason else "")
    starts = state.status in ("starting", "running") and state.reason is None
    return Condition(ComponentStatus.STARTING, sentence) if starts else _failed(sentence)


def _recheck(services: Services) -> Condition:
    days = services.settings.recheck_days
    return _ready(f"Model files are verified again every {days:g} days" if days else "Turned off")


def _health(services: Services) -> Condition:
    look = services.monitor.last
    if not services.monitor.active:
        return _ready("Turned off")
    if look is None or not look.findings:
        return _ready("Nothing is wrong")
    return _degraded("; ".join(one.sentence for one in look.findings))


def _start_performance(services: Services) -> None:
    services.measures.start()
    services.load.start()


def _performance(services: Services) -> Condition:
    if services.load.failure is not None:
        return _degraded(f"The load is not recorded: {services.load.failure}")
    seconds = services.settings.samples_seconds
    return _ready(f"The load is recorded every {seconds:g} s" if services.load.active else "The load is not recorded")
