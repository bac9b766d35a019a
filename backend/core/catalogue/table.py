"""The table of models in force, and the resolution of the names that clients use.

A process serves one home folder and has one table: the built-in models and those that the owner of the home added. The
composition root puts the table in force (`models.own.configuration`); all other code asks here. A table is immutable,
so the holder of one sees the same models throughout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from backend.core.catalogue.builtin import MODELS
from backend.core.catalogue.spec import AUTO, Mode, ModelSpec
from backend.core.errors.actions import resubmit
from backend.core.errors.requests import UnknownModel
from backend.core.plain_words import nearest

__all__ = [
    "BUILT_IN",
    "MODELS",
    "Mode",
    "ModelSpec",
    "ModelTable",
    "find_model",
    "fold_name",
    "models_in_force",
    "put_in_force",
]

#: Minimum length of an abbreviated name.
SHORTEST_PREFIX = 3

_OWNER = re.compile(r"^(wan-ai|fastvideo)[/_-]")
_SUFFIX = re.compile(r"(-diffusers)?(@2\.[12]\.0)?$")


def fold_name(name: str) -> str:
    """Normalise the spellings that clients use: case, `_` for `-`, the owner, `-Diffusers`, `@2.2.0`."""
    key = _OWNER.sub("", name.strip().lower())
    return _SUFFIX.sub("", key.replace("_", "-"))


@dataclass(frozen=True)
class ModelTable:
    """Models in listing order."""

    specs: tuple[ModelSpec, ...]
    faults: tuple[str, ...] = ()  #: sentences about rejected entries

    @property
    def ids(self) -> list[str]:
        """The names of all models."""
        return [spec.id for spec in self.specs]

    def get(self, model_id: str) -> ModelSpec | None:
        """Return the model with exactly this id, as a stored task or video has it; None when it is gone."""
        return self._by_id.get(model_id)

    def find(self, name: str) -> ModelSpec:
        """Return the model that a client's name means: an id, an alias, or an unambiguous prefix of one.

        Raises:
            UnknownModel: no model has this name, or the prefix is ambiguous; no other model is substituted.
        """
        exact = self._by_id.get(name)
        if exact is not None:
            return exact
        key = fold_name(name)
        spec = self._by_key.get(key)
        if spec is not None:
            return spec
        begun = {id(one): one for known, one in self._by_key.items() if known.startswith(key)}
        if len(key) >= SHORTEST_PREFIX and len(begun) == 1:
            return next(iter(begun.values()))
        known = [*self.ids, AUTO]
        close = nearest(key, self._by_key)
        raise UnknownModel(
            f"Invalid model type. Must be one of: {', '.join(known)}",
            suggestions=(f"Did you mean {self._by_key[close].id}?",) if close else None,
            details={"known_models": known},
            actions=(resubmit(model_type=self._by_key[close].id),) if close else None,
        )

    def names_of(self, spec: ModelSpec) -> set[str]:
        """Return the normalised names of this model."""
        return {fold_name(name) for name in (spec.id, *spec.aliases)}

    def holder(self, names: Iterable[str]) -> ModelSpec | None:
        """Return a model that already has one of these names; None when they are free."""
        return next((spec for name in names if (spec := self._by_key.get(fold_name(name))) is not None), None)

    @cached_property
    def _by_id(self) -> Mapping[str, ModelSpec]:
        return {spec.id: spec for spec in self.specs}

    @cached_property
    def _by_key(self) -> Mapping[str, ModelSpec]:
        return {name: spec for spec in self.specs for name in self.names_of(spec)}


#: The table every process starts with.
BUILT_IN = ModelTable(tuple(MODELS.values()))

_in_force: ModelTable = BUILT_IN


def models_in_force() -> ModelTable:
    """Return the current table of this process."""
    return _in_force


def put_in_force(table: ModelTable) -> None:
    """Replace the table of the process; for composition roots only."""
    global _in_force
    _in_force = table


def find_model(name: str) -> ModelSpec:
    """Return the spec that a client's name means, from the table in force.

    Raises:
        UnknownModel: no model has this name, or the prefix is ambiguous; no other model is substituted.
    """
    return _in_force.find(name)
