"""One entry of section `models` in config.json: a user's own model, or overridden defaults of a built-in one.

Turns an entry into a spec, or explains in one sentence why it is invalid. Knows no files and no other entries.
"""

from __future__ import annotations

import copy
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from backend.core.catalogue.spec import AUTO
from backend.core.catalogue.table import BUILT_IN, ModelSpec, ModelTable, fold_name
from backend.core.errors.requests import InvalidRequest, UnknownModel
from backend.core.errors.surroundings import BadSettings
from backend.core.plain_words import about, in_plain_words
from backend.core.requests.forms import ImageRef, RequestDraft
from backend.core.requests.rules import resolve_request

#: Names that are safe as a folder name on every system and in every API path.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
#: Suffixes of auxiliary folders and files next to the models (`core.paths.Home`).
_RESERVED_ENDINGS = (".", ".partial", ".lock", ".removed")
#: Names with another meaning in requests, in the models folder, or in API paths.
_RESERVED = frozenset({AUTO, "quarantine", "con", "nul", "aux", "prn", "detailed", "status", "health", "download"})

#: Keys without which an entry is not the model that its author meant.
_DECISIVE: Final = frozenset({"base", "repository", "revision", "folder"})

_Name = Annotated[str, StringConstraints(pattern=_NAME)]
_Line = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]


