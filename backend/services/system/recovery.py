"""The actions of recovery: what each does, how it is recorded, and how it is taken back.

No action changes what a user asked for. The server itself carries out only what its findings name, and within a budget.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from backend.core.catalogue.table import find_model
from backend.core.config.generation_policy import GenerationMode, StoredPolicy
from backend.core.errors.base import WanError
from backend.core.errors.lookups import StateConflict
from backend.core.planning.constraints import MIN_VRAM_GIB, StoredOptimization
from backend.core.planning.hardware import GIB
from backend.models.folder.manager import ModelManager, Presence
from backend.services.downloads.control import DownloadControl
from backend.services.downloads.state import DownloadState
from backend.services.system.findings import Examination, FailureType, RecoveryAction
from backend.services.system.host_stats import HostStats
from backend.store.upkeep.recovery_log import RecordedAction, RecoveryLog
from backend.store.workers import WorkerInfo, WorkerStore, WorkerWish

#: How often the server may carry out one action by itself within a period, in seconds.
BUDGET, BUDGET_SECONDS = 3, 3600.0
#: Share of the present limit that a tighter VRAM limit leaves.
_TIGHTER: Final = 0.85

#: What is done about a failure that somebody reports without naming an action.
USUAL: Final = {
    FailureType.MODEL_LOADING: RecoveryAction.DOWNLOAD_AGAIN,
    FailureType.VRAM: RecoveryAction.LIMIT_VRAM,
    FailureType.PIPELINE: RecoveryAction.RESTART_WORKER,
    FailureType.HARDWARE: RecoveryAction.EXAMINE,
    FailureType.RESOURCES: RecoveryAction.FREE_MEMORY,
    FailureType.NETWORK: RecoveryAction.DOWNLOAD_AGAIN,
}

log = structlog.get_logger(__name__)


#: What an action did, and how to take it back.
Done = tuple[str, dict[str, Any] | None]


class _Values(Protocol):
    """The values of a section."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""


class _Section(Protocol):
    """A section of config.json, whatever its values."""

    def current(self) -> _Values:
        """Return the values in force."""

    def change(self, values: dict[str, Any]) -> object:
        """Change some of them."""


@dataclass(frozen=True, slots=True)
class RecoveryStatistics:
    """What was done since the records begin."""

    total: int
    succeeded: int
    mean_seconds: float | None
    failures: dict[str, int]
    actions: dict[str, int]


