"""Requests that users come back to: presets, which they name, and the prompts that they used.

The history is bounded: the prompts used longest ago go, favourites stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, ScalarSelect, delete, func, insert, select, update

from backend.core.domain import new_task_id
from backend.core.errors.lookups import PromptNotFound, SavedPresetExists, SavedPresetNotFound
from backend.core.errors.requests import InvalidRequest
from backend.core.requests.forms import GenerationRequest
from backend.store.access.ownership import new_owner, seen_by_caller
from backend.store.engine import Database
from backend.store.rows import is_id, moment, readable
from backend.store.tables import database_now, presets, prompts

MAX_PRESETS: Final = 500
MAX_FAVOURITES: Final = 500


@dataclass(frozen=True, slots=True)
class SavedPreset:
    """A request under a name; what it leaves out is as usual."""

    id: str
    name: str
    request: dict[str, Any]
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class UsedPrompt:
    """A prompt that was submitted."""

    id: str
    prompt: str
    negative_prompt: str
    model: str  #: that it was last used with
    uses: int
    favourite: bool
    used_at: datetime  #: last


def remember_prompt(connection: Connection, request: GenerationRequest, most: int) -> None:
    """Note the use of a prompt, in the transaction that queues its task; keep the newest `most` beside favourites."""
    if not most or request.latents_of is not None:
        return
    owner = new_owner()
    both = f"{owner}\x00{request.prompt}\x00{request.negative_prompt}"
    prompt_id = hashlib.sha256(both.encode()).hexdigest()[:32]
    used = {"uses": prompts.c.uses + 1, "used_at": database_now(), "model": request.model}
    if connection.execute(update(prompts).where(prompts.c.id == prompt_id).values(used)).rowcount:
        return
    values = {"prompt": request.prompt, "negative_prompt": request.negative_prompt, "model": request.model}
    connection.execute(insert(prompts).values(id=prompt_id, owner=owner, uses=1, used_at=database_now(), **values))
    plain = ~prompts.c.favourite & (prompts.c.owner == owner)
    last = select(prompts.c.used_at).where(plain).order_by(prompts.c.used_at.desc()).offset(most).limit(1)
    connection.execute(delete(prompts).where(plain, prompts.c.used_at <= last.scalar_subquery()))


class PromptHistory:
    """Reads the prompts that the current caller used, and marks them; the operator sees everybody's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, *, search: str = "", favourite: bool | None = None, most_used: bool = False) -> list[UsedPrompt]:
        """Return the prompts that contain a text, the last used ones first."""
        query = select(prompts).order_by(prompts.c.used_at.desc(), prompts.c.id)
        if most_used:
            query = select(prompts).order_by(prompts.c.uses.desc(), prompts.c.used_at.desc())
        query = query.where(seen_by_caller(prompts.c.owner))
        if favourite is not None:
            query = query.where(prompts.c.favourite if favourite else ~prompts.c.favourite)
        with self._database.read() as connection:
            found = readable(connection.execute(query).all(), _to_prompt)
        # Not in SQL: SQLite knows the small letters of ASCII alone.
        wanted = search.casefold()
        return [one for one in found if wanted in one.prompt.casefold()]

    def mark(self, prompt_id: str, *, favourite: bool) -> UsedPrompt:
        """Make a prompt a favourite or not.

        Raises:
            PromptNotFound: it is not in the history.
            InvalidRequest: there are too many favourites.
        """
        if not is_id(prompt_id):
            raise PromptNotFound
        with self._database.begin() as connection:
            kept = prompts.alias()  # the owner is asked for in the table itself
            others = select(func.count()).select_from(kept).where(kept.c.favourite, kept.c.id != prompt_id)
            count = others.where(kept.c.owner == _owner_of(prompt_id))
            if favourite and connection.execute(count).scalar_one() >= MAX_FAVOURITES:
                raise InvalidRequest(
                    f"There are {MAX_FAVOURITES} favourites already", suggestions=("Remove one first.",)
                )
            change = update(prompts).where(_this_prompt(prompt_id)).values(favourite=favourite)
            row = connection.execute(change.returning(*prompts.c)).one_or_none()
        if row is None:
            raise PromptNotFound
        return _to_prompt(row)

    def forget(self, prompt_id: str) -> None:
        """Delete one prompt from the history.

        Raises:
            PromptNotFound: it is not there.
        """
        if not is_id(prompt_id):
            raise PromptNotFound
        with self._database.begin() as connection:
            if not connection.execute(delete(prompts).where(_this_prompt(prompt_id))).rowcount:
                raise PromptNotFound

    def clear(self, *, favourites: bool = False) -> int:
        """Delete all prompts that the caller sees, with or without favourites; return how many."""
        gone = delete(prompts).where(seen_by_caller(prompts.c.owner))
        if not favourites:
            gone = gone.where(~prompts.c.favourite)
        with self._database.begin() as connection:
            return connection.execute(gone).rowcount


