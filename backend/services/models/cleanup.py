"""Frees disk space of models that nobody needs: what the gallery and the queue say, put to what the disk says.

Suggests first and deletes only when told to; a model that a task waits for or a worker holds is never among it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from backend.core.domain import utcnow
from backend.core.errors import StateConflict, WanError
from backend.core.paths import Home
from backend.models.folder.manager import ModelManager
from backend.models.folder.storage import Leaving, StorageReport, Suggestion, clear, storage_report, suggest
from backend.services.models.availability import ModelUsage
from backend.store.outputs import OutputStore


@dataclass(frozen=True, slots=True)
class Done:
    """One suggestion that was carried out, or could not be."""

    suggestion: Suggestion
    freed: int  #: bytes
    error: WanError | None = None


class StorageCleanup:
    """Reports, suggests and deletes."""

    def __init__(self, home: Home, manager: ModelManager, need: ModelUsage, outputs: OutputStore) -> None:
        self._home = home
        self._manager = manager
        self._need = need
        self._outputs = outputs

    def report(self) -> StorageReport:
        """Say what the models take on the disk and when each was used."""
        last = {model: use.last for model, use in self._outputs.uses().items()}
        return storage_report(self._home, self._manager, last)

    def suggestions(self, report: StorageReport, *, keep_days: int, target_free: int | None) -> list[Suggestion]:
        """Say what could go; see `models.storage.suggest`."""
        return suggest(report, now=utcnow(), keep_days=keep_days, target_free=target_free, needed=self._need.models())

    def carry_out(self, suggestions: list[Suggestion]) -> list[Done]:
        """Delete, one after the other; what is needed by now, or being changed by somebody, stays."""
        done = []
        for suggestion in suggestions:
            whole = suggestion.what is Leaving.MODEL
            try:
                with self._need.exclusive(suggestion.spec) if whole else nullcontext():
                    done.append(Done(suggestion, clear(self._home, suggestion)))
            except StateConflict:
                continue  # somebody needs it by now
            except WanError as error:
                done.append(Done(suggestion, 0, error))
        return done
