"""Workers on PostgreSQL: killed at every point, and with the database stopped and started in mid-work."""

from __future__ import annotations

import pytest

from backend.core.domain import EventType, TaskStatus
from backend.core.settings import Settings
from tests.support.postgres import PostgresServer
from tests.support.server import wait_for
from tests.worker.conftest import START_SECONDS, Queue
from tests.worker.test_worker_process import die_at_every_point

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def settings(settings: Settings, postgres: PostgresServer) -> Settings:
    return settings.model_copy(update={"database_url": postgres.new_database()})


def test_16_a_database_that_goes_away_in_mid_work_costs_no_attempt_and_changes_no_frame(
    queue: Queue, postgres: PostgresServer
) -> None:
    whole, task, waiting = (queue.submit(steps=60, frames=17) for _ in range(3))
    queue.start_worker("w")
    queue.wait_status(whole.id, TaskStatus.COMPLETED)
    wait_for(lambda: (queue.tasks.get(task.id).step or 0) > 3, seconds=START_SECONDS, what="a step")
    postgres.crash()
    try:
        # The clip may well be finished meanwhile: its end is recorded as soon as that is possible.
        wait_for(lambda: queue.videos() != [f"{whole.id}.mp4"], seconds=START_SECONDS, what="work without a database")
    finally:
        postgres.start()
    for one in (task, waiting):
        done = queue.wait_status(one.id, TaskStatus.COMPLETED)
        assert (done.attempt, queue.types(one.id).count(EventType.COMPLETED)) == (1, 1)
    assert len(queue.outputs.list()) == len(queue.videos()) == 3
    frames = {str(queue.outputs.get(one.id).metadata["result"]["frames_sha256"]) for one in (whole, task, waiting)}
    assert len(frames) == 1
    assert not any(EventType.ATTEMPT_LOST in queue.types(one.id) for one in (task, waiting))


def test_02_a_task_whose_worker_is_killed_at_every_point_in_turn_ends_once_on_postgresql(queue: Queue) -> None:
    die_at_every_point(queue)