class PresetStore:
    """Keeps requests under names, each caller's own; the operator sees everybody's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self) -> list[SavedPreset]:
        """Return the presets that the caller sees, by name."""
        named = select(presets).where(seen_by_caller(presets.c.owner)).order_by(presets.c.name, presets.c.id)
        with self._database.read() as connection:
            return readable(connection.execute(named).all(), _to_preset)

    def get(self, preset_id: str) -> SavedPreset:
        """Return one preset.

        Raises:
            SavedPresetNotFound: there is none with this id.
        """
        if not is_id(preset_id):
            raise SavedPresetNotFound
        with self._database.read() as connection:
            row = connection.execute(select(presets).where(_this_preset(preset_id))).one_or_none()
        if row is None:
            raise SavedPresetNotFound
        return _to_preset(row)

    def add(self, name: str, request: Mapping[str, Any]) -> SavedPreset:
        """Keep a request under a free name.

        Raises:
            SavedPresetExists: another one has this name.
            InvalidRequest: there are too many.
        """
        with self._database.begin() as connection:
            owner = new_owner()
            _check_name(connection, name, owner)
            count = select(func.count()).select_from(presets).where(presets.c.owner == owner)
            if connection.execute(count).scalar_one() >= MAX_PRESETS:
                raise InvalidRequest(f"There are {MAX_PRESETS} presets already", suggestions=("Delete one first.",))
            now = database_now()
            values = {"name": name, "request": dict(request), "created_at": now, "updated_at": now, "owner": owner}
            new = insert(presets).values(id=new_task_id(), **values)
            return _to_preset(connection.execute(new.returning(*presets.c)).one())

    def change(
        self, preset_id: str, *, name: str | None = None, request: Mapping[str, Any] | None = None
    ) -> SavedPreset:
        """Give a preset another name, or another request; None leaves either as it is.

        Raises:
            SavedPresetNotFound: there is none with this id.
            SavedPresetExists: another one has this name.
        """
        if not is_id(preset_id):
            raise SavedPresetNotFound
        values: dict[str, Any] = {"updated_at": database_now()}
        if request is not None:
            values["request"] = dict(request)
        with self._database.begin() as connection:
            owner = connection.execute(select(presets.c.owner).where(_this_preset(preset_id))).scalar_one_or_none()
            if owner is None:
                raise SavedPresetNotFound
            if name is not None:
                _check_name(connection, name, owner, besides=preset_id)
                values["name"] = name
            change = update(presets).where(_this_preset(preset_id)).values(values)
            return _to_preset(connection.execute(change.returning(*presets.c)).one())

    def delete(self, preset_id: str) -> None:
        """Delete a preset.

        Raises:
            SavedPresetNotFound: there is none with this id.
        """
        if not is_id(preset_id):
            raise SavedPresetNotFound
        with self._database.begin() as connection:
            if not connection.execute(delete(presets).where(_this_preset(preset_id))).rowcount:
                raise SavedPresetNotFound


def _this_prompt(prompt_id: str) -> ColumnElement[bool]:
    return (prompts.c.id == prompt_id) & seen_by_caller(prompts.c.owner)


def _owner_of(prompt_id: str) -> ScalarSelect[str]:
    return select(prompts.c.owner).where(_this_prompt(prompt_id)).scalar_subquery()


def _this_preset(preset_id: str) -> ColumnElement[bool]:
    return (presets.c.id == preset_id) & seen_by_caller(presets.c.owner)


def _check_name(connection: Connection, name: str, owner: str, besides: str | None = None) -> None:
    named = select(presets.c.id).where(presets.c.name == name, presets.c.owner == owner)
    taken = connection.execute(named).scalar_one_or_none()
    if taken not in (None, besides):
        raise SavedPresetExists


def _to_preset(row: Row[Any]) -> SavedPreset:
    request = row.request if isinstance(row.request, dict) else {}
    return SavedPreset(row.id, row.name, request, moment(row.created_at), moment(row.updated_at))


def _to_prompt(row: Row[Any]) -> UsedPrompt:
    words = row.prompt, row.negative_prompt, row.model
    return UsedPrompt(row.id, *words, row.uses, bool(row.favourite), moment(row.used_at))
