"""A task whose attempt failed waits before it is tried again. On SQLite and PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import update

from backend.core.domain import EventType, Task, TaskStatus
from backend.core.errors.generation import UnexpectedFailure
from backend.core.errors.lookups import StateConflict
from backend.core.errors.repeats import LONGEST_SECONDS
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.tables import database_now, tasks
from backend.store.tasks import TaskStore
from tests.store.samples import LEASE, at_step, claimed, order, submit

LATER = 100.0


@pytest.fixture
def store(database: Database) -> TaskStore:
    return TaskStore(database)


def failed(store: TaskStore, pause: float = LATER) -> Task:
    """Queue a task and let its first attempt fail."""
    task = submit(store)
    _, token = claimed(store)
    store.fail(task.id, token, UnexpectedFailure("It broke"), lambda _: pause)
    return store.get(task.id)


def move_clock(database: Database, task_id: str, seconds: float) -> None:
    """Let the pause of a task end after this time from now."""
    with database.begin() as connection:
        connection.execute(update(tasks).where(tasks.c.id == task_id).values(next_retry_at=database_now() + seconds))


def test_it_waits_shows_when_it_is_tried_again_and_lets_others_pass(store: TaskStore, database: Database) -> None:
    task = failed(store)
    assert (task.status, task.repeats, task.message) == (TaskStatus.PENDING, 1, "It broke")
    assert task.next_retry_at is not None
    assert LATER - 5 < (task.next_retry_at - task.created_at).total_seconds() < LATER + 60
    event = EventLog(database).of_task(task.id)[-1]
    assert event.type is EventType.RETRY_SCHEDULED
    assert (event.data["error"], event.data["repeat"]) == ("unexpected_failure", 1)
    assert event.data["next_retry_at"] == pytest.approx(task.next_retry_at.timestamp(), abs=0.01)
    assert store.claim("w1", LEASE) is None
    assert store.claim("w1", LEASE, downloads=False) is None
    assert store.queue_position(task.id) is None
    assert store.up_to(task.id) == []
    other = submit(store, "another")
    assert order(store) == [other.id]
    assert claimed(store)[0].id == other.id


def test_it_is_claimed_when_its_pause_is_over(store: TaskStore, database: Database) -> None:
    task = failed(store)
    move_clock(database, task.id, -0.001)
    assert store.get(task.id).next_retry_at is None
    again, _ = claimed(store)
    assert (again.id, again.attempt, again.repeats) == (task.id, 2, 1)


def test_a_clock_that_is_set_back_does_not_make_it_wait_for_a_day(store: TaskStore, database: Database) -> None:
    task = failed(store)
    move_clock(database, task.id, 86_400.0)
    assert LONGEST_SECONDS < 86_400.0
    assert claimed(store)[0].id == task.id


def test_the_pause_depends_on_the_repeats_and_without_one_the_task_fails(store: TaskStore) -> None:
    task, seen = submit(store), []

    def pause(repeats: int) -> float | None:
        seen.append(repeats)
        return 0.0 if repeats < 2 else None

    for _ in range(3):
        _, token = claimed(store)
        store.fail(task.id, token, UnexpectedFailure("It broke"), pause)
    assert seen == [0, 1, 2]
    end = store.get(task.id)
    assert (end.status, end.error_code, end.error_message) == (TaskStatus.FAILED, "unexpected_failure", "It broke")


def test_a_new_saved_state_starts_the_count_again(store: TaskStore) -> None:
    task = failed(store, pause=0.0)
    _, token = claimed(store)
    store.report(task.id, token, replace(at_step(3), saved_step=3))
    store.fail(task.id, token, UnexpectedFailure("It broke"), lambda _: LATER)
    assert store.get(task.id).repeats == 1


def test_a_user_can_have_it_tried_at_once(store: TaskStore) -> None:
    task = failed(store)
    now = store.retry(task.id)
    assert (now.status, now.next_retry_at, now.repeats, now.message) == (TaskStatus.PENDING, None, 0, None)
    assert store.queue_position(task.id) == 1
    assert claimed(store)[0].id == task.id


def test_it_can_be_paused_resumed_and_cancelled_meanwhile(store: TaskStore) -> None:
    task = failed(store)
    with pytest.raises(StateConflict, match="tried again later"):
        store.move(task.id, 1)
    assert store.request_pause(task.id).status is TaskStatus.PAUSED
    assert store.resume(task.id).status is TaskStatus.PENDING
    assert store.request_cancel(task.id).status is TaskStatus.CANCELLED


@pytest.mark.parametrize("asked", ["cancel", "pause"])
def test_what_the_user_asked_meanwhile_goes_before_a_repeat(store: TaskStore, asked: str) -> None:
    task = submit(store)
    _, token = claimed(store)
    if asked == "cancel":
        store.request_cancel(task.id)
    else:
        store.request_pause(task.id)
    store.fail(task.id, token, UnexpectedFailure("It broke"), lambda _: LATER)
    assert store.get(task.id).status is (TaskStatus.CANCELLED if asked == "cancel" else TaskStatus.PAUSED)
