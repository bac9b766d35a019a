"""What a start finds in the place of the database: it never silently goes on with less than there was."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text

from backend.core.domain import TaskStatus
from backend.core.errors.surroundings import DatabaseDamaged, StoreUnavailable
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.schema import MIGRATIONS, newest_revision
from backend.store.sqlite_file import FileCondition, inspect_file
from backend.store.tasks import TaskStore
from backend.store.upkeep.backups import LEFT_OUT, Backups
from backend.store.upkeep.opening import last_restoration, refuse_lost, replace_database
from backend.store.upkeep.rows_check import unreadable_rows
from tests.store.samples import claimed, output_of, submit
from tests.store.upkeep.conftest import Owner

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20
PAGE = 4096


def damage_last_page(path: Path) -> None:
    pages = bytearray(path.read_bytes())
    pages[-PAGE:] = bytes(range(256)) * 16
    path.write_bytes(pages)


def spoil(path: Path, how: str) -> None:
    """Do one of the things that happen to files."""
    match how:
        case "missing":
            path.unlink()
        case "zero bytes":
            path.write_bytes(b"")
        case "a PNG":
            path.write_bytes(PNG)
        case "a damaged page":
            damage_last_page(path)
        case "cut off":
            path.write_bytes(path.read_bytes()[: 3 * PAGE + 100])
        case "a damaged schema":
            path.write_bytes(path.read_bytes().replace(b"CREATE TABLE events", b"CREATE \xd7\xd7BLE e\xd7ents"))


SPOILT = ("missing", "zero bytes", "a PNG", "a damaged page", "cut off", "a damaged schema")


def test_a_new_home_gets_a_new_database(owner: Owner) -> None:
    assert owner.open() is None
    assert owner.ids() == set()
    assert Backups(owner.home.backups).list() == []
    assert last_restoration(owner.home) is None


@pytest.mark.parametrize("how", SPOILT)
def test_14_a_spoilt_database_is_set_aside_and_the_newest_copy_takes_its_place(owner: Owner, how: str) -> None:
    owner.open()
    kept = owner.work(30)
    backup = Backups(owner.home.backups).make(owner.database)
    owner.work(10)
    owner.database.checkpoint()
    owner.close()
    spoil(owner.home.database, how)
    spoilt = owner.home.database.read_bytes() if owner.home.database.exists() else None

    restored = owner.open()

    assert restored is not None
    assert restored.backup == backup.path.name
    assert last_restoration(owner.home) == restored
    assert restored.is_news
    assert restored.reason in restored.sentence
    assert backup.made_at.strftime("%Y-%m-%dT%H:%M:%S") in restored.sentence
    assert len(owner.ids() - kept) == restored.salvaged
    assert kept <= owner.ids()
    assert inspect_file(owner.home.database, seconds=None).condition is FileCondition.INTACT
    if spoilt is not None:
        assert restored.set_aside in owner.set_aside()
        assert (owner.home.root / str(restored.set_aside)).read_bytes() == spoilt
    assert backup.path.exists(), "the copy is still there"
    assert owner.open() is None, "the next start has nothing to repair"


@pytest.mark.parametrize("with_copy", [True, False])
def test_events_after_a_restoration_have_numbers_that_no_lost_one_had(owner: Owner, with_copy: bool) -> None:
    """Clients come back with the number of an event that is lost: another event under it would pass for known."""
    owner.open()
    owner.work(5)
    copy = Backups(owner.home.backups).make(owner.database).path if with_copy else None
    kept = EventLog(owner.database).after(0)[-1].id
    owner.work(5)
    lost = EventLog(owner.database).after(0)[-1].id
    owner.close()
    replace_database(owner.home.database, owner.home, copy, "a test")
    for _ in range(2):  # the second start changes nothing
        owner.open()
        new = submit(owner.tasks, "a clip after it")
        (event,) = EventLog(owner.database).of_task(new.id)
        assert event.id > lost + 20_000
        assert event.id <= kept + LEFT_OUT + 100
        owner.close()


@pytest.mark.parametrize("how", SPOILT)
def test_14_without_a_copy_a_start_is_refused_and_changes_nothing(owner: Owner, how: str) -> None:
    owner.open()
    owner.work(30)
    owner.video()
    owner.database.checkpoint()
    owner.close()
    spoil(owner.home.database, how)
    before = sorted((path.name, path.stat().st_size) for path in owner.home.root.iterdir() if path.is_file())
    with pytest.raises(DatabaseDamaged, match=r"wan22\.db is .*no intact copy.*nothing was changed") as refused:
        owner.open()
    assert "wan22 db restore --new" in " ".join(refused.value.next_steps)
    owner.close()
    after = sorted((path.name, path.stat().st_size) for path in owner.home.root.iterdir() if path.is_file())
    assert [one for one in after if one[0][-4:] not in ("-wal", "-shm")] == [
        one for one in before if one[0][-4:] not in ("-wal", "-shm")
    ]
    with pytest.raises(DatabaseDamaged):
        refuse_lost(owner.home.database, owner.home)


def test_14_waiting_tasks_that_are_newer_than_the_copy_are_taken_over_from_the_damaged_file(owner: Owner) -> None:
    owner.open()
    kept = owner.work(6)
    Backups(owner.home.backups).make(owner.database)
    newer = [submit(owner.tasks, f"clip {number}", key=f"key {number}") for number in range(40)]
    running, _ = claimed(owner.tasks)
    gone = owner.tasks.request_cancel(newer[3].id)
    with owner.database.begin() as connection:
        connection.execute(text("CREATE TABLE ballast (x)"))
        connection.execute(text("INSERT INTO ballast SELECT randomblob(4000) FROM tasks"))
    owner.database.checkpoint()
    owner.close()
    damage_last_page(owner.home.database)

    restored = owner.open()

    assert restored is not None
    assert restored.salvaged == 39
    assert "39 newer tasks were taken over" in restored.sentence
    assert last_restoration(owner.home) == restored
    assert owner.ids() == (kept | {task.id for task in newer}) - {gone.id}
    waiting = [task for task in owner.tasks.list(TaskStatus.PENDING) if task.id not in kept]
    assert [task.id for task in reversed(waiting)] == [task.id for task in newer if task.id != gone.id]
    for task in waiting:
        before = next(one for one in newer if one.id == task.id)
        assert (task.request, task.priority, task.max_attempts) == (
            before.request,
            before.priority,
            before.max_attempts,
        )
    assert submit(owner.tasks, "clip 7", key="key 7").id == newer[7].id, "a client that repeats itself gets its task"
    assert running.id in kept
    leased, token = claimed(owner.tasks)
    owner.tasks.complete(leased.id, token, output_of(leased.id))
    assert unreadable_rows(owner.home.database) == []


def test_14_damaged_copies_are_passed_over(owner: Owner) -> None:
    owner.open()
    kept = owner.work(30)
    backups = Backups(owner.home.backups)
    good = backups.make(owner.database)
    for number, content in enumerate((b"", PNG)):
        (owner.home.backups / f"wan22-2999010{number + 1}T000000Z.db").write_bytes(content)
    newer = owner.home.backups / "wan22-29990105T000000Z.db"
    newer.write_bytes(good.path.read_bytes())
    damage_last_page(newer)
    owner.close()
    owner.home.database.write_bytes(PNG)
    restored = owner.open()
    assert restored is not None
    assert restored.backup == good.path.name
    assert owner.ids() == kept


@pytest.mark.parametrize("seed", range(12))
def test_14_random_damage_is_found_or_costs_no_row(owner: Owner, seed: int) -> None:
    """Up to three pages of random bytes anywhere; a page that nothing uses may be overwritten unnoticed."""
    owner.open()
    kept = owner.work(60)
    Backups(owner.home.backups).make(owner.database)
    owner.database.checkpoint()
    owner.close()
    dice = random.Random(seed)
    content = bytearray(owner.home.database.read_bytes())
    for _ in range(dice.randint(1, 3)):
        page = dice.randrange(len(content) // PAGE)
        content[page * PAGE : (page + 1) * PAGE] = dice.randbytes(PAGE)
    owner.home.database.write_bytes(content)
    restored = owner.open()
    assert (restored is not None) or owner.home.database.read_bytes()[:16] == b"SQLite format 3\x00"
    assert owner.ids() == kept
    assert unreadable_rows(owner.home.database) == []


def test_a_text_that_was_changed_is_found_by_reading_every_row(owner: Owner) -> None:
    owner.open()
    ids = sorted(owner.work(10))
    with owner.database.begin() as connection:
        connection.execute(text("UPDATE tasks SET request = '{\"prompt\": ' WHERE id = :id"), {"id": ids[3]})
        connection.execute(text("UPDATE tasks SET request = '{}' WHERE id = :id"), {"id": ids[5]})
        no_utf8 = "UPDATE tasks SET request = replace(request, 'slowly', CAST(x'ff' AS TEXT)) WHERE id = :id"
        connection.execute(text(no_utf8), {"id": ids[7]})
    assert inspect_file(owner.home.database, thorough=True).condition is FileCondition.INTACT
    found = unreadable_rows(owner.home.database)
    assert [row.split(":")[0] for row in found] == [f"tasks {ids[number]}" for number in (3, 5, 7)]
    "".join(found).encode()  # can be shown


def test_the_reading_of_rows_has_breaks_and_ends_where_it_is_told(owner: Owner) -> None:
    owner.open()
    owner.work(210)
    breaks = 0

    def third() -> bool:
        nonlocal breaks
        breaks += 1
        return breaks >= 3

    with owner.database.begin() as connection:
        connection.execute(text("UPDATE outputs SET metadata = '{'"))  # in the last table
    assert unreadable_rows(owner.home.database, third) == []
    assert breaks >= 3
    assert unreadable_rows(owner.home.database) != []


def test_a_database_that_was_removed_on_purpose_is_made_anew_only_where_nothing_speaks_of_it(owner: Owner) -> None:
    owner.open()
    owner.work(4)
    owner.close()
    (owner.home.outputs / "holiday.mp4").write_bytes(b"the user's own")
    owner.home.database.unlink()
    assert owner.open() is None
    assert owner.ids() == set()


def test_a_log_without_its_database_is_not_thrown_away(owner: Owner) -> None:
    owner.home.database.with_name("wan22.db-wal").write_bytes(b"x" * 5000)
    with pytest.raises(DatabaseDamaged, match=r"is missing although its log wan22\.db-wal is not"):
        owner.open()
    assert owner.home.database.with_name("wan22.db-wal").stat().st_size == 5000


def test_a_start_that_was_killed_before_its_first_commit_is_repeated(owner: Owner) -> None:
    with closing(sqlite3.connect(owner.home.database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    assert owner.open() is None
    assert owner.ids() == set()


def test_what_was_committed_after_a_kill_is_not_taken_for_damage(owner: Owner) -> None:
    """A killed server leaves its newest tasks in the log alone."""
    owner.open()
    kept = owner.work(20)
    for suffix in ("", "-wal"):
        source = owner.home.database.with_name(f"wan22.db{suffix}")
        source.with_name(f"killed.db{suffix}").write_bytes(source.read_bytes())
    killed = Database(owner.home.root / "killed.db")
    assert inspect_file(owner.home.root / "killed.db").condition is FileCondition.INTACT
    assert {task.id for task in TaskStore(killed).list()} == kept
    killed.close()


def test_15_a_database_of_an_older_version_is_copied_before_it_is_migrated(owner: Owner) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with owner.database.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO workers (id, host, pid, process_started_at, device, state, started_at, seen_at)"
                " VALUES ('old', 'here', 1, 0, 'cpu', 'idle', 0, 0)"
            )
        )
    assert owner.open() is None
    (copy,) = Backups(owner.home.backups).list()
    assert copy.path.name.endswith(f"-before-{newest_revision()}.db")
    assert inspect_file(copy.path).revision == "0001"
    assert inspect_file(owner.home.database).revision == newest_revision()
    with closing(sqlite3.connect(copy.path)) as connection:
        assert connection.execute("SELECT id FROM workers").fetchall() == [("old",)]
    assert owner.open() is None
    assert len(Backups(owner.home.backups).list()) == 1


def test_15_a_database_of_a_newer_version_is_refused_with_both_versions(owner: Owner) -> None:
    owner.open()
    Backups(owner.home.backups).make(owner.database)
    with owner.database.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StoreUnavailable, match=rf"newer wan22.*9999.*{newest_revision()}"):
        owner.open()
    assert owner.set_aside() == []


def test_a_database_of_another_program_is_refused_even_beside_copies(owner: Owner) -> None:
    owner.open()
    Backups(owner.home.backups).make(owner.database)
    owner.close()
    owner.home.database.unlink()
    with closing(sqlite3.connect(owner.home.database)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
    with pytest.raises(StoreUnavailable, match="another program"):
        owner.open()
    assert owner.set_aside() == []


def test_a_database_of_an_older_version_shrinks_from_its_next_start_on(owner: Owner) -> None:
    with closing(sqlite3.connect(owner.home.database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("DROP TABLE alembic_version")
        assert connection.execute("PRAGMA auto_vacuum").fetchone() == (0,)
    owner.open()
    kept = owner.work(4)
    with owner.database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA auto_vacuum").scalar_one() == 2
    assert owner.ids() == kept


def test_an_empty_database_on_request_keeps_the_old_one(owner: Owner) -> None:
    owner.open()
    owner.work(4)
    owner.database.checkpoint()
    owner.close()
    before = owner.home.database.read_bytes()
    restored = replace_database(owner.home.database, owner.home, None, "The user replaced the database")
    assert (owner.home.root / str(restored.set_aside)).read_bytes() == before
    Database(owner.home.database).migrate()
    assert owner.open() is None
    assert owner.ids() == set()
    assert submit(owner.tasks).id in owner.ids()
    assert "an empty database" in restored.sentence
