"""Connections, errors and migrations: what is refused, reported and left untouched."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import IntegrityError

from backend.core.domain import TRANSITIONS, EventType, TaskStatus
from backend.core.errors.surroundings import BadSettings, StorageFull, StoreUnavailable
from backend.store import engine
from backend.store.download_orders import OrderState, Urgency
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.schema import MIGRATIONS, newest_revision
from backend.store.tables import metadata
from backend.store.tasks import TaskStore
from backend.store.transition import apply
from backend.store.workers import WorkerState, WorkerStore
from tests.store.samples import claimed, submit
from tests.support.postgres import PostgresServer

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20


@pytest.fixture
def sqlite_path(tmp_path: Path) -> Path:
    return tmp_path / "wan22.db"


@pytest.fixture
def sqlite(sqlite_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{sqlite_path}")
    yield database
    database.close()


@pytest.mark.parametrize(
    "name",
    ["50%20off", "what?now", "a#b;c&d", "a:b@c", 'it\'s "here"', "Grüße 🎬", "file:x", "two\nlines", "%", "?x=1"],
)
def test_a_path_is_not_a_url(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    database = Database(folder / "wan22.db")
    database.migrate()
    database.checkpoint()
    assert {path.name for path in folder.iterdir()} >= {"wan22.db"}
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_migrating_gives_exactly_the_tables_of_the_code(database: Database) -> None:
    with database.read() as connection:
        # The index of words is not one that SQLAlchemy could describe; searches show that it is there.
        options = {"compare_type": True, "compare_server_default": True, "include_object": _is_described}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []


def _is_described(_object: object, name: str | None, _kind: str, _reflected: bool, _other: object) -> bool:
    return not (name or "").startswith("gallery_search")


def test_migrating_twice_changes_nothing(database: Database, store: TaskStore) -> None:
    task = submit(store)
    database.migrate()
    assert store.get(task.id) == task


def test_the_check_constraints_match_the_domain(database: Database) -> None:
    with database.read() as connection:
        constraints = {
            check["name"]: check["sqltext"]
            for table in ("tasks", "workers", "download_orders")
            for check in inspect(connection).get_check_constraints(table)
        }
    for name, words in (
        ("tasks_status", TaskStatus),
        ("workers_state", WorkerState),
        ("download_orders_state", OrderState),
        ("download_orders_urgency", Urgency),
    ):
        assert set(constraints[name].split("'")[1::2]) == {str(word) for word in words}


@pytest.mark.parametrize("origin", list(TaskStatus))
@pytest.mark.parametrize("target", list(TaskStatus))
def test_only_the_transition_table_moves_tasks(migrated: Database, origin: TaskStatus, target: TaskStatus) -> None:
    if origin is target or (origin, target) in TRANSITIONS:
        return
    store = TaskStore(migrated)
    task = submit(store)
    with pytest.raises(ValueError, match="transition table"), migrated.begin() as connection:
        apply(connection, task.id, (origin,), target, EventType.STARTED)


def test_a_state_outside_the_table_is_refused_by_the_database(database: Database, store: TaskStore) -> None:
    submit(store)
    for change in ("status = 'lost'", "status = 'processing'", "progress = 2", "attempt = -1", "strikes = 9"):
        with pytest.raises(IntegrityError), database.begin() as connection:
            connection.execute(text(f"UPDATE tasks SET {change}"))


def test_a_database_of_a_newer_version_is_refused(database: Database) -> None:
    with database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match=rf"newer wan22.*9999.*{newest_revision()}"):
        database.migrate()


def test_a_database_of_an_older_version_is_brought_up_to_date_with_its_tasks(
    sqlite: Database, sqlite_path: Path
) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with sqlite.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    with sqlite.begin() as connection:
        columns = [column["name"] for column in inspect(connection).get_columns("workers")]
        assert "model" not in columns
        connection.execute(
            text(
                "INSERT INTO workers (id, host, pid, process_started_at, device, state, started_at, seen_at)"
                " VALUES ('old', 'here', 1, 0, 'cpu', 'idle', 0, 0)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO tasks (id, status, model, request, adjustments, priority, attempt, max_attempts,"
                " fingerprint, created_at, last_event) "
                "VALUES ('old', 'pending', 'tiny', json_object('seed', 7), '[]', 0, 1, 1, '', 0, 1)"
            )
        )
        connection.execute(
            text("INSERT INTO events (task_id, number, type, data, created_at) VALUES ('old', 1, 'submitted', '{}', 0)")
        )
    sqlite.migrate()
    (worker,) = WorkerStore(sqlite).list()
    assert (worker.id, worker.model) == ("old", None)
    assert [event.type for event in EventLog(sqlite).of_task("old")] == [EventType.SUBMITTED]
    task, _ = claimed(TaskStore(sqlite))
    assert (task.id, task.attempt) == ("old", 2), "the number of attempts is no longer limited, strikes are"
    with sqlite.read() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar_one() == "ok"


@pytest.mark.parametrize("content", [PNG, b"not a database at all\n" * 100], ids=["png", "text"])
def test_a_file_that_is_not_a_database_is_refused_and_kept(sqlite_path: Path, sqlite: Database, content: bytes) -> None:
    sqlite_path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match="left as it is"):
        sqlite.migrate()
    assert sqlite_path.read_bytes() == content


def test_a_cursor_that_was_read_in_part_leaves_no_old_snapshot_in_the_pool(migrated: Database) -> None:
    """SQLite's rollback spares it: its connection would count the old rows, and could not write."""
    store = TaskStore(migrated)
    for _ in range(50):
        store.request_cancel(submit(store).id)
    kept = []  # as a traceback keeps the frames of what failed

    def fail_half_way(block: Callable[[], AbstractContextManager[Connection]]) -> None:
        with block() as connection:
            kept.append(connection.execute(text("SELECT id FROM tasks")))
            kept[-1].fetchone()
            raise ZeroDivisionError

    for block in (migrated.read, migrated.begin):
        with pytest.raises(ZeroDivisionError):
            fail_half_way(block)
    other = sqlite3.connect(migrated.file or "")
    other.execute("UPDATE tasks SET deleted_at = 1 WHERE number > 11")
    other.commit()
    other.close()
    assert len(store.list()) == 11
    assert submit(store).status is TaskStatus.PENDING
    assert sum(store.counts().values()) == 12