class ModelDefaults(BaseModel):
    """Defaults of unset request fields; None = inherited from the base. Limits are those of a request."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    steps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    flow_shift: float | None = None
    fps: float | None = None
    num_frames: int | None = None
    width: int | None = None
    height: int | None = None
    max_sequence_length: int | None = None
    negative_prompt: str | None = None


class ModelEntry(BaseModel):
    """An entry as stored in the file; with `base` it defines a separate model."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    base: str | None = None
    title: _Line | None = None
    repository: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")] | None
    ) = None
    revision: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w./-]{0,99}$")] | None = None
    folder: Annotated[str, StringConstraints(min_length=1, max_length=4096)] | None = None
    licence: _Line | None = None
    aliases: list[_Name] = Field(default_factory=list, max_length=16)
    defaults: ModelDefaults = Field(default_factory=ModelDefaults)

    @classmethod
    def read(cls, value: Any) -> ModelEntry:
        """Validate and parse an entry.

        Raises:
            BadSettings: a key is unknown or has an invalid value; the message names the first.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise BadSettings(_reason(error)) from None

    @classmethod
    def sift(cls, value: Any) -> tuple[ModelEntry, dict[tuple[str, ...], str]]:
        """Parse an entry without its unusable keys, and return why each of those is ignored.

        Raises:
            BadSettings: it is not an object, or a key that decides which model it is has an invalid value.
        """
        kept = copy.deepcopy(value)
        ignored: dict[tuple[str, ...], str] = {}
        while True:
            try:
                return cls.model_validate(kept), ignored
            except ValidationError as error:
                path = [str(part) for part in _first(error)["loc"]]
                if not path or path[0] in _DECISIVE:
                    raise BadSettings(_reason(error)) from None
                keys = tuple(path[: 2 if path[0] == "defaults" else 1])
                ignored[keys] = _reason(error)
                del (kept if len(keys) == 1 else kept[keys[0]])[keys[-1]]

    def to_json(self) -> dict[str, Any]:
        """Return the entry as stored, without inherited values."""
        return self.model_dump(exclude_none=True, exclude_defaults=True)

    def applied_to(self, model_id: str, table: ModelTable) -> ModelSpec:
        """Return the spec of this entry under this id, to be added to `table` or to replace a spec in it.

        Raises:
            BadSettings: the id or an alias is taken or invalid, the base is unknown, or a default exceeds the
                base's limits.
        """
        base = self._base(model_id)
        own = self.base is not None
        taken = table.holder((model_id, *self.aliases) if own else self.aliases)
        if taken is not None and (own or taken.id != model_id):
            raise BadSettings(f"one of its names already belongs to {taken.id}", suggestions=("Choose another name.",))
        if any(fold_name(alias) in _RESERVED for alias in self.aliases):
            raise BadSettings("aliases: one of them is reserved", suggestions=("Choose another name.",))
        overrides = self._overrides(base)
        if not own:
            return replace(base, aliases=(*base.aliases, *self.aliases), **overrides)
        return replace(
            base,
            id=model_id,
            base=base.id,
            title=self.title or model_id,
            repo_id=self.repository,
            revision=self.revision or "main",
            folder=None if self.folder is None else Path(self.folder).expanduser(),
            licence=self.licence or "unknown",
            aliases=tuple(self.aliases),
            **overrides,
        )

    def settled(self, model_id: str, table: ModelTable) -> tuple[ModelSpec, dict[tuple[str, ...], str]]:
        """Return the spec as `applied_to`, without the defaults that its base cannot use, and why each is ignored.

        Raises:
            BadSettings: as `applied_to`, for anything but the defaults.
        """
        usable: dict[str, Any] = {}
        ignored: dict[tuple[str, ...], str] = {}
        spec = self._with_defaults({}).applied_to(model_id, table)
        given = self.defaults.model_dump(exclude_none=True)
        size: dict[str, Any] = {name: given.pop(name) for name in ("width", "height") if name in given}
        groups: list[dict[str, Any]] = [size, *({name: value} for name, value in given.items())]
        for group in groups:
            try:
                spec = self._with_defaults(usable | group).applied_to(model_id, table)
            except BadSettings as error:
                ignored |= dict.fromkeys((("defaults", name) for name in group), error.message)
            else:
                usable |= group
        return spec, ignored

    def _with_defaults(self, defaults: dict[str, Any]) -> ModelEntry:
        return self.model_copy(update={"defaults": ModelDefaults(**defaults)})

    def _base(self, model_id: str) -> ModelSpec:
        if self.base is None:
            built_in = BUILT_IN.get(model_id)
            if built_in is None:
                raise BadSettings(f"base is missing: a model that is built like it, one of {', '.join(BUILT_IN.ids)}")
            further = [name for name in self.to_json() if name not in {"defaults", "aliases"}]
            if further:
                raise BadSettings(f"{further[0]} of a built-in model is fixed; `defaults` and `aliases` may be set")
            return built_in
        check_name(model_id)
        if self.folder is not None and self.repository is not None:
            raise BadSettings("folder and repository exclude each other: its files come from one of them")
        try:
            return BUILT_IN.find(self.base)
        except UnknownModel:
            raise BadSettings(f"base must be one of {', '.join(BUILT_IN.ids)}") from None

    def _overrides(self, base: ModelSpec) -> dict[str, Any]:
        """Return the overridden defaults, validated with a request against the base's limits."""
        given = self.defaults.model_dump(exclude_none=True)
        width, height = given.get("width", base.width), given.get("height", base.height)
        image = ImageRef("", width, height) if base.needs_image else None
        sizes = {"width": width, "height": height}
        try:
            _, changes = resolve_request(base, RequestDraft("-", image=image, **(given | sizes)))
        except InvalidRequest as error:
            raise BadSettings(f"defaults: {error.message}", suggestions=error.next_steps) from None
        if changes:
            raise BadSettings(f"defaults: {base.id} does not support these values: {changes[0]}")
        known = {field.name for field in fields(ModelSpec)}
        return {name: value for name, value in given.items() if name in known}


def _first(error: ValidationError) -> ErrorDetails:
    return error.errors(include_url=False, include_input=False)[0]


def _reason(error: ValidationError) -> str:
    """Return a sentence about the first fault."""
    first = _first(error)
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{key} is not a key of a model entry"
    return about(key, in_plain_words(first)) if key else "it must be an object"


def check_name(model_id: str) -> None:
    """Validate an id: usable as a folder name and not reserved.

    Raises:
        BadSettings: it is invalid or reserved.
    """
    if not re.fullmatch(_NAME, model_id) or model_id.lower().endswith(_RESERVED_ENDINGS):
        raise BadSettings(
            "an id has at most 64 letters, digits, dots, hyphens and underscores, and begins with a letter or digit"
        )
    if fold_name(model_id) in _RESERVED:
        raise BadSettings("this id is reserved", suggestions=("Choose another one.",))
