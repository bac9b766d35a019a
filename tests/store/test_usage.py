"""Usage of the models, counted on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from backend.core.errors.generation import GenerationFailed
from backend.core.paths import Home
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore, UsageStore
from backend.store.tables import tasks
from backend.store.tasks import TaskStore
from tests.store.samples import claimed, output_of, submit
from tests.store.test_outputs_and_workers import finish

DAY = 86_400.0


def test_only_tasks_ended_in_the_period_count(store: TaskStore, database: Database, home: Home) -> None:
    usage = UsageStore(database)
    assert usage.of_last(30).records == ()
    old = finish(store, home)
    with database.begin() as connection:
        connection.execute(update(tasks).where(tasks.c.id == old).values(completed_at=tasks.c.completed_at - 10 * DAY))
    finish(store, home)
    submit(store)
    failed, token = claimed(store)
    store.fail(failed.id, token, GenerationFailed())
    store.request_cancel(submit(store).id)
    submit(store)
    (week,) = usage.of_last(7).records
    (month,) = usage.of_last(30).records
    assert (week.completed, week.failed, week.cancelled, week.uses) == (1, 1, 1, 3)
    assert (month.completed, month.uses) == (2, 4)
    assert (week.success_rate, month.success_rate) == (0.5, pytest.approx(2 / 3))
    assert week.mean_seconds == output_of(old).generation_seconds
    assert week.last_used == month.last_used == store.list()[1].completed_at
    period = usage.of_last(7)
    assert period.until - period.since == timedelta(days=7)


def test_deleted_tasks_count_but_the_seconds_of_deleted_videos_do_not(
    store: TaskStore, database: Database, home: Home
) -> None:
    task_id = finish(store, home)
    OutputStore(database, home).delete(task_id)
    store.delete(task_id)
    (record,) = UsageStore(database).of_last(1).records
    assert (record.completed, record.mean_seconds, record.success_rate) == (1, None, 1.0)


def test_without_ended_tasks_there_is_no_rate(store: TaskStore, database: Database) -> None:
    store.request_cancel(submit(store).id)
    (record,) = UsageStore(database).of_last(1).records
    assert (record.uses, record.success_rate) == (1, None)
