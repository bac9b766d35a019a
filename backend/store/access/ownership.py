"""What belongs to which key: the one filter that every query about users' things passes.

A task has its owner in a column; videos and events are their task's; uploaded files are in a table of their own.
A thing without an owner was made by the operator, or before there were keys.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, delete, exists, insert, select, true

from backend.core.access.caller import current_caller
from backend.core.domain import TERMINAL
from backend.store.engine import Database
from backend.store.tables import owned_files, tasks


def own_tasks() -> ColumnElement[bool]:
    """The tasks that the current caller sees."""
    owner = current_caller().confined_to
    return true() if owner is None else tasks.c.owner == owner


def of_own_task(task_id: ColumnElement[str]) -> ColumnElement[bool]:
    """The rows of other tables whose task the current caller sees."""
    owner = current_caller().confined_to
    return true() if owner is None else task_id.in_(select(tasks.c.id).where(tasks.c.owner == owner))


def seen_by_caller(owner: ColumnElement[str]) -> ColumnElement[bool]:
    """The rows of a table with a column for the owner that the current caller sees."""
    seen = current_caller().confined_to
    return true() if seen is None else owner == seen


def new_owner() -> str:
    """Return whom something new belongs to where the column is never null: a key's id, or empty for the operator."""
    return current_caller().key_id or ""


def own_ids(connection: Connection, task_ids: Collection[str]) -> set[str]:
    """Return those of the ids whose tasks the current caller sees."""
    if current_caller().confined_to is None:
        return set(task_ids)
    found = connection.execute(select(tasks.c.id).where(own_tasks(), tasks.c.status.not_in(TERMINAL))).scalars()
    return set(found) & set(task_ids)


def own(owner: Column[Any]) -> ColumnElement[bool]:
    """The rows of a table with an owner that the current caller sees."""
    confined_to = current_caller().confined_to
    return true() if confined_to is None else owner == confined_to


def key_of_caller(key: str | None) -> str | None:
    """Return an idempotency key as it is stored: equal keys of different callers are different."""
    owner = current_caller().key_id
    return key if key is None or owner is None else f"{owner}  {key}"


class FileKind(StrEnum):
    """Files that belong to whoever uploaded them."""

    IMAGE = "image"
    LORA = "lora"


class OwnedFiles:
    """Who uploaded which file. Several keys may own one: equal images are stored once."""

    def __init__(self, database: Database, kind: FileKind) -> None:
        self._database = database
        self._kind = kind
        self._ours = owned_files.c.kind == kind

    def take(self, name: str, *, new: bool = True) -> None:
        """Record that the current caller owns a file; one that is not `new` and has no owner stays everybody's."""
        owner = current_caller().key_id
        if owner is None:
            return
        mine = self._ours & (owned_files.c.name == name)
        with self._database.begin() as connection:
            owners = set(connection.execute(select(owned_files.c.owner).where(mine)).scalars())
            if owner not in owners and (new or owners):
                connection.execute(insert(owned_files).values(kind=self._kind, name=name, owner=owner))

    def has(self, name: str) -> bool:
        """Whether the current caller owns a file, or sees everything."""
        owner = current_caller().confined_to
        if owner is None:
            return True
        mine = self._ours & (owned_files.c.name == name) & (owned_files.c.owner == owner)
        with self._database.read() as connection:
            return connection.execute(select(exists().where(mine))).scalar_one() is True

    def of_others(self) -> set[str]:
        """Return the names of the files that belong to other keys alone."""
        owner = current_caller().confined_to
        if owner is None:
            return set()
        with self._database.read() as connection:
            rows = connection.execute(select(owned_files.c.name, owned_files.c.owner).where(self._ours)).all()
        return {row.name for row in rows} - {row.name for row in rows if row.owner == owner}

    def release(self, name: str) -> bool:
        """Give up a file; return whether nobody else owns it, so that it can be deleted."""
        owner, mine = current_caller().confined_to, self._ours & (owned_files.c.name == name)
        with self._database.begin() as connection:
            connection.execute(delete(owned_files).where(mine & (true() if owner is None else _of(owner))))
            return connection.execute(select(owned_files.c.name).where(mine)).first() is None

    def forget(self, names: set[str]) -> None:
        """Delete what is recorded about files that are gone."""
        with self._database.begin() as connection:
            for name in names:
                connection.execute(delete(owned_files).where(self._ours & (owned_files.c.name == name)))


def _of(owner: str) -> ColumnElement[bool]:
    return owned_files.c.owner == owner
