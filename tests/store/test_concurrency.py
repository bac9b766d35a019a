"""Many writers, and writers that die: no task is lost, none is claimed twice, no event is skipped."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backend.core.domain import TaskStatus
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.tasks import TaskStore
from tests.store.samples import claimed, output_of, submit

pytestmark = pytest.mark.timeout(300)
DEADLINE_SECONDS = 200
_running: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    for process in _running:
        process.kill()
        process.communicate()
    _running.clear()


def run_program(name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"tests.store.programs.{name}", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    _running.append(process)
    return process


def test_four_processes_share_a_hundred_tasks(store: TaskStore, database: Database, database_url: str) -> None:
    ids = {submit(store).id for _ in range(100)}
    workers = [run_program("claim_all", database_url, f"w{number}") for number in range(4)]
    for worker in workers:  # all start claiming together, when the slowest has started
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    done: list[str] = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        done += worker.communicate(timeout=DEADLINE_SECONDS)[0].split()
        assert worker.returncode == 0
    assert len(done) == 100
    assert set(done) == ids
    assert store.counts()[TaskStatus.COMPLETED] == 100
    assert {task.attempt for task in store.list()} == {1}


def test_a_reader_of_the_log_misses_nothing_while_threads_write(store: TaskStore, database: Database) -> None:
    """Ids appear in commit order: a reader that remembers the last id sees every event exactly once."""
    writing = [threading.Thread(target=_lives, args=(store, number)) for number in range(4)]
    log = EventLog(database)
    seen: list[int] = []
    for thread in writing:
        thread.start()
    while any(thread.is_alive() for thread in writing):
        seen += [event.id for event in log.after(seen[-1] if seen else 0, limit=7)]
    while more := log.after(seen[-1] if seen else 0):
        seen += [event.id for event in more]
    everything = log.after(0, limit=10_000)
    assert seen == [event.id for event in everything]
    assert log.after(seen[-1]) == []
    assert len(everything) == 4 * 10 * 3
    for task in store.list():
        events = log.of_task(task.id)
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert [event.created_at for event in events] == sorted(event.created_at for event in events)


def _lives(store: TaskStore, number: int) -> None:
    for _ in range(10):
        submit(store)
        task, token = claimed(store, f"w{number}")
        store.complete(task.id, token, output_of(task.id))


def test_no_acknowledged_task_is_lost_when_its_writer_is_killed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/wan22.db"
    database = Database(url)
    database.migrate()
    chance = random.Random(22)
    acknowledged: set[str] = set()
    for _ in range(5):
        writer = run_program("submit_forever", url)
        assert writer.stdout is not None
        acknowledged |= {writer.stdout.readline().strip() for _ in range(chance.randint(1, 12))}
        writer.send_signal(signal.SIGKILL)
        # What it managed to print before the signal counts too; the last line may be torn.
        acknowledged |= {
            line for line in writer.communicate(timeout=DEADLINE_SECONDS)[0].splitlines() if len(line) == 36
        }
    stored = {task.id for task in TaskStore(database).list()}
    assert len(acknowledged) >= 5
    assert acknowledged <= stored
    assert len(stored - acknowledged) <= 5  # at most the one that was being written at each kill
    database.close()
    with sqlite3.connect(tmp_path / "wan22.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@pytest.mark.parametrize("point", ["submit.before_commit", "submit.after_commit", "claim.after_commit"])
def test_dying_at_a_fault_point_leaves_all_or_nothing(tmp_path: Path, point: str) -> None:
    url = f"sqlite:///{tmp_path}/wan22.db"
    database = Database(url)
    database.migrate()
    program = (
        "import sys\n"
        "from backend.store.engine import Database\n"
        "from backend.store.tasks import TaskStore\n"
        "from tests.store.samples import submit\n"
        "store = TaskStore(Database(sys.argv[1]))\n"
        "submit(store)\n"
        "store.claim('w1', 30.0)\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", program, url], env=os.environ | {"WAN22_FAULTS": f"{point}=kill"}, check=False
    )
    assert died.returncode == -signal.SIGKILL
    expected = {"submit.before_commit": [], "submit.after_commit": ["pending"], "claim.after_commit": ["processing"]}
    tasks = TaskStore(database).list()
    assert [str(task.status) for task in tasks] == expected[point]
    for task in tasks:
        assert len(EventLog(database).of_task(task.id)) == (2 if point == "claim.after_commit" else 1)
    database.close()
