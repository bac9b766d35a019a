"""Old rows go, in both databases; what a task or a video still needs stays."""

from __future__ import annotations

from contextlib import suppress

import pytest
from sqlalchemy import text

from backend.core.domain import EventType, Task, TaskStatus
from backend.core.errors.generation import OutOfMemory
from backend.core.errors.lookups import TaskNotFound
from backend.core.paths import Home
from backend.store import engine
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.gallery.outputs import OutputStore
from backend.store.tasks import TaskStore
from backend.store.upkeep.retention import Retention, RowLimits
from backend.store.workers import WorkerState, WorkerStore
from tests.store.samples import at_step, claimed, output_of, submit

LIMITS = RowLimits(progress_days=7, hidden_days=30, workers_hours=24, database_mb=0)
NONE = RowLimits(progress_days=0, hidden_days=0, workers_hours=0, database_mb=0)


def run(store: TaskStore, *, steps: int = 3, key: str | None = None, end: TaskStatus = TaskStatus.COMPLETED) -> Task:
    """Queue a task and run it to its end."""
    task = submit(store, key=key)
    _, token = claimed(store)
    for step in range(steps):
        store.report(task.id, token, at_step(step))
    if end is TaskStatus.COMPLETED:
        store.complete(task.id, token, output_of(task.id))
    else:
        store.fail(task.id, token, OutOfMemory())
    return task


def age(database: Database, task_id: str, days: float) -> None:
    """Make a task as if all of it had happened this long ago."""
    with database.begin() as connection:
        for column in ("created_at", "completed_at", "deleted_at"):
            change = f"UPDATE tasks SET {column} = {column} - :seconds WHERE id = :id"
            connection.execute(text(change), {"seconds": days * 86_400, "id": task_id})


def types(database: Database, task_id: str) -> list[EventType]:
    return [event.type for event in EventLog(database).of_task(task_id)]


def test_progress_of_tasks_that_ended_long_ago_goes_and_every_other_event_stays(
    database: Database, store: TaskStore
) -> None:
    old, fresh, failed = run(store), run(store), run(store, end=TaskStatus.FAILED)
    running = submit(store)
    store.report(running.id, claimed(store)[1], at_step(1))
    for one in (old, failed, running):
        age(database, one.id, 8)
    before = types(database, fresh.id)
    assert Retention(database).due(LIMITS).progress_events == 6
    done = Retention(database).sweep(LIMITS)
    assert (done.progress_events, done.tasks, done.workers) == (6, 0, 0)
    assert types(database, old.id) == [EventType.SUBMITTED, EventType.STARTED, EventType.COMPLETED]
    assert types(database, failed.id) == [EventType.SUBMITTED, EventType.STARTED, EventType.FAILED]
    assert types(database, fresh.id) == before
    assert EventType.PROGRESS in types(database, running.id)
    again = Retention(database).sweep(LIMITS)
    assert (again.progress_events, again.tasks) == (0, 0)


def test_the_log_knows_how_far_it_is_incomplete(database: Database, store: TaskStore, home: Home) -> None:
    log = EventLog(database)
    first, second = run(store), run(store)
    event = "INSERT INTO events (task_id, number, type, data, created_at) VALUES (:id, 99, 'alert', '{}', 0)"
    with suppress(RuntimeError), database.begin() as connection:  # PostgreSQL does not give this id again
        connection.execute(text(event), {"id": first.id})
        raise RuntimeError
    third = run(store)
    assert log.removed_upto() == 0
    of_first = [event for event in log.after(0) if event.task_id == first.id]
    progress = [event.id for event in of_first if event.type is EventType.PROGRESS]
    age(database, first.id, 8)
    Retention(database).sweep(LIMITS)
    assert log.removed_upto() == max(progress)
    Retention(database).sweep(LIMITS)
    assert log.removed_upto() == max(progress)
    # The newest event goes with its task: its number is not given again, and counts as seen.
    newest = log.after(0)[-1].id
    store.delete(third.id)
    OutputStore(database, home).delete(third.id)
    age(database, third.id, 31)
    Retention(database).sweep(LIMITS)
    assert log.after(0)[-1].task_id == second.id
    assert log.removed_upto() >= newest
    assert store.tally()[1] >= newest


