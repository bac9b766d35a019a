"""SQLite's file on disk: whether it is intact, whether it is still the same file, and why it cannot be used.

Looks and judges; never changes the file and never creates one.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from backend.core.errors.base import WanError
from backend.core.errors.surroundings import DatabaseDamaged, StorageFull, StoreUnavailable

#: The longest time that the check at a start may take, in seconds; what it has not read by then counts as intact.
CHECK_SECONDS: Final = 10.0
#: Less free space than this is a full disk, in bytes: the log's index alone takes 32 KiB.
_MIN_FREE_BYTES: Final = 256 * 1024
_MAGIC: Final = b"SQLite format 3\x00"
#: Virtual machine steps between two looks at the clock.
_STEPS: Final = 20_000
_DAMAGED: Final = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT})


class FileCondition(StrEnum):
    """What there is at the path of a database."""

    MISSING = "missing"
    EMPTY = "empty"  # no bytes, or no tables: also what a start leaves that was killed before its first commit
    INTACT = "intact"
    DAMAGED = "damaged"
    FOREIGN = "foreign"  # a database of another program


@dataclass(frozen=True, slots=True)
class Inspection:
    """The result of one look at a file."""

    condition: FileCondition
    revision: str | None = None  #: of its schema
    reason: str = ""  #: what is wrong with a damaged one


def inspect_file(path: Path, *, seconds: float | None = CHECK_SECONDS, thorough: bool = False) -> Inspection:
    """Read a database file, with its log, and judge it.

    Args:
        path: where it should be.
        seconds: how long it may take; None = until all of it is read.
        thorough: also compare the indexes with the tables, and the references between tables.

    Raises:
        StoreFailed: it cannot be read now, which says nothing about the file.
    """
    try:
        if path.stat().st_size == 0:
            return Inspection(FileCondition.EMPTY)
        with path.open("rb") as file:
            start = file.read(len(_MAGIC))
    except (FileNotFoundError, NotADirectoryError):
        return Inspection(FileCondition.MISSING)
    except OSError as error:
        raise StoreUnavailable(f"The database {path.name} cannot be read: {error.strerror}") from error
    if start != _MAGIC:
        return Inspection(FileCondition.DAMAGED, reason="it is not an SQLite database")
    try:
        with closing(open_to_read(path)) as connection:
            return _judge(connection, seconds, thorough)
    except UnicodeDecodeError:  # from the driver: SQLite's message quotes what is damaged
        return Inspection(FileCondition.DAMAGED, reason="its schema is not text")
    except sqlite3.DatabaseError as error:
        if _primary(error) in _DAMAGED:
            return Inspection(FileCondition.DAMAGED, reason=str(error))
        raise (explain(error, path) or StoreUnavailable()) from error


def indexes_differ(path: Path) -> str | None:
    """Return how the indexes of a file differ from its tables, None when they agree; the tables must be intact.

    A query that uses such an index finds too few rows: a waiting task, for one, would never run.

    Raises:
        StoreUnavailable: the file cannot be read.
    """
    try:
        with closing(open_to_read(path)) as connection:
            found = [str(line) for (line,) in connection.execute("PRAGMA integrity_check")]
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise StoreUnavailable("Not every row of the database could be read") from error
    return next((_shown(line) for line in found if "index" in line), None)


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open a file without ever changing it; bytes that are no UTF-8 become lone surrogates instead of an error."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    return connection


def _judge(connection: sqlite3.Connection, seconds: float | None, thorough: bool) -> Inspection:
    if seconds is not None:
        deadline = time.monotonic() + seconds
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    try:
        (found,) = connection.execute(f"PRAGMA {'integrity_check' if thorough else 'quick_check'}(1)").fetchone()
    except sqlite3.OperationalError as error:
        if _primary(error) != sqlite3.SQLITE_INTERRUPT:
            raise
        found = "ok"  # as far as it was read
    connection.set_progress_handler(None, 0)
    if found != "ok":
        return Inspection(FileCondition.DAMAGED, reason=_shown(found))
    if thorough and (orphan := connection.execute("PRAGMA foreign_key_check").fetchone()):
        return Inspection(FileCondition.DAMAGED, reason=f"a row of {orphan[0]} refers to a missing row of {orphan[2]}")
    if not tables:
        return Inspection(FileCondition.EMPTY)
    if "alembic_version" not in tables:
        return Inspection(FileCondition.FOREIGN)
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return Inspection(FileCondition.INTACT, revision=None if row is None else str(row[0]))


def _shown(line: object) -> str:
    """Return a line of SQLite as one that can be written anywhere."""
    return " ".join(str(line).split()).encode("utf-8", "replace").decode()


class SameFile:
    """Notices that the file was taken away, or another one put in its place, while this process uses it."""

    def __init__(self, path: Path, *, creates: bool) -> None:
        self._path = path
        self._creates = creates
        self._identity: tuple[int, int] | None = None

    def note(self) -> None:
        """Remember the file, right after the first connection has opened it."""
        if self._identity is None:
            self._identity = self._look()

    def check(self) -> None:
        """Return when the file is there and is the one that is in use.

        Raises:
            StoreUnavailable: it is not; what is written now would be lost with the file that nobody sees any more.
        """
        found = self._look()
        if found is not None and self._identity in (None, found):
            return
        if self._identity is None:
            if self._creates:
                return
            raise StoreUnavailable(
                f"The database {self._path.name} does not exist", suggestions=("Start `wan22 serve`: it makes it.",)
            )
        what = "was moved or deleted" if found is None else "was replaced by another file"
        back = "Put it back" if found is None else "Put the first one back"
        raise StoreUnavailable(
            f"The database {self._path.name} {what} while it is in use; nothing is written until it is back",
            suggestions=(f"{back}, or restart the server to go on with what is there.",),
        )

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def explain(error: BaseException | None, path: Path | None) -> WanError | None:
    """Return what is wrong with the storage of the database, where an error of SQLite is about that."""
    code = _primary(error)
    name = "The database" if path is None else f"The database {path.name}"
    if code == sqlite3.SQLITE_FULL:
        return _full(path)
    if code in _DAMAGED:
        return DatabaseDamaged(f"{name} is damaged or not a database; it was left as it is")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return _unwritable(name)
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and path is not None:
        return _from_disk(path, name, error)
    return None


def _from_disk(path: Path, name: str, error: BaseException | None) -> WanError:
    """Ask the disk: SQLite says of a full or a read-only one only that a file cannot be opened or written."""
    folder = path.parent
    try:
        disk = os.statvfs(folder)
    except OSError:
        return StoreUnavailable(
            f"{name} cannot be opened: its folder is missing", suggestions=("Check that its disk is mounted.",)
        )
    if disk.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK | os.X_OK):
        return _unwritable(name)
    if disk.f_bavail * disk.f_frsize < _MIN_FREE_BYTES:
        return _full(path)
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        return _unwritable(name)
    detail = getattr(error, "sqlite_errorname", "an input/output error")
    return StoreUnavailable(
        f"{name} cannot be read or written: its disk answers {detail}",
        suggestions=("Look at the system's log for errors of the disk.",),
    )


def _full(path: Path | None) -> StorageFull:
    return StorageFull("The disk of the database is full" + ("" if path is None else f" ({path.name})"))


def _unwritable(name: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{name} cannot be written: its disk or folder is read-only",
        suggestions=("Make it writable again; queued tasks are kept.",),
    )


def named(error: OSError, what: str) -> WanError:
    """Return the error of a system call as one that names the storage: `what` begins the sentence."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(f"{what} is on a disk that is full")
    return StoreUnavailable(
        f"{what} cannot be written: {error.strerror}", suggestions=("Make its disk and folder writable again.",)
    )


def _primary(error: BaseException | None) -> int:
    """Return SQLite's primary error code, 0 for none; the higher bits are details."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
