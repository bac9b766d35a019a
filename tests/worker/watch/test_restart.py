"""A worker that is asked to restart hands its task back, and the next process goes on with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backend.core.domain import EventType, TaskStatus
from backend.store.workers import WorkerWish
from backend.worker.stop import RESTART_STATUS
from backend.worker.supervisor import Supervisor
from tests.support.server import wait_for
from tests.worker.conftest import START_SECONDS, Queue

pytestmark = pytest.mark.timeout(900)  # several process starts in one test, on a busy machine


def test_a_running_task_continues_in_the_next_process_and_costs_nothing(
    queue: Queue, supervise: Callable[..., Supervisor]
) -> None:
    task = queue.submit(steps=100, frames=33)
    supervisor = supervise(restart_limit=0)
    wait_for(lambda: (queue.tasks.get(task.id).step or 0) > 3, seconds=START_SECONDS, what="a step")
    first = queue.tasks.get(task.id).worker_id
    assert first is not None
    assert queue.workers.ask(first, WorkerWish.RESTART)
    done = queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert done.worker_id != first
    assert done.attempt == 1, "the attempt that was handed back does not count"
    assert EventType.HELD_UP in queue.types(task.id)
    assert queue.outputs.get(task.id).metadata["result"]["resumed_from_step"] > 0
    assert supervisor.state.restarts == 0, "it is no failure"


def test_an_idle_worker_frees_its_memory_and_restarts_when_it_is_asked(queue: Queue) -> None:
    worker = queue.start_worker("alone")
    wait_for(lambda: any(one.model for one in queue.workers.list()), seconds=START_SECONDS, what="a loaded model")
    wait_for(lambda: queue.worker("alone").state == "idle", seconds=START_SECONDS, what="an idle worker")
    queue.workers.ask("alone", WorkerWish.UNLOAD)

    def unloaded() -> bool:
        now = queue.worker("alone")
        return now.model is None and "was unloaded" in (now.detail or "")

    wait_for(unloaded, seconds=START_SECONDS, what="free memory, with its reason")
    queue.workers.ask("alone", WorkerWish.RESTART)
    assert worker.wait(START_SECONDS) == RESTART_STATUS
    assert queue.workers.list() == []
