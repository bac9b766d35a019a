"""A real worker repeats an attempt that failed, from the saved state, and gives up when that does not help."""

from __future__ import annotations

import pytest

from backend.core.domain import EventType, TaskStatus
from backend.core.settings import Settings
from tests.worker.conftest import Queue

pytestmark = pytest.mark.timeout(600)  # process starts, on a busy machine


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"retry_seconds": 0.2})


def test_a_passing_error_costs_a_pause_and_a_lasting_one_the_task(queue: Queue) -> None:
    passing = queue.submit(steps=4)
    # The second attempt of the first task passes the point four times.
    faults = ",".join(f"denoise.step:{number}=error" for number in (1, 6, 7))
    worker = queue.start_worker("first", WAN22_FAULTS=faults)
    done = queue.wait_status(passing.id, TaskStatus.COMPLETED)
    assert (done.attempt, done.repeats, done.next_retry_at) == (2, 0, None), "a saved state starts the count again"
    (repeat,) = [event for event in queue.events.of_task(passing.id) if event.type is EventType.RETRY_SCHEDULED]
    assert (repeat.data["error"], repeat.data["repeat"]) == ("unexpected_failure", 1)
    assert "ValueError" in repeat.data["message"]

    lasting = queue.submit(steps=4)
    failed = queue.wait_status(lasting.id, TaskStatus.FAILED)
    assert (failed.attempt, failed.repeats, failed.error_code) == (2, 1, "unexpected_failure")
    assert queue.types(lasting.id).count(EventType.RETRY_SCHEDULED) == 1
    assert worker.poll() is None
    assert queue.leftovers() == []
