"""Copies of the database: complete or absent, whenever the process dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backend.core.errors.surroundings import DatabaseDamaged, StorageFull, StoreUnavailable
from backend.store.engine import Database
from backend.store.sqlite_file import FileCondition, inspect_file
from backend.store.tasks import TaskStore
from backend.store.upkeep.backups import Backups, make_copy, put_in_place
from tests.store.samples import submit
from tests.store.upkeep.conftest import Owner

POINTS = ("backup.copied", "backup.in_place", "restore.copied", "restore.set_aside", "restore.in_place")


class Calendar:
    """A clock that is a day further at each look."""

    def __init__(self) -> None:
        self.day = datetime(2026, 11, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.day += timedelta(days=1)
        return self.day


def wan22(home: Path, *arguments: str, faults: str = "") -> subprocess.CompletedProcess[str]:
    env = os.environ | {"WAN22_HOME": str(home), "COLUMNS": "200"} | ({"WAN22_FAULTS": faults} if faults else {})
    command = [sys.executable, "-m", "backend.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=200)


def test_the_newest_copies_are_kept(owner: Owner) -> None:
    owner.open()
    backups = Backups(owner.home.backups, Calendar())
    made = [backups.make(owner.database) for _ in range(5)]
    assert [one.path for one in backups.list()] == [one.path for one in reversed(made)]
    assert backups.prune(2) == 3
    assert [one.path for one in backups.list()] == [made[4].path, made[3].path]
    assert backups.prune(2) == 0


def test_a_copy_is_of_one_moment_while_others_write(owner: Owner) -> None:
    owner.open()
    owner.work(20)
    stop, counts = threading.Event(), []

    def write() -> None:
        while not stop.is_set():
            submit(owner.tasks)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(3):
            path = owner.home.root / f"copy-{number}.db"
            make_copy(owner.database, path)
            assert inspect_file(path, seconds=None, thorough=True).condition is FileCondition.INTACT
            copy = Database(path)
            counts.append(len(TaskStore(copy).list()))
            copy.close()
    finally:
        stop.set()
        thread.join()
    assert 20 <= counts[0] <= counts[1] <= counts[2] <= len(owner.ids())


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_during_backup_or_restore_loses_nothing(owner: Owner, point: str) -> None:
    owner.open()
    kept = owner.work(20)
    first = Backups(owner.home.backups, lambda: datetime(2026, 1, 1, tzinfo=UTC)).make(owner.database)
    owner.database.checkpoint()
    owner.close()
    arguments = ("db", "backup") if point.startswith("backup") else ("db", "restore", "--yes")
    killed = wan22(owner.home.root, *arguments, faults=f"{point}=kill")
    assert killed.returncode == -9, killed.stderr
    copies = Backups(owner.home.backups).list()
    assert first.path in [one.path for one in copies]
    assert {inspect_file(one.path).condition for one in copies} == {FileCondition.INTACT}
    owner.video()
    owner.open()
    assert owner.ids() == kept
    assert inspect_file(owner.home.database, seconds=None, thorough=True).condition is FileCondition.INTACT


def test_a_log_of_the_old_database_never_meets_the_restored_one(owner: Owner) -> None:
    owner.open()
    kept = owner.work(10)
    copy = Backups(owner.home.backups).make(owner.database)
    owner.work(10)
    log = owner.home.database.with_name("wan22.db-wal")
    newest = log.read_bytes()
    assert newest
    content = owner.home.database.read_bytes()
    owner.close()
    owner.home.database.write_bytes(content)
    log.write_bytes(newest)  # as a kill leaves it
    aside = put_in_place(copy.path, owner.home.database, datetime.now(UTC))
    assert aside is not None
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == newest
    assert owner.open() is None
    assert owner.ids() == kept
    old = Database(aside)
    assert len(TaskStore(old).list()) == 20, "nothing of the old database is lost"
    old.close()


def test_what_is_no_database_is_not_restored(owner: Owner) -> None:
    owner.open()
    kept = owner.work(4)
    text = owner.home.root / "notes.db"
    text.write_text("not a database at all")
    for path in (text, owner.home.root / "absent.db"):
        with pytest.raises(DatabaseDamaged, match="no intact database of wan22"):
            put_in_place(path, owner.home.database, datetime.now(UTC))
    assert owner.open() is None
    assert owner.ids() == kept


def test_a_full_disk_leaves_no_half_copy(owner: Owner, tmp_path: Path) -> None:
    owner.open()
    owner.work(200)
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        with pytest.raises(StorageFull):
            make_copy(owner.database, disk / "copy.db")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_folder_that_cannot_be_made_is_named(owner: Owner) -> None:
    owner.open()
    owner.home.backups.write_text("a file in its place")
    with pytest.raises(StoreUnavailable, match="folder of the backups cannot be written"):
        Backups(owner.home.backups).make(owner.database)
