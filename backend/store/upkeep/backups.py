"""Copies of an SQLite database in the home's folder `backups`, and how one takes the place of a damaged database.

A copy under its final name is complete, intact and on disk. At every moment of a restoration either the old file, or
no file and an intact copy, is there, so that a killed one is repeated by the next start.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from backend.core.domain import utcnow
from backend.core.errors.surroundings import DatabaseDamaged, StoreUnavailable
from backend.core.faults import fault_point
from backend.core.files import PART_SUFFIX, replacing, storage_errors, sync_folder
from backend.store.engine import Database
from backend.store.sqlite_file import FileCondition, inspect_file, named

_NAME: Final = re.compile(r"wan22-(\d{8}T\d{6})Z(-before-\w+)?\.db")
_TIME: Final = "%Y%m%dT%H%M%S"
#: What SQLite keeps beside a database, and what may hold its newest changes.
_COMPANIONS: Final = ("-wal", "-shm", "-journal")
#: More numbers of events than a copy can lack, and than are ever replayed: no client is sent what it did not miss.
LEFT_OUT: Final = 1_000_000
_FULL_DISK: Final = "The disk of the backups is full"


@dataclass(frozen=True, slots=True)
class Backup:
    """One copy."""

    path: Path
    made_at: datetime
    size_bytes: int


class Backups:
    """The copies of one database; every process may read them, and make new ones."""

    def __init__(self, folder: Path, now: Callable[[], datetime] = utcnow) -> None:
        self._folder = folder
        self._now = now

    def list(self) -> list[Backup]:
        """Return the copies, newest first."""
        found = []
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            match = _NAME.fullmatch(path.name)
            if match is not None and path.is_file():
                made_at = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC)
                found.append(Backup(path, made_at, path.stat().st_size))
        return sorted(found, key=lambda one: (one.made_at, one.path.name), reverse=True)

    def newest_intact(self) -> Backup | None:
        """Return the newest copy that is intact; reads every newer one from end to end."""
        for one in self.list():
            if inspect_file(one.path, seconds=None).condition is FileCondition.INTACT:
                return one
        return None

    def make(self, database: Database, *, before: str | None = None) -> Backup:
        """Copy the database as it is now; `before` names the schema that it is about to be migrated to.

        Raises:
            StorageFull: the disk has no room for it.
            StoreUnavailable: the database cannot be read, or the copy not be written.
        """
        made_at = self._now().astimezone(UTC)
        note = "" if before is None else f"-before-{before}"
        path = self._folder / f"wan22-{made_at:{_TIME}}Z{note}.db"
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise named(error, "The folder of the backups") from error
        make_copy(database, path)
        return Backup(path, made_at.replace(microsecond=0), path.stat().st_size)

    def prune(self, keep: int) -> int:
        """Delete all but the newest `keep` copies; return how many were deleted."""
        spare = self.list()[keep:]
        for one in spare:
            one.path.unlink(missing_ok=True)
        return len(spare)


def make_copy(database: Database, path: Path) -> None:
    """Write an intact copy of the database to `path`, replacing an earlier one only when the copy is on disk.

    Raises:
        StorageFull: the disk has no room for it.
        StoreUnavailable: the database cannot be read, or the copy not be written.
    """
    try:
        with storage_errors(_FULL_DISK), replacing(path) as part:
            database.copy_to(part)
            fault_point("backup.copied")
            found = inspect_file(part, seconds=None)
            if found.condition is not FileCondition.INTACT:
                raise StoreUnavailable(f"The copy of the database is {found.condition}: {found.reason}")
            _sync(part)
    except OSError as error:
        raise named(error, f"The backup {path.name}") from error
    fault_point("backup.in_place")


def put_in_place(copy: Path | None, target: Path, moment: datetime) -> Path | None:
    """Make a copy of the database the database, and return where the old file went; None = there was none.

    No process may have the database open. Without a copy the place is left empty. The copy itself is kept.

    Raises:
        DatabaseDamaged: the copy is not an intact database; nothing was changed.
        StorageFull, StoreUnavailable: there is no room, or the folder cannot be written; nothing was changed.
    """
    part = target.with_name(f"{target.name}.restored{PART_SUFFIX}")
    try:
        if copy is not None:
            found = inspect_file(copy, seconds=None)
            if found.condition is not FileCondition.INTACT:
                raise DatabaseDamaged(
                    f"{copy.name} is no intact database of wan22" + (f": {found.reason}" if found.reason else ""),
                    suggestions=("`wan22 db check` lists the copies that can be restored.",),
                )
            with storage_errors():
                shutil.copyfile(copy, part)
                leave_out_numbers(part)
                _sync(part)
        fault_point("restore.copied")
        aside = _set_aside(target, moment)
        fault_point("restore.set_aside")
        if copy is not None:
            part.replace(target)
            sync_folder(target.parent)
    except OSError as error:
        raise named(error, f"The folder of {target.name}") from error
    finally:
        part.unlink(missing_ok=True)
    fault_point("restore.in_place")
    return aside


def leave_out_numbers(file: Path) -> None:
    """Let the next events of a database have numbers that no lost event had: clients ask for what came after one.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with closing(sqlite3.connect(file)) as connection, connection:
            raised = connection.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'events'", (LEFT_OUT,))
            if raised.rowcount == 0:
                connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('events', ?)", (LEFT_OUT,))
    except sqlite3.OperationalError as error:
        raise OSError(errno.EIO, str(error)) from error


def _set_aside(target: Path, moment: datetime) -> Path | None:
    """Rename the database and its companions, the database first: its log must never meet another database."""
    name = f"{target.name}.set-aside-{moment.astimezone(UTC):{_TIME}}Z"
    aside, number = target.with_name(name), 1
    while aside.exists():
        number += 1
        aside = target.with_name(f"{name}-{number}")
    there = target.exists()
    if there:
        target.rename(aside)
    for suffix in _COMPANIONS:
        companion = target.with_name(target.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    sync_folder(target.parent)
    return aside if there else None


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
