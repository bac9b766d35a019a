"""One row that cannot be read stops nothing but itself: not lists, not claims, not recovery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text, update

from backend.core.domain import EventType, Priority, TaskStatus
from backend.core.errors.generation import TaskUnreadable
from backend.core.paths import Home
from backend.core.requests.forms import GenerationRequest
from backend.store import leases
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.gallery.outputs import OutputStore
from backend.store.tables import tasks
from backend.store.tasks import TaskStore
from tests.store.samples import claimed, output_of, submit

#: What bit rot makes of a row, as SQLite lets it happen.
DAMAGE = {
    "cut JSON": "request = substr(request, 1, 20)",
    "no object": "request = '[1]'",
    "no text": "request = CAST(x'7bff22' AS TEXT)",
    "a byte of the prompt": "request = replace(request, 'circle', CAST(x'ff' AS TEXT) || 'ircle')",
    "no date": "created_at = 'yesterday'",
    "no state of ours": "adjustments = '7'",
}


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "wan22.db")
    database.migrate()
    yield database
    database.close()


def damage(database: Database, task_id: str, change: str) -> None:
    with database.begin() as connection:
        connection.execute(text(f"UPDATE tasks SET {change} WHERE id = :id"), {"id": task_id})


@pytest.mark.parametrize("change", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_task_is_failed_at_its_claim_and_the_next_one_runs(sqlite: Database, change: str) -> None:
    store = TaskStore(sqlite)
    bad, good = submit(store, priority=Priority.HIGH), submit(store)
    damage(sqlite, bad.id, change)
    assert good.id in {task.id for task in store.list()}
    assert good.id in {task.id for task in store.up_to(good.id)}
    assert good.id in {task.id for task in store.needing(good.model)}
    assert store.images_in_use({"a" * 64}) == set()
    assert store.claim("w1", 30.0) is None
    assert claimed(store)[0].id == good.id
    assert store.status_of(bad.id) is TaskStatus.FAILED
    assert EventLog(sqlite).of_task(bad.id)[-1].data["error"] == "task_unreadable"
    assert sum(store.counts().values()) == 2


def test_a_damaged_task_keeps_no_other_from_recovery(
    store: TaskStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = submit(store), submit(store)
    for _ in range(2):
        claimed(store)
    real = leases.apply

    def failing(connection: object, task_id: str, *arguments: object, **values: object) -> object:
        if task_id == bad.id:
            raise ValueError("damaged")
        return real(connection, task_id, *arguments, **values)  # type: ignore[arg-type]

    monkeypatch.setattr(leases, "apply", failing)
    assert store.recover_worker("w1") == [good.id]
    assert store.recover_silent(store.leases()) == []
    monkeypatch.undo()
    assert store.recover_worker("w1") == [bad.id]


def test_a_damaged_event_or_output_leaves_the_others_readable(sqlite: Database, tmp_path: Path) -> None:
    store, outputs = TaskStore(sqlite), OutputStore(sqlite, Home(tmp_path / "home").create())
    done = [submit(store) for _ in range(2)]
    for task in done:
        store.complete(task.id, claimed(store)[1], output_of(task.id))
    with sqlite.begin() as connection:
        connection.execute(text("UPDATE events SET data = '{' WHERE number = 2"))
        connection.execute(text("UPDATE outputs SET created_at = 'x' WHERE task_id = :id"), {"id": done[0].id})
    assert [output.task_id for output in outputs.list()] == [done[1].id]
    assert [event.number for event in EventLog(sqlite).of_task(done[0].id)] == [1, 2, 3]
    assert EventLog(sqlite).of_task(done[0].id)[1].type is EventType.STARTED
    assert outputs.find(done[0].id) is None


def test_a_damaged_record_of_a_video_keeps_its_video_in_the_gallery(sqlite: Database, tmp_path: Path) -> None:
    store, outputs = TaskStore(sqlite), OutputStore(sqlite, Home(tmp_path / "home").create())
    task = submit(store)
    store.complete(task.id, claimed(store)[1], output_of(task.id))
    with sqlite.begin() as connection:
        connection.execute(text("UPDATE outputs SET metadata = '{\"result', warnings = '[', model = NULL"))
    (listed,) = outputs.list()
    assert (listed.task_id, listed.metadata, listed.warnings) == (task.id, {}, ())
    assert outputs.not_as_asked([task.id]) == {task.id: listed}


def test_a_request_of_a_newer_version_is_shown_and_not_run(store: TaskStore, database: Database) -> None:
    task = submit(store)
    newer = task.request | {"camera": "dolly"}
    with database.begin() as connection:
        connection.execute(update(tasks).values(request=newer))
    (listed,) = store.list()
    assert GenerationRequest.understood(listed.request).prompt == task.prompt
    with pytest.raises(TaskUnreadable, match="does not know camera"):
        GenerationRequest.from_json(listed.request)
