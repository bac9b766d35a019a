"""Samples of the load and ended tasks, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import text

from backend.core.access.caller import Caller, Scope, acting_as
from backend.core.domain import EventType, TaskStatus
from backend.core.errors.generation import OutOfMemory
from backend.store.engine import Database
from backend.store.performance.counted_events import CountedEvents
from backend.store.performance.ended_tasks import EndedTasks
from backend.store.performance.samples import Load, LoadSample, LoadSamples
from backend.store.tasks import TaskStore
from backend.store.upkeep.retention import Retention, RowLimits
from tests.store.samples import claimed, output_of, submit

LOAD = Load(cpu_percent=50.0, ram_used_gb=4.0, ram_total_gb=16.0, ram_percent=25.0)


@pytest.fixture
def take(database: Database) -> Callable[..., LoadSample]:
    """Store a sample as if it had been taken some time ago."""

    def at(seconds_ago: float, host: str | None = None, **values: float) -> LoadSample:
        sample = LoadSamples(database, host).add(replace(LOAD, **values))
        with database.begin() as connection:
            change = (
                "UPDATE load_samples SET taken_at = taken_at - :seconds WHERE id = (SELECT MAX(id) FROM load_samples)"
            )
            connection.execute(text(change), {"seconds": seconds_ago})
        return sample

    return at


def test_a_sample_is_read_as_it_was_stored(database: Database, take: Callable[..., LoadSample]) -> None:
    card = {"gpu_percent": 7.0, "vram_used_mb": 10.0, "vram_total_mb": 40.0, "vram_percent": 25.0}
    take(30)
    take(20, **card)
    history = LoadSamples(database).of_last(1.0, 1000)
    assert [one.load for one in history.samples] == [LOAD, replace(LOAD, **card)]
    assert history.start < history.samples[0].taken_at < history.samples[1].taken_at < history.end
    assert (history.end - history.start).total_seconds() == pytest.approx(3600)


def test_samples_of_other_machines_and_before_the_period_are_left_out(
    database: Database, take: Callable[..., LoadSample]
) -> None:
    take(7200)
    take(5, "another-machine", cpu_percent=99.0)
    take(5)
    assert [one.load for one in LoadSamples(database).of_last(1.0, 10).samples] == [LOAD]


def test_who_asks_in_a_loop_stores_one_sample(database: Database) -> None:
    samples = LoadSamples(database)
    first = samples.add(LOAD)
    assert samples.add(replace(LOAD, cpu_percent=99.0)) == first
    assert len(samples.of_last(1.0, 10).samples) == 1


def test_of_many_samples_the_means_of_equal_intervals_are_returned(
    database: Database, take: Callable[..., LoadSample]
) -> None:
    for ago, cpu in ((3500, 10.0), (3400, 30.0), (900, 60.0), (800, 80.0)):
        take(ago, cpu_percent=cpu)
    assert [one.load.cpu_percent for one in LoadSamples(database).of_last(1.0, 2).samples] == [20.0, 70.0]


def test_old_samples_go(database: Database, take: Callable[..., LoadSample]) -> None:
    limits = RowLimits(progress_days=0, hidden_days=0, workers_hours=0, database_mb=0, samples_days=7)
    take(8 * 86_400)
    take(8 * 86_400, "another-machine")
    take(6 * 86_400)
    assert Retention(database).due(limits).samples == 2
    assert Retention(database).sweep(replace(limits, samples_days=0)).samples == 0
    assert Retention(database).sweep(limits).samples == 2
    assert len(LoadSamples(database).of_last(1000, 10).samples) == 1


def test_ended_tasks_are_those_of_the_period_and_of_the_caller(database: Database, store: TaskStore) -> None:
    made, failed, waiting, old = (submit(store) for _ in range(4))
    for task in (made, failed):
        _, token = claimed(store)
        if task is made:
            store.complete(task.id, token, output_of(task.id))
        else:
            store.fail(task.id, token, OutOfMemory())
    store.request_cancel(waiting.id)
    store.request_cancel(old.id)
    with database.begin() as connection:
        connection.execute(text("UPDATE tasks SET completed_at = completed_at - 7200 WHERE id = :id"), {"id": old.id})
        connection.execute(text("UPDATE tasks SET owner = 'k1' WHERE id = :id"), {"id": failed.id})
    store.delete(made.id)
    found = EndedTasks(database).of_last(1.0, 10)
    assert {one.task.id: (one.task.status, one.seconds is None) for one in found.tasks} == {
        made.id: (TaskStatus.COMPLETED, False),
        failed.id: (TaskStatus.FAILED, False),
        waiting.id: (TaskStatus.CANCELLED, True),
    }
    assert (found.left_out, EndedTasks(database).of_last(1.0, 1).left_out) == (0, 2)
    with acting_as(Caller("k1", "one", frozenset({Scope.READ}))):
        assert [one.task.id for one in EndedTasks(database).of_last(1.0, 10).tasks] == [failed.id]


def test_counted_events_come_in_their_order_and_only_once(database: Database, store: TaskStore) -> None:
    reader = CountedEvents(database)
    assert reader.newest() == 0
    task = submit(store)
    before = reader.newest()
    _, token = claimed(store)
    store.complete(task.id, token, output_of(task.id))
    first = reader.after(before, 1)
    rest = reader.after(first[0].event.id)
    assert [one.event.type for one in (*first, *rest)] == [EventType.STARTED, EventType.COMPLETED]
    assert first[0].output is None
    assert rest[0].output is not None
    assert reader.after(rest[0].event.id) == []
