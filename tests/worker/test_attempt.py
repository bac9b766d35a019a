"""One attempt in its worker: what it reports, how often, and what stops it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from backend.core.domain import DownloadPhase, DownloadProgress, EventType, Progress, Stage, TaskStatus
from backend.core.errors.generation import GenerationFailed
from backend.core.errors.interruptions import LeaseLost, TaskCancelled, WorkerStopping
from backend.core.errors.surroundings import StoreUnavailable
from backend.core.planning.memory_level import MemoryAlert, MemoryLevel, MemoryReading, Place
from backend.store.tasks import TaskStore
from backend.worker import attempt as attempt_module
from backend.worker.attempt import Attempt
from tests.store.samples import at_step, claimed, output_of
from tests.worker.conftest import Queue


class FlakyStore(TaskStore):
    """A task store whose database becomes unavailable: before the next write, or after its commit."""

    failures_before = 0
    failures_after = 0

    def complete(self, *arguments: object) -> None:
        if self.failures_before:
            self.failures_before -= 1
            raise StoreUnavailable
        super().complete(*arguments)  # type: ignore[arg-type]
        if self.failures_after:
            self.failures_after -= 1
            raise StoreUnavailable

    def report(self, *arguments: object) -> bool:
        raise StoreUnavailable

    def alert(self, *arguments: object) -> None:
        raise StoreUnavailable


@pytest.fixture
def stopping() -> threading.Event:
    return threading.Event()


@pytest.fixture
def attempt(queue: Queue, stopping: threading.Event) -> Attempt:
    return begin(queue, queue.tasks, stopping)


def begin(queue: Queue, store: TaskStore, stopping: threading.Event) -> Attempt:
    queue.submit()
    task, token = claimed(queue.tasks)
    return Attempt(store, task, lease_token=token, lease_seconds=30.0, stopping=stopping)


@contextmanager
def nothing_is_long_ago() -> Iterator[None]:
    with patch.object(attempt_module, "REPORT_SECONDS", 3600.0):
        yield


def told(queue: Queue, attempt: Attempt) -> list[float | None]:
    events = queue.events.of_task(attempt.task.id)
    return [event.data["current_step"] for event in events if event.type is EventType.PROGRESS]


def test_steps_are_reported_sparsely_but_stages_and_the_last_step_always(queue: Queue, attempt: Attempt) -> None:
    with nothing_is_long_ago():
        for step in range(21):
            attempt.report(at_step(step))
        attempt.report(Progress(Stage.SAVING, 0.99, "Saving", step=19, total_steps=20))
    assert told(queue, attempt) == [0, 20, 19]


def test_the_last_byte_of_a_model_is_always_reported(queue: Queue, attempt: Attempt) -> None:
    with nothing_is_long_ago():
        for done in range(11):
            news = DownloadProgress(DownloadPhase.DOWNLOADING, None, done, 10, None, None)
            attempt.report(Progress(Stage.DOWNLOADING_MODEL, 0.1, "", fetch=news))
    events = [event for event in queue.events.of_task(attempt.task.id) if event.type is EventType.PROGRESS]
    figures = [event.data["download"] for event in events]
    assert figures == [{"status": "downloading", "done_bytes": done, "total_bytes": 10} for done in (0, 10)]


def test_every_step_is_reported_when_steps_are_slow(queue: Queue, attempt: Attempt) -> None:
    with patch.object(attempt_module, "REPORT_SECONDS", 0.0):
        for step in range(5):
            attempt.report(at_step(step))
    assert told(queue, attempt) == [0, 1, 2, 3, 4]


def test_a_cancel_is_noticed_at_the_very_next_step(queue: Queue, attempt: Attempt) -> None:
    with nothing_is_long_ago():
        attempt.report(at_step(1))
        queue.tasks.request_cancel(attempt.task.id)
        with pytest.raises(TaskCancelled):
            attempt.report(at_step(2))
    attempt.acknowledge_cancel()
    assert queue.tasks.get(attempt.task.id).status is TaskStatus.CANCELLED


def test_a_lost_lease_is_noticed_at_the_very_next_step(queue: Queue, attempt: Attempt) -> None:
    with nothing_is_long_ago():
        attempt.report(at_step(1))
        queue.tasks.recover_worker("w1")
        with pytest.raises(LeaseLost):
            attempt.report(at_step(2))


def test_the_heartbeat_reports_a_stop_too(queue: Queue, stopping: threading.Event) -> None:
    attempt = begin(queue, FlakyStore(queue.database), stopping)  # its reports are lost
    attempt.report(at_step(1))
    queue.tasks.request_cancel(attempt.task.id)
    attempt.renew()
    with pytest.raises(TaskCancelled):
        attempt.report(at_step(2))
    queue.tasks.recover_worker("w1")
    attempt.renew()
    with pytest.raises(LeaseLost):
        attempt.report(at_step(3))


def test_the_operators_stop_is_noticed(attempt: Attempt, stopping: threading.Event) -> None:
    stopping.set()
    with pytest.raises(WorkerStopping):
        attempt.report(at_step(1))


def test_an_unavailable_database_does_not_stop_the_work(queue: Queue, stopping: threading.Event) -> None:
    store = FlakyStore(queue.database)
    store.failures_before = 1
    attempt = begin(queue, store, stopping)
    attempt.report(at_step(1))
    attempt.complete(output_of(attempt.task.id))
    assert queue.tasks.get(attempt.task.id).status is TaskStatus.COMPLETED
    assert queue.types(attempt.task.id).count(EventType.COMPLETED) == 1


def test_an_end_whose_reply_was_lost_still_counts(queue: Queue, stopping: threading.Event) -> None:
    store = FlakyStore(queue.database)
    store.failures_after = 1
    attempt = begin(queue, store, stopping)
    attempt.complete(output_of(attempt.task.id))
    assert queue.tasks.get(attempt.task.id).status is TaskStatus.COMPLETED
    assert queue.types(attempt.task.id).count(EventType.COMPLETED) == 1


def test_a_database_that_stays_unavailable_ends_the_attempt_not_the_worker(
    queue: Queue, stopping: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_module, "PERSIST_SECONDS", 0.0)
    store = FlakyStore(queue.database)
    store.failures_before = 1
    stopping.set()  # as long as the worker may live, it waits for the database
    with pytest.raises(StoreUnavailable):
        begin(queue, store, stopping).complete(output_of("x"))


def test_a_failure_is_recorded_with_its_advice(queue: Queue, attempt: Attempt) -> None:
    attempt.fail(GenerationFailed("no luck", suggestions=("Try again.",)))
    failed = queue.tasks.get(attempt.task.id)
    assert (failed.error_message, failed.error_suggestions) == ("no luck", ("Try again.",))


def test_an_alert_is_reported_and_stops_nothing(queue: Queue, attempt: Attempt, stopping: threading.Event) -> None:
    alert = MemoryAlert(MemoryLevel.CRITICAL, MemoryReading(Place.VRAM, 92, 100))
    attempt.alert(alert, ("tiny-ti2v-5b",))
    (event,) = [one for one in queue.events.of_task(attempt.task.id) if one.type is EventType.ALERT]
    assert event.data == alert.to_json() | {"unloaded": ["tiny-ti2v-5b"]}
    assert queue.tasks.get(attempt.task.id).status is TaskStatus.PROCESSING
    begin(queue, FlakyStore(queue.database), stopping).alert(alert, ())  # an unavailable database
    queue.tasks.recover_worker(str(attempt.task.worker_id))
    attempt.alert(alert, ())
    with pytest.raises(LeaseLost):
        attempt.report(at_step(1))
