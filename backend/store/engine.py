"""Connections to the database: SQLite by default, PostgreSQL when one machine is not enough.

Owns transactions, pragmas, the translation of driver errors, checkpoints and migrations. Both databases
have one writer at a time, so the queue does not change inside `begin()`. Knows nothing about tasks.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from backend.core.errors.base import WanError
from backend.core.errors.surroundings import BadSettings, StorageFull, StoreFailed, StoreUnavailable
from backend.store.schema import newest_revision, upgrade

#: How long a connection waits for the current writer, in seconds. Well under the lease of a task.
BUSY_SECONDS: Final = 10
#: Size of the write-ahead log, in bytes, above which it is checkpointed into the database file.
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
#: Advisory lock that serialises PostgreSQL's writers as SQLite's are; any fixed number will do.
WRITER_LOCK: Final = 0x77616E32


class Database:
    """One database and its connection pool; thread-safe."""

    def __init__(self, place: str | Path, *, checkpointer: bool = True) -> None:
        """Open lazily: nothing is read or written before the first transaction.

        `place` is a URL of SQLAlchemy's form, or the path of an SQLite file, in which every character is itself.

        Of all processes that share one SQLite file, only one may set `checkpointer`: SQLite before 3.51.3
        can damage the file when one connection writes while another resets the log (the "WAL-reset bug").
        So no connection checkpoints automatically, and the one process that does locks writers out.

        Raises:
            BadSettings: the URL is invalid, or its driver is not installed.
        """
        self._url = URL.create("sqlite", database=str(place)) if isinstance(place, Path) else _parse(place)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._checkpointer = checkpointer and self._sqlite
        self._checkpointing = threading.Lock()
        self._writing = threading.Lock()
        try:
            if self._sqlite:
                self._engine = create_engine(self._url, connect_args={"timeout": BUSY_SECONDS})
                event.listen(self._engine, "connect", _prepare_sqlite)
            else:
                limits = f"-c lock_timeout={BUSY_SECONDS}s -c idle_in_transaction_session_timeout={3 * BUSY_SECONDS}s"
                arguments = {"options": limits, "connect_timeout": BUSY_SECONDS}
                self._engine = create_engine(self._url, pool_pre_ping=True, connect_args=arguments)
        except ModuleNotFoundError as error:
            raise BadSettings(
                f"The database driver {error.name} is not installed", suggestions=("pip install 'psycopg[binary]'",)
            ) from None

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """Open a write transaction; it is on disk when the block ends, and rolled back when the block raises.

        Raises:
            StoreUnavailable: the database stays locked, or is broken or unreachable.
            StorageFull: the disk is full.
        """
        with self._turn(), _translated(), self._engine.begin() as connection:
            # BEGIN IMMEDIATE, because a transaction that upgrades from reading to writing fails at once when
            # another has written in between, regardless of the busy timeout.
            first = "BEGIN IMMEDIATE" if self._sqlite else f"SELECT pg_advisory_xact_lock({WRITER_LOCK})"
            connection.exec_driver_sql(first)
            yield connection
        self._checkpoint_if_due()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction; it never waits for writers.

        Raises:
            StoreUnavailable: the database is broken or unreachable.
        """
        with _translated(), self._engine.connect() as connection:
            if self._sqlite:
                connection.exec_driver_sql("BEGIN")
            yield connection
        self._checkpoint_if_due()

    def migrate(self) -> None:
        """Bring the schema up to date, in one transaction. Cheap when it already is.

        Raises:
            StoreUnavailable: the file is not a wan22 database, or a newer wan22 wrote it.
        """
        self._refuse_damage()
        if self._revision() == newest_revision():
            return  # the usual start; importing Alembic takes a fifth of a second
        with self.begin() as connection:
            upgrade(connection, self._url)

    def _revision(self) -> str | None:
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            return revision

    def _refuse_damage(self) -> None:
        """Check the whole SQLite file once, so that damage is found at the start and not in the middle of the night."""
        if not self._checkpointer:
            return
        with self.read() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        if found != "ok":
            raise _damaged()

    def checkpoint(self) -> None:
        """Fold SQLite's write-ahead log into the database file and empty it. Does nothing while the file is busy."""
        # TRUNCATE holds the writer lock throughout, so nobody writes meanwhile.
        if self._sqlite:
            with _translated(), self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Let the threads of this process write in turn: SQLite waits by polling, which starves some of them."""
        if not self._writing.acquire(timeout=BUSY_SECONDS):
            raise StoreUnavailable
        try:
            yield
        finally:
            self._writing.release()

    def _checkpoint_if_due(self) -> None:
        if not self._checkpointer:
            return
        log = Path(f"{self._url.database}-wal")
        large = log.exists() and log.stat().st_size > CHECKPOINT_BYTES
        if large and self._checkpointing.acquire(blocking=False):
            try:
                self.checkpoint()
            except StoreFailed:
                return  # the file is busy or the disk is full; the next transaction tries again
            finally:
                self._checkpointing.release()


def _parse(text: str) -> URL:
    try:
        url = make_url(text)
    except ArgumentError:
        # The text itself may hold a password, so it is not repeated.
        raise BadSettings("WAN22_DATABASE_URL: it is not a URL such as postgresql://user@host/database") from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise BadSettings(f"WAN22_DATABASE_URL: {url.get_backend_name()} is not supported, only sqlite and postgresql")
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise BadSettings("WAN22_DATABASE_URL: the queue must be kept in a file, not in memory")
    return url


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not open transactions itself
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={BUSY_SECONDS * 1000}",
        "foreign_keys=ON",
        "wal_autocheckpoint=0",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


@contextmanager
def _translated() -> Iterator[None]:
    """Translate driver errors about a lost or full database into ours; programming errors pass through."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable from error
    except DBAPIError as error:
        translated = _translate(error)
        if translated is None:
            raise
        raise translated from error


def _damaged() -> StoreUnavailable:
    return StoreUnavailable(
        "The database file is damaged or not a database; it was left as it is",
        suggestions=("Move the file wan22.db away, or restore a copy of it, and start again.",),
    )


def _translate(error: DBAPIError) -> WanError | None:
    code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF  # the primary code; the higher bits are details
    state = getattr(error.orig, "sqlstate", None)
    if code == sqlite3.SQLITE_FULL or state == "53100":
        return StorageFull("The disk of the database is full")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return _damaged()
    gone = isinstance(error, OperationalError | InternalError) or error.connection_invalidated
    programming = code == sqlite3.SQLITE_ERROR  # wrong SQL or a missing table must surface
    return StoreUnavailable() if gone and not programming else None