class Recovery:
    """Carries out actions; safe to call from several threads."""

    def __init__(
        self,
        record: RecoveryLog,
        *,
        policy: StoredPolicy,
        optimization: StoredOptimization,
        models: ModelManager,
        downloads: DownloadControl,
        workers: WorkerStore,
        living: Callable[[], list[WorkerInfo]],
        stats: HostStats,
        examination: Examination,
    ) -> None:
        self._record = record
        self._sections: dict[str, _Section] = {"generation": policy, "optimization": optimization}
        self._policy, self._optimization = policy, optimization
        self._models = models
        self._downloads = downloads
        self._workers = workers
        self._living = living
        self._stats = stats
        self._examination = examination

    def perform(
        self,
        action: RecoveryAction,
        failure: FailureType,
        reason: str,
        *,
        automatic: bool = False,
        worker_id: str | None = None,
        model: str | None = None,
    ) -> RecordedAction:
        """Carry out an action and record it; an action that is refused or fails is recorded as such.

        Args:
            action: what to do.
            failure: what it is done about.
            reason: what was found, or who asked, for the record.
            automatic: whether the server decided it.
            worker_id: the worker it concerns; None = all.
            model: the model it concerns; None = every one that needs it.

        Raises:
            StoreFailed: the record could not be written; the action may have been carried out.
        """
        began, undo = time.monotonic(), None
        try:
            message, undo = self._do(action, worker_id, model)
        except WanError as error:
            succeeded, message = False, error.message
        else:
            succeeded = True
        seconds = time.monotonic() - began
        log.warning(
            "recovery.action", action=action.value, automatic=automatic, succeeded=succeeded, reason=reason, did=message
        )
        return self._record.add(
            failure_type=failure,
            action=action,
            reason=reason,
            automatic=automatic,
            succeeded=succeeded,
            message=message,
            seconds=seconds,
            undo=undo,
        )

    def may_act(self, action: RecoveryAction) -> bool:
        """Whether the budget allows the server to carry out this action by itself."""
        return self._record.automatic_since(action, BUDGET_SECONDS) < BUDGET

    def history(self, limit: int = 100) -> list[RecordedAction]:
        """Return the newest actions, newest first."""
        return self._record.list(limit)

    def reset(self) -> list[RecordedAction]:
        """Take back every action that is still in force, the newest first; return them.

        A setting that somebody else has changed since stays as it is.
        """
        taken_back = [one for one in self._record.list() if one.in_force]
        for one in taken_back:
            self._undo(one)
        return taken_back

    def statistics(self) -> RecoveryStatistics:
        """Return how often which action was carried out, and how that went."""
        done = self._record.list()
        return RecoveryStatistics(
            total=len(done),
            succeeded=sum(one.succeeded for one in done),
            mean_seconds=sum(one.seconds for one in done) / len(done) if done else None,
            failures=dict(Counter(one.failure_type for one in done)),
            actions=dict(Counter(one.action for one in done)),
        )

    @property
    def in_force(self) -> bool:
        """Whether an action changed something that was not taken back."""
        return any(one.in_force for one in self._record.list())

    def _do(self, action: RecoveryAction, worker_id: str | None, model: str | None) -> Done:
        """Carry out an action; return what was done and how to take it back. Raises WanError where it cannot be."""
        match action:
            case RecoveryAction.FALL_BACK_TO_MOCK:
                return "Every clip is a mock from now on, and says so", self._change(
                    "generation", {"mode": GenerationMode.MOCK}
                )
            case RecoveryAction.OFFLOAD:
                undo = self._change("optimization", {"enable_offload": True})
                return "Weights may leave the device between their uses", undo
            case RecoveryAction.LIMIT_VRAM:
                return self._limit_vram()
            case RecoveryAction.DOWNLOAD_AGAIN:
                return self._download(model), None
            case RecoveryAction.RESTART_WORKER:
                asked = self._ask(WorkerWish.RESTART, worker_id)
                return f"{asked} asked to restart; a running task continues from its saved state", None
            case RecoveryAction.FREE_MEMORY:
                asked = self._ask(WorkerWish.UNLOAD, worker_id)
                return f"{asked} asked to unload the model as soon as no task runs", None
            case RecoveryAction.EXAMINE:
                found = self._examination.findings()
                return "; ".join(one.sentence for one in found) or "Nothing is wrong", None
            case RecoveryAction.REDUCE_REQUESTS:
                raise StateConflict(
                    "Requests are never changed behind their owners' backs; a failed task names what would fit"
                )

    def _change(self, section: str, values: dict[str, Any]) -> dict[str, Any]:
        """Change settings in config.json; return how to take that back."""
        stored = self._sections[section]
        before = stored.current().to_json()
        if all(before[name] == value for name, value in values.items()):
            raise StateConflict("That is in force already")
        stored.change(values)
        return {"section": section, "before": {name: before[name] for name in values}, "after": values}

    def _undo(self, action: RecordedAction) -> None:
        undo = action.undo or {}
        stored = self._sections[undo["section"]]
        now = stored.current().to_json()
        if all(now[name] == value for name, value in undo["after"].items()):
            stored.change(undo["before"])
        self._record.undone(action.id)
        log.warning("recovery.taken_back", action=action.action, id=action.id)

    def _limit_vram(self) -> tuple[str, dict[str, Any]]:
        """Tighten the VRAM limit, so that plans that need less are chosen."""
        totals = [gpu.memory_total for gpu in self._stats.read().gpus if gpu.memory_total is not None]
        if not totals:
            raise StateConflict("There is no card whose memory could be limited")
        before = self._optimization.current().max_vram_usage_gb or min(totals) / GIB
        limit = round(max(MIN_VRAM_GIB, _TIGHTER * before), 1)
        undo = self._change("optimization", {"max_vram_usage_gb": limit})
        return f"Plans may use {limit:g} GiB of the card, {before:.1f} GiB before", undo

    def _download(self, model: str | None) -> str:
        """Order the files of a model, or of every one that is damaged or whose download failed."""
        failed = {name for name, one in self._downloads.all().items() if one.state is DownloadState.FAILED}
        states = self._models.states() if model is None else [self._models.state(find_model(model))]
        wanted = [
            one.spec
            for one in states
            if model is not None or one.presence is Presence.CORRUPTED or one.spec.id in failed
        ]
        ordered = [spec.id for spec in wanted if self._downloads.start(spec) is not None]
        if not ordered:
            raise StateConflict("No model is damaged, and no download has failed")
        return f"Downloading {', '.join(ordered)}; what is intact is kept"

    def _ask(self, wish: WorkerWish, worker_id: str | None) -> str:
        asked = [one for one in self._living() if worker_id in (None, one.id) and self._workers.ask(one.id, wish)]
        if not asked:
            raise StateConflict("No worker is there to be asked")
        return "1 worker was" if len(asked) == 1 else f"{len(asked)} workers were"