def test_a_file_that_was_taken_away_is_missed_until_it_is_back(migrated: Database, sqlite_path: Path) -> None:
    store = TaskStore(migrated)
    task = submit(store)
    aside = sqlite_path.with_name("elsewhere.db")
    sqlite_path.rename(aside)
    for use in (lambda: submit(store), store.list):
        with pytest.raises(StoreUnavailable, match=r"wan22\.db was moved or deleted"):
            use()
    assert not sqlite_path.exists(), "nobody made an empty one"
    aside.rename(sqlite_path)
    assert store.get(task.id) == task


def test_another_file_in_the_place_of_the_database_is_not_used(migrated: Database, sqlite_path: Path) -> None:
    submit(TaskStore(migrated))
    content = sqlite_path.read_bytes()
    sqlite_path.rename(sqlite_path.with_name("elsewhere.db"))
    sqlite_path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"wan22\.db was replaced"):
        TaskStore(migrated).list()


def test_a_commit_into_a_file_that_is_gone_is_not_acknowledged(migrated: Database, sqlite_path: Path) -> None:
    store = TaskStore(migrated)
    task = submit(store)

    def lose() -> None:
        with migrated.begin() as connection:
            connection.execute(text("UPDATE tasks SET message = 'lost'"))
            sqlite_path.rename(sqlite_path.with_name("elsewhere.db"))

    with pytest.raises(StoreUnavailable, match="moved or deleted"):
        lose()
    sqlite_path.with_name("elsewhere.db").rename(sqlite_path)
    assert store.get(task.id) == task


def test_a_worker_makes_no_database_and_changes_no_schema(sqlite_path: Path, sqlite: Database) -> None:
    worker = Database(sqlite_path, checkpointer=False, creates=False)
    with pytest.raises(StoreUnavailable, match="does not exist"):
        worker.migrate()
    assert not sqlite_path.exists()
    sqlite_path.touch()
    with pytest.raises(StoreUnavailable, match="no schema yet"):
        worker.migrate()
    sqlite.migrate()
    worker.migrate()
    with sqlite.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(StoreUnavailable, match="older wan22"):
        worker.migrate()
    worker.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte; mounting it takes an administrator."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("leave", [0, 40_000], ids=["nothing left", "room for the file, not for its log"])
