"""What is wrong now, or will be: each finding names its cause, its remedy and the next step.

Read by the health monitor and by `wan22 doctor`, which needs no server for it. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from backend.core.access.caller import OPERATOR, acting_as
from backend.core.domain import utcnow
from backend.core.errors.base import Category, WanError
from backend.core.errors.tree import kind_of
from backend.core.planning.hardware import Gpu
from backend.core.settings import Settings
from backend.services.system.host_stats import HostStats
from backend.services.system.surroundings import Surroundings
from backend.store.clients.deliveries import DeliveryState, DeliveryStore
from backend.store.engine import Database
from backend.store.upkeep.task_health import TaskHealth, TaskHealthStore
from backend.store.workers import WorkerInfo, WorkerState, WorkerStore

#: The period whose tasks are judged, in seconds.
PERIOD_SECONDS: Final = 3600.0
#: This many failures, and this share of all tasks that ended, are more than chance.
_MANY, _MOST = 3, 0.5
#: A task that could start beside an idle worker does so within moments. After this long, in seconds, it is stuck.
STUCK_SECONDS: Final = 300.0
_DAY_SECONDS: Final = 86_400.0
MEMORY_PERCENT: Final = 95.0
#: Degrees Celsius at which cards of NVIDIA protect themselves by slowing down.
HOT_CELSIUS: Final = 90


class FailureType(StrEnum):
    """Kinds of failures, in the words of the API."""

    MODEL_LOADING = "model_loading_failure"
    VRAM = "vram_exhaustion"
    PIPELINE = "generation_pipeline_error"
    HARDWARE = "hardware_optimization_failure"
    RESOURCES = "system_resource_error"
    NETWORK = "network_error"


class RecoveryAction(StrEnum):
    """What can be done about them, in the words of the API."""

    FALL_BACK_TO_MOCK = "fallback_to_mock"
    DOWNLOAD_AGAIN = "retry_model_download"
    LIMIT_VRAM = "apply_vram_optimization"
    RESTART_WORKER = "restart_pipeline"
    FREE_MEMORY = "clear_gpu_cache"
    REDUCE_REQUESTS = "reduce_generation_params"
    OFFLOAD = "enable_cpu_offload"
    EXAMINE = "system_health_check"


@dataclass(frozen=True, slots=True)
class HealthFinding:
    """One thing that is wrong."""

    name: str  #: which of the checks, and about what; the same as long as the same thing is wrong
    sentence: str
    failure: FailureType
    next_step: str
    remedy: RecoveryAction | None = None  #: what the server can do about it by itself
    subject: str | None = None  #: id of the worker that the remedy concerns; None = all
    critical: bool = False  #: whether nothing can be generated because of it


#: What failures of a category mean. Those of the others are their requests' own.
_MEANING: Final = {
    Category.VRAM_MEMORY: (FailureType.VRAM, RecoveryAction.LIMIT_VRAM),
    Category.MODEL_LOADING: (FailureType.MODEL_LOADING, RecoveryAction.DOWNLOAD_AGAIN),
    Category.GENERATION_PIPELINE: (FailureType.PIPELINE, RecoveryAction.RESTART_WORKER),
    Category.UNKNOWN: (FailureType.PIPELINE, RecoveryAction.RESTART_WORKER),
    Category.SYSTEM_RESOURCE: (FailureType.RESOURCES, None),
    Category.NETWORK: (FailureType.NETWORK, None),
}


class Examination:
    """Looks at one home, its database and its machine."""

    def __init__(
        self, settings: Settings, database: Database, *, surroundings: Surroundings, stats: HostStats | None = None
    ) -> None:
        self._settings = settings
        self._tasks = TaskHealthStore(database)
        self._workers = WorkerStore(database)
        self._deliveries = DeliveryStore(database)
        self._surroundings = surroundings
        self._stats = stats or HostStats(settings.paths.root)
        self._ecc = {gpu.index: gpu.ecc_errors for gpu in self._stats.read().gpus}

    def findings(self) -> list[HealthFinding]:
        """Return what is wrong now, the worst first."""
        found = [*self._machine(), *self._cards()]
        try:
            found += self._queue()
        except WanError as error:
            found.append(
                HealthFinding(
                    "database",
                    f"The database cannot be read: {error.message}",
                    FailureType.RESOURCES,
                    " ".join(error.next_steps),
                    critical=True,
                )
            )
        return sorted(found, key=lambda finding: not finding.critical)

    def _machine(self) -> Iterator[HealthFinding]:
        fault = self._surroundings.fault()
        if fault is not None:
            yield HealthFinding(
                "storage",
                f"{fault}: no task is started until that is repaired",
                FailureType.RESOURCES,
                "Free space or repair the folder; tasks then continue automatically.",
                critical=True,
            )
        reading = self._stats.read()
        if reading.ram_percent > MEMORY_PERCENT:
            yield HealthFinding(
                "memory",
                f"The machine's memory is {reading.ram_percent:.0f} % full",
                FailureType.RESOURCES,
                "Close other programs, or set `give_way` in config.json.",
                RecoveryAction.FREE_MEMORY,
            )
        for sentence in reading.findings:
            yield HealthFinding("hardware", sentence, FailureType.HARDWARE, "Check the driver with `nvidia-smi`.")

    def _cards(self) -> Iterator[HealthFinding]:
        for gpu in self._stats.read().gpus:
            yield from self._card(gpu)

    def _card(self, gpu: Gpu) -> Iterator[HealthFinding]:
        name = f"Card {gpu.index} ({gpu.name})"
        if gpu.temperature is not None and gpu.temperature >= HOT_CELSIUS:
            step = "Check its fans and the air flow; until then, a schedule in config.json gives it rest."
            yield HealthFinding(f"heat:{gpu.index}", f"{name} has {gpu.temperature} °C", FailureType.HARDWARE, step)
        elif gpu.slowed_by_heat:
            step = "Check its fans and its power supply: the estimates do not hold meanwhile."
            yield HealthFinding(
                f"slow:{gpu.index}", f"{name} slows down to protect itself from heat", FailureType.HARDWARE, step
            )
        if gpu.ecc_errors and gpu.ecc_errors > (self._ecc.get(gpu.index) or 0):
            yield HealthFinding(
                f"ecc:{gpu.index}",
                f"{name} has met memory errors that it could not correct: {gpu.ecc_errors} since the driver was loaded",
                FailureType.HARDWARE,
                "Restart the machine; replace the card if it happens again.",
                RecoveryAction.RESTART_WORKER,
            )

    def _queue(self) -> Iterator[HealthFinding]:
        health, workers = self._tasks.of_last(PERIOD_SECONDS), self._workers.list()
        yield from _failures(health)
        if health.lost_attempts >= _MANY:
            yield HealthFinding(
                "lost",
                f"{health.lost_attempts} attempts were lost within the last hour because a worker ended or hung",
                FailureType.PIPELINE,
                "Read the last words of the worker in the events of these tasks, and the server's log.",
            )
        yield from self._messages()
        alive = {one.id for one in self._workers.alive(self._settings.lease_seconds)}
        for worker in workers:
            yield from self._worker(worker, health, answers=worker.id in alive)

    def _messages(self) -> Iterator[HealthFinding]:
        """Report messages to webhooks that were given up within the last day; hosts are for their owners alone."""
        with acting_as(OPERATOR):  # of the whole server, whoever asks
            count = self._deliveries.counts(_DAY_SECONDS)[DeliveryState.FAILED]
        if count:
            yield HealthFinding(
                "webhooks",
                f"{count} message{' to a webhook was' if count == 1 else 's to webhooks were'} given up within a day",
                FailureType.NETWORK,
                "`wan22 webhooks list --failed` says why, and `wan22 webhooks redeliver --failed` sends them again.",
            )

    def _worker(self, worker: WorkerInfo, health: TaskHealth, *, answers: bool) -> Iterator[HealthFinding]:
        if worker.is_dead():
            return
        if not answers:
            seconds = (utcnow() - worker.seen_at).total_seconds()
            yield HealthFinding(
                f"silent:{worker.id}",
                f"The worker of {worker.device} on {worker.host} has not answered for {seconds:.0f} s",
                FailureType.PIPELINE,
                "Its task goes to another worker; look at that machine.",
            )
        elif worker.state is WorkerState.IDLE and (health.waiting_seconds or 0.0) > STUCK_SECONDS:
            yield HealthFinding(
                f"stuck:{worker.id}",
                f"The first task of the queue could have started {health.waiting_seconds:.0f} s ago, and the worker of "
                f"{worker.device} is idle",
                FailureType.PIPELINE,
                "Report this with the server's log.",
                RecoveryAction.RESTART_WORKER,
                worker.id,
                critical=True,
            )


def _failures(health: TaskHealth) -> Iterator[HealthFinding]:
    """Judge the failures of the last hour by what most of them have in common."""
    counted: dict[tuple[FailureType, RecoveryAction | None], int] = {}
    examples: dict[tuple[FailureType, RecoveryAction | None], str] = {}
    for code, count in sorted(health.failures.items(), key=lambda one: -one[1]):
        meaning = _MEANING.get(kind_of(code).category)
        if meaning is not None:
            counted[meaning] = counted.get(meaning, 0) + count
            examples.setdefault(meaning, code)
    failed = sum(counted.values())
    if failed < _MANY or failed < _MOST * (health.completed + failed):
        return
    (failure, remedy) = max(counted, key=lambda meaning: counted[meaning])
    code = examples[failure, remedy]
    yield HealthFinding(
        f"failures:{failure}",
        f"{failed} of the {health.completed + failed} tasks of the last hour failed, most of them with `{code}`",
        failure,
        " ".join(kind_of(code).suggestions),
        remedy,
    )
