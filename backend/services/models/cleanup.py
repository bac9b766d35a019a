"""Frees disk space: combines what the disk holds with what the gallery and the queue know about the use of models.

Suggests first and deletes on request only; never a model that a task waits for or a worker holds.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

from backend.core.domain import utcnow
from backend.core.errors.base import WanError
from backend.core.errors.lookups import StateConflict
from backend.core.paths import Home
from backend.models.folder.manager import ModelManager
from backend.models.folder.storage import Leaving, StorageReport, Suggestion, clear, storage_report, suggest
from backend.services.models.availability import ModelUsage
from backend.store.gallery.outputs import OutputStore


@dataclass(frozen=True, slots=True)
class Done:
    """The outcome of one suggestion."""

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
        """Return the disk space of the models and when each was last used."""
        last = {model: use.last for model, use in self._outputs.uses().items()}
        return storage_report(self._home, self._manager, last)

    def suggestions(self, report: StorageReport, *, keep_days: int, target_free: int | None) -> list[Suggestion]:
        """Suggest what to delete; see `models.folder.storage.suggest`."""
        return suggest(report, now=utcnow(), keep_days=keep_days, target_free=target_free, needed=self._need.models())

    def carry_out(self, suggestions: list[Suggestion]) -> list[Done]:
        """Delete one after the other; models that have come into use, or are being changed, stay."""
        done = []
        for suggestion in suggestions:
            whole = suggestion.what is Leaving.MODEL
            try:
                with self._need.exclusive(suggestion.spec) if whole else nullcontext():
                    done.append(Done(suggestion, clear(self._home, suggestion)))
            except StateConflict:
                continue  # it has come into use
            except WanError as error:
                done.append(Done(suggestion, 0, error))
        return done
