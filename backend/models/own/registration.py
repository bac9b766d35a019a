"""Registers and removes a user's own model: checks its files, optionally copies them, writes its entry.

The user's files are never moved, changed or deleted: a model refers to an external folder, or is a copy or a set of
links in the home folder. Removal deletes the entry and only what registration created.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from backend.core.catalogue.table import BUILT_IN, ModelSpec
from backend.core.errors.lookups import StateConflict
from backend.core.errors.surroundings import BadSettings
from backend.core.files import storage_errors
from backend.core.paths import Home
from backend.models.adoption.assembly import OnRead, Parts, assemble, lacking, sole_writer
from backend.models.folder.manager import ModelManager
from backend.models.folder.storage import remove_model
from backend.models.own.configuration import ModelConfigurationManager
from backend.models.own.folder_kind import check_folder
from backend.models.own.given_files import place_files, with_the_rest
from backend.models.own.model_entry import ModelEntry


class OwnModels:
    """The user's own models of one home folder."""

    def __init__(self, home: Home, configuration: ModelConfigurationManager) -> None:
        self._home = home
        self._configuration = configuration

    def add(self, model_id: str, entry: ModelEntry, folder: Path | None = None, *, copy: bool = False) -> ModelSpec:
        """Register a model, with files in `folder` (diffusers' layout) or to be downloaded from its repository.

        Raises:
            BadSettings: the entry is invalid.
            ModelMismatch: the folder does not hold a model with the structure of the entry's base.
            StateConflict: the home folder already has files of this name.
            ModelUnavailable: another process is changing the model's folder.
            StorageFull: the disk has no room for the copy.
        """
        if folder is not None and not copy:
            entry = entry.model_copy(update={"folder": str(folder.resolve())})
        spec = self._checked(model_id, entry)
        entry = entry.model_copy(update={"base": spec.base})
        if folder is not None:
            check_folder(folder, spec)
        if folder is not None and copy:
            with sole_writer(self._home, spec):
                self._copy(folder, model_id)
        return self._configuration.add(model_id, entry)

    def add_files(
        self,
        model_id: str,
        entry: ModelEntry,
        named: Mapping[str, Path],
        others: Iterable[Path] = (),
        *,
        models: ModelManager,
        copy: bool = False,
        on_read: OnRead = lambda _name, _count: None,
    ) -> tuple[ModelSpec, tuple[str, ...]]:
        """Register a model made of single files, `named` by component, and of parts of installed models.

        Return its spec and notes about it. `wan22 models download` adds the remaining parts from the repository of
        its base.

        Raises:
            BadSettings, StorageFull, ModelMismatch: as `add`.
            ModelUnavailable: the home folder already has files of this name.
            ModelDamaged: a file cannot be read.
        """
        spec = self._checked(model_id, entry)
        given = with_the_rest(spec, place_files(spec, named, others), models)
        base = BUILT_IN.find(spec.structure)
        entry = entry.model_copy(update={"base": base.id, "repository": entry.repository or base.repo_id})
        made = assemble(self._home, spec, Parts(given.files), copy=copy, on_read=on_read)
        try:
            added = self._configuration.add(model_id, entry)
        except BadSettings:
            remove_model(self._home, spec)
            raise
        missing = lacking(spec, made.links)
        notes = given.notes
        if missing:
            come = "comes" if len(missing) == 1 else "come"
            notes += (f"{', '.join(missing)} of {base.id} {come} with `wan22 models download {model_id}`",)
        return added, notes

    def _checked(self, model_id: str, entry: ModelEntry) -> ModelSpec:
        """Return the spec of an entry, before any file is read."""
        spec = entry.applied_to(model_id, self._configuration.refresh())
        if spec.base is None:
            raise BadSettings(f"{model_id} is built in", suggestions=("Choose another name.",))
        return spec

    def remove(self, spec: ModelSpec) -> int:
        """Remove a model and its files in the home folder; return the number of bytes freed.

        Raises:
            ModelUnavailable: it is being downloaded.
        """
        places = (self._home.model_of(spec.id), self._home.partial_model_of(spec.id), self._home.quarantine_of(spec.id))
        ours = spec.folder is None and any(place.exists() or place.is_symlink() for place in places)
        freed = remove_model(self._home, spec) if ours else 0
        self._configuration.remove(spec.id)
        return freed

    def _copy(self, folder: Path, model_id: str) -> None:
        partial, target = self._home.partial_model_of(model_id), self._home.model_of(model_id)
        if target.exists() or target.is_symlink():
            raise StateConflict(
                f"The folder models/{model_id} already exists", suggestions=("Choose another name, or remove it.",)
            )
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with storage_errors():
                shutil.copytree(folder, partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(target)