def test_a_retried_task_keeps_its_progress(database: Database, store: TaskStore) -> None:
    task = run(store, end=TaskStatus.FAILED)
    age(database, task.id, 8)
    with database.begin() as connection:
        connection.execute(text("UPDATE tasks SET status = 'pending'"))
    assert Retention(database).sweep(LIMITS).progress_events == 0


def test_removed_tasks_go_with_their_events_once_their_video_is_gone(
    database: Database, store: TaskStore, home: Home
) -> None:
    outputs = OutputStore(database, home)
    with_video, without, shown, recent = (run(store) for _ in range(4))
    for one in (with_video, without, recent):
        store.delete(one.id)
    for one in (without, shown, recent):
        outputs.delete(one.id)
    for one in (with_video, without, shown):
        age(database, one.id, 31)
    assert Retention(database).due(LIMITS).tasks == 1
    assert Retention(database).sweep(LIMITS).tasks == 1
    assert types(database, without.id) == []
    assert store.status_of(without.id) is None
    assert outputs.get(with_video.id).task_id == with_video.id
    assert store.get(shown.id).status is TaskStatus.COMPLETED
    assert store.status_of(recent.id) is TaskStatus.COMPLETED
    with pytest.raises(TaskNotFound):
        store.get(without.id)


def test_a_key_protects_its_client_for_a_day_even_where_tasks_go_at_once(database: Database, store: TaskStore) -> None:
    task = run(store, key="k", end=TaskStatus.FAILED)
    store.delete(task.id)
    age(database, task.id, 0.5)
    hasty = RowLimits(progress_days=0, hidden_days=0.1, workers_hours=0, database_mb=0)
    assert Retention(database).sweep(hasty).tasks == 0
    assert submit(store, key="k").id == task.id
    age(database, task.id, 0.6)
    assert Retention(database).sweep(hasty).tasks == 1
    assert submit(store, key="k").id != task.id


def test_silent_workers_leave_the_register_unless_a_task_is_theirs(database: Database, store: TaskStore) -> None:
    register = WorkerStore(database)
    submit(store)
    claimed(store, "busy")
    for name in ("busy", "gone", "alive"):
        register.beat(name, device="cpu", state=WorkerState.IDLE)
    with database.begin() as connection:
        connection.execute(text("UPDATE workers SET seen_at = seen_at - 90000 WHERE id <> 'alive'"))
    assert Retention(database).sweep(LIMITS).workers == 1
    assert {worker.id for worker in register.list()} == {"busy", "alive"}


def test_nothing_goes_without_limits(database: Database, store: TaskStore) -> None:
    task = run(store, end=TaskStatus.FAILED)
    store.delete(task.id)
    age(database, task.id, 3000)
    before = types(database, task.id)
    assert Retention(database).due(NONE).progress_events == 0
    Retention(database).sweep(NONE)
    assert types(database, task.id) == before


def test_other_writers_get_their_turn_between_batches_and_a_stop_ends_the_round(
    database: Database, store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PAGE_ROWS", 2)
    task = run(store, steps=9)
    age(database, task.id, 8)
    looks: list[int] = []

    def stopping() -> bool:
        submit(store)  # fails while a batch holds the writer's turn
        looks.append(types(database, task.id).count(EventType.PROGRESS))
        return len(looks) == 4

    assert Retention(database).sweep(LIMITS, stopping).progress_events == 6
    assert looks[:4] == [9, 7, 5, 3]
    assert Retention(database).sweep(LIMITS).progress_events == 3


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_file_shrinks_and_a_large_one_loses_progress_early(
    database: Database, store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest, newest = run(store, steps=3), run(store, steps=3)
    with database.begin() as connection:
        connection.execute(text("UPDATE events SET data = json_object('x', hex(zeroblob(100000)))"))
    database.checkpoint()
    assert database.file is not None
    large = database.file.stat().st_size
    monkeypatch.setattr(engine, "PAGE_ROWS", 1)
    limits = RowLimits(progress_days=7, hidden_days=0, workers_hours=0, database_mb=large / 1e6 * 0.8)
    done = Retention(database).sweep(limits)
    database.checkpoint()
    assert done.progress_events == 3
    assert types(database, oldest.id).count(EventType.PROGRESS) == 0
    assert types(database, newest.id).count(EventType.PROGRESS) == 3
    assert database.file.stat().st_size < 0.8 * large
    assert done.free_bytes == 0
    assert done.size_bytes == database.file.stat().st_size