def test_a_disk_that_is_full_at_the_start_is_named(small_disk: Path, leave: int) -> None:
    database = Database(small_disk / "wan22.db")
    _fill(small_disk, leave)
    with pytest.raises(StorageFull, match=r"disk of the database is full \(wan22\.db\)"):
        database.migrate()
    database.close()


def test_a_read_only_disk_is_named_and_everything_works_once_it_is_writable(small_disk: Path) -> None:
    database = Database(small_disk / "wan22.db")
    database.migrate()
    store = TaskStore(database)
    task = submit(store)
    database.close()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreUnavailable, match=r"wan22\.db cannot be written: its disk or folder is read-only"):
        submit(store)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    assert store.get(task.id) == task
    assert submit(store).status is TaskStatus.PENDING
    database.close()


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    database = Database(tmp_path / "gone" / "wan22.db")
    with pytest.raises(StoreUnavailable, match="its folder is missing"):
        database.migrate()


def _fill(disk: Path, leave: int) -> None:
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    size = (disk / "ballast").stat().st_size
    os.truncate(disk / "ballast", size - leave)


def test_postgresql_gives_up_on_a_statement_and_on_a_network_that_is_gone(new_postgres: Callable[[], str]) -> None:
    database = Database(new_postgres())
    with database.read() as connection:
        limits = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        }
        options = connection.connection.dbapi_connection.info.get_parameters()  # type: ignore[union-attr]
    assert limits == {
        "statement_timeout": "30s",
        "lock_timeout": "10s",
        "idle_in_transaction_session_timeout": "30s",
    }
    assert {"keepalives": "1", "keepalives_idle": "10", "tcp_user_timeout": "25000"}.items() <= options.items()
    database.close()


def test_a_database_of_another_program_is_refused_and_kept(sqlite_path: Path, sqlite: Database) -> None:
    with sqlite3.connect(sqlite_path) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.close()
    with pytest.raises(StoreUnavailable, match="another program"):
        sqlite.migrate()
    with sqlite3.connect(sqlite_path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("bookmarks",)]
    connection.close()


def test_a_start_killed_before_its_first_commit_is_repeated(sqlite_path: Path, sqlite: Database) -> None:
    sqlite_path.touch()
    sqlite.migrate()
    assert TaskStore(sqlite).list() == []


def test_sqlite_is_opened_durably(sqlite: Database) -> None:
    with sqlite.read() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint")
        ]
    assert found == ["wal", 2, 1, 0]


