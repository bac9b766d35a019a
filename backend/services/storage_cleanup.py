"""Frees disk space of models that nobody needs: what the gallery and the queue say, put to what the disk says.

Suggests first and deletes only when told to; a model that a task waits for or a worker holds is never among it.
"""

from __future__ import annotations

from dataclasses import dataclass

from backend.core.domain import TERMINAL, TaskStatus, utcnow
from backend.core.errors import WanError
from backend.core.paths import Home
from backend.models.manager import ModelManager
from backend.models.storage import Leaving, StorageReport, Suggestion, clear, storage_report, suggest
from backend.store.outputs import OutputStore
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerStore


@dataclass(frozen=True, slots=True)
class Done:
    """One suggestion that was carried out, or could not be."""

    suggestion: Suggestion
    freed: int  #: bytes
    error: WanError | None = None


class StorageCleanup:
    """Reports, suggests and deletes."""

    def __init__(
        self,
        home: Home,
        manager: ModelManager,
        tasks: TaskStore,
        workers: WorkerStore,
        outputs: OutputStore,
        lease_seconds: float,
    ) -> None:
        self._home = home
        self._manager = manager
        self._tasks = tasks
        self._workers = workers
        self._outputs = outputs
        self._lease_seconds = lease_seconds

    def report(self) -> StorageReport:
        """Say what the models take on the disk and when each was used."""
        last = {model: use.last for model, use in self._outputs.uses().items()}
        return storage_report(self._home, self._manager, last)

    def suggestions(self, report: StorageReport, *, keep_days: int, target_free: int | None) -> list[Suggestion]:
        """Say what could go; see `models.storage.suggest`."""
        return suggest(report, now=utcnow(), keep_days=keep_days, target_free=target_free, needed=self._needed())

    def carry_out(self, suggestions: list[Suggestion]) -> list[Done]:
        """Delete, one after the other; what is needed by now, or being changed by somebody, stays."""
        done = []
        for suggestion in suggestions:
            if suggestion.what is Leaving.MODEL and suggestion.spec.id in self._needed():
                continue
            try:
                done.append(Done(suggestion, clear(self._home, suggestion)))
            except WanError as error:
                done.append(Done(suggestion, 0, error))
        return done

    def _needed(self) -> frozenset[str]:
        waiting = {task.model for state in TaskStatus if state not in TERMINAL for task in self._tasks.list(state)}
        held = {one.model for one in self._workers.alive(self._lease_seconds) if one.model and not one.is_dead()}
        return frozenset(waiting | held)
