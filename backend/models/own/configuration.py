"""The model table of one home folder: the built-in models with the user's overrides, and the user's own models.

Reads section `models` of config.json and activates the table in this process. Entries are validated one by one, and
the keys of each: what is invalid is ignored and logged, and never blocks the rest. Opens no model files.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import structlog

from backend.core.catalogue.table import BUILT_IN, ModelSpec, ModelTable, models_in_force, put_in_force
from backend.core.config.file import ConfigFile
from backend.core.errors.surroundings import BadSettings
from backend.core.paths import Home
from backend.core.plain_words import printable
from backend.models.own.model_entry import ModelEntry

SECTION = "models"
_SHOWN_CHARS = 64

log = structlog.get_logger(__name__)


class ModelConfigurationManager:
    """Keeps this process's table in step with config.json; thread-safe."""

    def __init__(self, home: Home) -> None:
        """Do not read the file yet; the first `refresh` does."""
        self._file = ConfigFile(home.config_file)
        self._mark: tuple[int, int, int] | None = None
        self._table: ModelTable | None = None
        self._lock = threading.Lock()

    def refresh(self) -> ModelTable:
        """Activate the file's current table; costs one `stat` if nothing has changed."""
        with self._lock:
            mark = self._file.mark  # taken before reading, so that later changes are picked up next time
            if self._table is None or mark != self._mark:
                self._table, self._mark = self._read(), mark
                for fault in self._table.faults:
                    log.warning("models.entry_left_out", fault=fault)
            if models_in_force() is not self._table:
                put_in_force(self._table)
            return self._table

    def has(self, model_id: str) -> bool:
        """Whether an entry with exactly this id exists, including skipped ones.

        Raises:
            BadSettings: the file cannot be read.
        """
        return model_id in self._file.section(SECTION)

    def add(self, model_id: str, entry: ModelEntry) -> ModelSpec:
        """Write a new entry, activate the extended table, and return the spec.

        Raises:
            BadSettings: the entry is invalid, or the file cannot be read; nothing was written.
        """

        def added(section: dict[str, Any]) -> dict[str, Any]:
            if model_id in section:
                raise BadSettings(
                    f"An entry {model_id} already exists",
                    suggestions=(f"Remove it with `wan22 models remove {model_id}`, or choose another name.",),
                )
            try:
                entry.applied_to(model_id, table_of(section))
            except BadSettings as error:
                raise BadSettings(f"{model_id}: {error.message}", suggestions=error.next_steps) from None
            return section | {model_id: entry.to_json()}

        self._file.update(SECTION, added)
        spec = self.refresh().get(model_id)
        if spec is None:
            raise BadSettings(f"{model_id} was changed by another process at the same time")
        return spec

    def remove(self, model_id: str) -> None:
        """Remove an entry if present, and activate the reduced table.

        Raises:
            BadSettings: the file cannot be read.
        """
        self._file.update(SECTION, lambda section: {name: one for name, one in section.items() if name != model_id})
        self.refresh()

    def _read(self) -> ModelTable:
        try:
            return table_of(self._file.section(SECTION), self._file.place)
        except BadSettings as error:
            # The file may be mid-edit: keep the last known table.
            return ModelTable((self._table or BUILT_IN).specs, (error.message,))


def table_of(section: dict[str, Any], place: Callable[..., str] = lambda *_: "config.json") -> ModelTable:
    """Return the section's table, with one sentence per skipped entry and per ignored key of an entry.

    `place` returns where the entry of some keys is in the file.
    """
    specs, ignored = _sifted(section)
    faults = [printable(f"{place(*keys)}: `{'.'.join(keys)}` {why}") for keys, why in ignored]
    return ModelTable(specs, tuple(faults))


def ignored_in(section: dict[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Return the keys of each skipped entry and of each ignored key of an entry, and why it is ignored."""
    return _sifted(section)[1]


def _sifted(section: dict[str, Any]) -> tuple[tuple[ModelSpec, ...], list[tuple[tuple[str, ...], str]]]:
    faults: list[tuple[tuple[str, ...], str]] = []
    found: dict[str, ModelSpec] = {spec.id: spec for spec in BUILT_IN.specs}
    for model_id, value in section.items():
        path = SECTION, model_id[:_SHOWN_CHARS]
        try:
            entry, ignored = ModelEntry.sift(value)
            found[model_id], unusable = entry.settled(model_id, ModelTable(tuple(found.values())))
        except BadSettings as error:
            faults.append((path, f"is ignored: {error.message}"))
        else:
            faults += [((*path, *keys), f"is ignored: {why}") for keys, why in (ignored | unusable).items()]
    return tuple(found.values()), faults