def test_13_a_database_locked_by_another_process_costs_a_wait_and_no_attempt(
    migrated: Database, sqlite_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.1)
    impatient = Database(f"sqlite:///{sqlite_path}")
    store = TaskStore(impatient)
    task = submit(store)
    _, token = claimed(store)
    program = (
        "import sqlite3, sys\n"
        "held = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "held.execute('BEGIN IMMEDIATE')\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(sqlite_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(StoreUnavailable) as refused:
            submit(store)
        assert refused.value.status == 503
        with pytest.raises(StoreUnavailable):
            store.heartbeat(task.id, token, 30.0)
        assert [one.id for one in store.list()] == [task.id]  # readers do not wait
        other.communicate(timeout=60)
    assert store.heartbeat(task.id, token, 30.0) is None, "the lease is still this worker's"
    assert submit(store).status is TaskStatus.PENDING
    assert store.get(task.id).attempt == 1
    impatient.close()


def test_a_writer_holds_the_lock_from_the_start(
    migrated: Database, sqlite_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise two writers could read the same state, and the slower one would fail when it starts to write."""
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0)
    impatient = Database(f"sqlite:///{sqlite_path}")
    with migrated.begin(), pytest.raises(StoreUnavailable), impatient.begin():
        pass
    impatient.close()


def test_a_waiting_postgresql_writer_gives_up_too(
    new_postgres: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 1)
    url = new_postgres()
    holder, waiter = Database(url), Database(url)
    holder.migrate()
    with holder.begin(), pytest.raises(StoreUnavailable):
        submit(TaskStore(waiter))
    assert submit(TaskStore(waiter)).status is TaskStatus.PENDING
    holder.close()
    waiter.close()


def test_threads_of_one_process_wait_for_their_turn_but_not_forever(
    migrated: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.05)
    failed: list[StoreUnavailable] = []

    def write() -> None:
        try:
            submit(TaskStore(migrated))
        except StoreUnavailable as error:
            failed.append(error)

    with migrated.begin():
        thread = threading.Thread(target=write)
        thread.start()
        thread.join(60)
    assert len(failed) == 1
    assert TaskStore(migrated).list() == []


def test_an_unreachable_server_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"postgresql://wan22@/wan22?host={tmp_path}")
    with pytest.raises(StoreUnavailable):
        TaskStore(database).list()
    database.close()


def test_a_lost_postgresql_connection_is_replaced(postgres: PostgresServer) -> None:
    database = Database(postgres.new_database())
    database.migrate()
    store = TaskStore(database)
    task = submit(store)
    with psycopg.connect(postgres.uri, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'wan22_%'")
    assert store.get(task.id) == task
    database.close()


@pytest.mark.parametrize("opened", [Database.begin, Database.read])
def test_a_postgresql_connection_that_is_lost_in_a_transaction_is_said_to_be(
    postgres: PostgresServer, opened: Callable[[Database], AbstractContextManager[Connection]]
) -> None:
    database = Database(postgres.new_database())
    database.migrate()
    store = TaskStore(database)
    task = submit(store)

    def lose() -> None:
        with opened(database) as connection:
            (own,) = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
            with psycopg.connect(postgres.uri, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 30000)", (own,))
            connection.exec_driver_sql("SELECT 1")

    with pytest.raises(StoreUnavailable):
        lose()
    assert store.get(task.id) == task
    database.close()


def test_a_full_disk_is_reported_and_nothing_is_half_written(migrated: Database) -> None:
    store = TaskStore(migrated)
    task = submit(store)
    with migrated.read() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    wide = submit(store)
    claimed(store)

    def grow() -> None:
        with migrated.begin() as connection:
            # SQLite's own limit on pages answers exactly as a full disk does (SQLITE_FULL).
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            data = {"x": "y" * 50_000}
            apply(connection, wide.id, (TaskStatus.PENDING,), TaskStatus.CANCELLED, EventType.CANCELLED, lambda _: data)

    with pytest.raises(StorageFull):
        grow()
    assert store.get(wide.id).status is TaskStatus.PENDING
    assert store.get(task.id).status is TaskStatus.PROCESSING


def test_a_disk_too_full_to_checkpoint_fails_neither_committed_writes_nor_reads(
    migrated: Database, sqlite_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def disk_full(_database: Database) -> None:
        attempts.append(1)
        raise StorageFull

    monkeypatch.setattr(engine, "CHECKPOINT_BYTES", 0)
    monkeypatch.setattr(Database, "checkpoint", disk_full)
    task = submit(TaskStore(migrated))
    assert TaskStore(migrated).get(task.id) == task
    assert len(attempts) == 2, "a checkpoint was due after the write and after the read"
    other = Database(f"sqlite:///{sqlite_path}", checkpointer=False)
    assert TaskStore(other).get(task.id) == task
    other.close()


def test_only_the_checkpointer_checkpoints_the_log(
    sqlite_path: Path, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = sqlite_path.with_name("wan22.db-wal")
    monkeypatch.setattr(engine, "CHECKPOINT_BYTES", 100_000)
    worker = Database(f"sqlite:///{sqlite_path}", checkpointer=False)
    worker.migrate()
    store = TaskStore(worker)
    while log.stat().st_size < 300_000:
        submit(store)
    assert len(TaskStore(sqlite).list()) == len(store.list())  # the reading web process is the checkpointer
    assert log.stat().st_size == 0
    worker.close()


@pytest.mark.parametrize(
    "url", ["mysql://root@localhost/x", "sqlite://", "sqlite:///:memory:", "not a url with secret-password"]
)
def test_an_invalid_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(BadSettings) as refused:
        Database(url)
    assert "secret" not in refused.value.message


@pytest.fixture
def migrated(sqlite: Database) -> Database:
    sqlite.migrate()
    return sqlite


def test_the_newest_file_name_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert newest_revision() == ScriptDirectory.from_config(config).get_current_head()
