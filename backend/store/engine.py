"""Connections to the database: SQLite by default, PostgreSQL when one machine is not enough.

Owns transactions, pragmas, the translation of driver errors, checkpoints and migrations. Both databases
have one writer at a time, so the queue does not change inside `begin()`. Knows nothing about tasks.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Row, Select, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from backend.core.errors.base import WanError
from backend.core.errors.surroundings import BadSettings, DatabaseDamaged, StorageFull, StoreFailed, StoreUnavailable
from backend.store.rows import from_json
from backend.store.schema import newest_revision, upgrade
from backend.store.sqlite_file import SameFile, explain

#: How long a connection waits for the current writer, in seconds. Well under the lease of a task.
BUSY_SECONDS: Final = 10
#: Size of the write-ahead log, in bytes, above which it is checkpointed into the database file.
CHECKPOINT_BYTES: Final = 4 * 1024 * 1024
#: Rows that are read, or deleted, at once where a whole table is gone through.
PAGE_ROWS: Final = 500
#: Advisory lock that serialises PostgreSQL's writers as SQLite's are; any fixed number will do.
WRITER_LOCK: Final = 0x77616E32
#: What PostgreSQL itself gives up after; {0} is `BUSY_SECONDS`.
_LIMITS: Final = "-c lock_timeout={0}s -c statement_timeout=30s -c idle_in_transaction_session_timeout=30s"
#: How a connection notices that the network, or the machine of the server, is gone: in half a minute.
_KEEPALIVE: Final = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}
_GIVES_PAGES_BACK: Final = "PRAGMA auto_vacuum = INCREMENTAL"
_SEARCH_COMMAND: Final = "INSERT INTO gallery_search (gallery_search) VALUES (?)"
_CURSORS: Final = "cursors"  # key of a connection's notes: what was executed since it left the pool


class Database:
    """One database and its connection pool; thread-safe."""

    def __init__(self, place: str | Path, *, checkpointer: bool = True, creates: bool = True) -> None:
        """Open lazily: nothing is read or written before the first transaction.

        `place` is a URL of SQLAlchemy's form, or the path of an SQLite file, in which every character is itself.

        Of all processes that share one SQLite file, only one may set `checkpointer`: SQLite before 3.51.3
        can damage the file when one connection writes while another resets the log (the "WAL-reset bug").
        So no connection checkpoints automatically, and the one process that does locks writers out.

        With `creates` off, a database that does not exist, or has another schema, is unavailable: workers wait for the
        server, which alone knows whether it is new or lost.

        Raises:
            BadSettings: the URL is invalid, or its driver is not installed.
        """
        self._url = URL.create("sqlite", database=str(place)) if isinstance(place, Path) else _parse(place)
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._checkpointer = checkpointer and self._sqlite
        self._creates = creates
        #: The SQLite file; None for PostgreSQL.
        self.file = Path(self._url.database or "") if self._sqlite else None
        self._same = None if self.file is None else SameFile(self.file, creates=creates)
        self._checkpointing = threading.Lock()
        self._writing = threading.Lock()
        try:
            if self._sqlite:
                self._engine = create_engine(
                    self._url, connect_args={"timeout": BUSY_SECONDS}, json_deserializer=from_json
                )
                event.listen(self._engine, "connect", self._on_connect)
                event.listen(self._engine, "after_cursor_execute", _remember)
            else:
                arguments = {"options": _LIMITS.format(BUSY_SECONDS), "connect_timeout": BUSY_SECONDS} | _KEEPALIVE
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
        with self._turn(), self._translated(), self._engine.begin() as connection, _closing_cursors(connection):
            # BEGIN IMMEDIATE, because a transaction that upgrades from reading to writing fails at once when
            # another has written in between, regardless of the busy timeout.
            first = "BEGIN IMMEDIATE" if self._sqlite else f"SELECT pg_advisory_xact_lock({WRITER_LOCK})"
            connection.exec_driver_sql(first)
            yield connection
            self._check_file()  # a commit into a file that nobody sees any more must not be acknowledged
        self._checkpoint_if_due()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read transaction; it never waits for writers.

        Raises:
            StoreUnavailable: the database is broken or unreachable.
        """
        with self._translated(), self._engine.connect() as connection, _closing_cursors(connection):
            if self._sqlite:
                connection.exec_driver_sql("BEGIN")
            yield connection
        self._checkpoint_if_due()

    def pages(self, query: Select[Any]) -> Iterator[Sequence[Row[Any]]]:
        """Yield the rows of a query a page at a time, in the order of its first column, which must be unique.

        Each page is a read transaction of its own, so that neither memory nor the log grows with the table. What is
        written meanwhile may be seen or not.

        Raises:
            StoreUnavailable: the database is broken or unreachable.
        """
        key, last = query.selected_columns[0], None
        while True:
            found = query if last is None else query.where(key > last)
            with self.read() as connection:
                rows = connection.execute(found.order_by(key).limit(PAGE_ROWS)).all()
            if not rows:
                return
            yield rows
            last = rows[-1][0]

    def migrate(self) -> None:
        """Bring the schema up to date, in one transaction. Cheap when it already is.

        Raises:
            StoreUnavailable: the file is not a wan22 database, a newer wan22 wrote it, or this process may not create
                or change it.
        """
        found = self.revision()
        if found == newest_revision():
            return  # the usual start; importing Alembic takes a fifth of a second
        if not self._creates and (found is None or found < newest_revision()):
            raise StoreUnavailable(
                "The database has no schema yet" if found is None else "The database has the schema of an older wan22",
                suggestions=("Start `wan22 serve` of this version: it brings the database up to date.",),
            )
        with self.begin() as connection:
            if not self._sqlite:
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            upgrade(connection, self._url)

    def revision(self) -> str | None:
        """Return the revision of the schema; None without one.

        Raises:
            StoreUnavailable, DatabaseDamaged: it cannot be read.
        """
        with self.read() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
            return revision

    def is_away(self) -> bool:
        """Whether no connection can be opened now, as opposed to a database that answers and is not usable."""
        try:
            self.revision()
        except StoreUnavailable:
            return True
        return False

    def checkpoint(self) -> None:
        """Fold SQLite's write-ahead log into the database file and empty it. Does nothing while the file is busy."""
        # TRUNCATE holds the writer lock throughout, so nobody writes meanwhile.
        if self._sqlite:
            self._outside_transactions("PRAGMA wal_checkpoint(TRUNCATE)")

    def copy_to(self, path: Path) -> None:
        """Write a consistent, compact copy of an SQLite database to a new file, while others read and write.

        The copy is not synced to disk.

        Raises:
            StorageFull, StoreUnavailable: it could not be written, or the database cannot be read.
        """
        self._outside_transactions("VACUUM INTO ?", (str(path),))

    def compact(self) -> None:
        """Rewrite an SQLite database without its free pages, so that it gives pages back to the disk from then on.

        Raises:
            StorageFull, StoreUnavailable: there is no room for a second copy, or somebody else uses the database.
        """
        with self._translated(), self._engine.connect() as connection, _closing_cursors(connection):
            connection.exec_driver_sql(_GIVES_PAGES_BACK)
            connection.exec_driver_sql("VACUUM")

    def rebuild_indexes(self) -> None:
        """Make the indexes of an SQLite database anew from its tables, that of the words of prompts included.

        Raises:
            DatabaseDamaged: two rows have one key.
            StorageFull, StoreUnavailable: it could not be written.
        """
        with self._turn():
            try:
                self._outside_transactions("REINDEX")
                self._outside_transactions(_SEARCH_COMMAND, ("rebuild",))
            except IntegrityError as error:
                raise DatabaseDamaged("The indexes of the database cannot be rebuilt: rows share one key") from error

    def repair_search(self) -> bool:
        """Rebuild the index of the words of prompts of an SQLite database if it is damaged; return whether it was.

        SQLite looks after it only when it is asked to: to its other checks, the index is a table like any other.

        Raises:
            DatabaseDamaged: more than the index is damaged.
            StorageFull, StoreUnavailable: it could not be written.
        """
        with self._turn():
            try:
                self._outside_transactions(_SEARCH_COMMAND, ("integrity-check",))
            except DatabaseDamaged:
                self._outside_transactions(_SEARCH_COMMAND, ("rebuild",))
                return True
        return False

    def _outside_transactions(self, statement: str, parameters: tuple[str, ...] = ()) -> None:
        # A checkpoint answers with a row that nobody reads, and beside an unfinished statement SQLite cannot vacuum.
        with self._translated(), self._engine.connect() as connection, _closing_cursors(connection):
            connection.exec_driver_sql(statement, parameters)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _on_connect(self, connection: sqlite3.Connection, _record: Any) -> None:
        _prepare_sqlite(connection)
        if self._same is not None:
            self._same.note()

    def _check_file(self) -> None:
        if self._same is not None:
            self._same.check()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate driver errors about a lost or full database into ours; programming errors pass through."""
        self._check_file()
        try:
            yield
        except PoolTimeout as error:
            raise StoreUnavailable from error
        except UnicodeDecodeError as error:  # from the driver: SQLite's message quotes what is damaged
            raise DatabaseDamaged("The database is damaged: a message of SQLite is not text") from error
        except DBAPIError as error:
            translated = self._translate(error)
            if translated is None:
                raise
            raise translated from error

    def _translate(self, error: DBAPIError) -> WanError | None:
        if getattr(error.orig, "sqlstate", None) == "53100":
            return StorageFull("The disk of the database is full")
        if (about_storage := explain(error.orig, self.file)) is not None:
            return about_storage
        gone = isinstance(error, OperationalError | InternalError) or error.connection_invalidated
        # Wrong SQL or a missing table must surface.
        programming = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_ERROR
        return StoreUnavailable() if gone and not programming else None

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


def _prepare_sqlite(connection: sqlite3.Connection) -> None:
    connection.isolation_level = None  # the driver must not open transactions itself
    connection.text_factory = _text
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if not pages:  # a new database; on an existing one, this would need the writer's lock and change nothing
        connection.execute(_GIVES_PAGES_BACK).close()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        f"busy_timeout={BUSY_SECONDS * 1000}",
        "foreign_keys=ON",
        "wal_autocheckpoint=0",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _text(raw: bytes) -> str:
    """Decode a text, damaged or not: the driver's own way would fail whole lists for one wrong byte."""
    return raw.decode("utf-8", "replace")


def _remember(
    connection: Connection, cursor: sqlite3.Cursor, _statement: str, _parameters: Any, _context: Any, _many: bool
) -> None:
    connection.info.setdefault(_CURSORS, []).append(cursor)


@contextmanager
def _closing_cursors(connection: Connection) -> Iterator[None]:
    """Close what the block executed: a cursor that was read in part would keep its snapshot alive in the pool.

    SQLite's rollback spares running statements, and so the next user of the connection would see the old data, and
    could not write.
    """
    try:
        yield
    finally:
        # A connection that was lost has nothing left to close, and asking it would hide why it was lost.
        for cursor in () if connection.invalidated else connection.info.pop(_CURSORS, ()):
            cursor.close()
