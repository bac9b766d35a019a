"""A worker whose device fails records it, ends, and leaves the task to the next one. Real processes, real model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backend.core.domain import EventType, TaskStatus
from backend.worker.stop import DEVICE_FAILED_STATUS
from backend.worker.supervisor import Supervisor, SupervisorStatus
from tests.support.server import wait_for
from tests.worker.conftest import START_SECONDS, Queue

pytestmark = pytest.mark.timeout(900)  # several process starts in one test, on a busy machine


def test_a_failed_device_ends_the_worker_and_the_task_goes_on_in_a_new_one(
    queue: Queue, supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = queue.submit()
    with monkeypatch.context() as first_worker_only:
        first_worker_only.setenv("WAN22_FAULTS", "denoise.step:3=illegal")
        supervisor = supervise()
        first = queue.wait_denoising(task.id)
    done = queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert done.attempt == 2
    assert done.worker_id != first.id
    (lost,) = [event for event in queue.events.of_task(task.id) if event.type is EventType.ATTEMPT_LOST]
    assert lost.data["reason"] == "A calculation on the device reached outside its memory"
    assert "its device failed" in (supervisor.state.reason or "")
    assert task.id in (supervisor.state.reason or "")
    assert (supervisor.state.status, supervisor.state.restarts) == (SupervisorStatus.RUNNING, 1)
    assert queue.videos() == [f"{task.id}.mp4"]


def test_an_attempt_without_progress_that_is_the_last_fails_with_the_error_of_the_device(queue: Queue) -> None:
    task = queue.submit(max_attempts=1)
    waiting = queue.submit()
    worker = queue.start_worker("first", WAN22_FAULTS="denoise.step:1=ecc")
    assert worker.wait(START_SECONDS) == DEVICE_FAILED_STATUS
    failed = queue.tasks.get(task.id)
    assert (failed.status, failed.error_code) == (TaskStatus.FAILED, "device_memory_fault")
    assert "while it denoised" in (failed.error_message or "")
    assert failed.error_actions == ({"action": "resubmit", "changes": {}},)
    assert queue.tasks.get(waiting.id).status is TaskStatus.PENDING


def test_an_error_that_the_device_survives_ends_the_task_alone(queue: Queue) -> None:
    doomed = queue.submit()
    healthy = queue.submit()
    worker = queue.start_worker("first", WAN22_FAULTS="denoise.step:1=kernel")
    failed = queue.wait_status(doomed.id, TaskStatus.FAILED)
    assert failed.error_code == "device_no_kernel"
    queue.wait_status(healthy.id, TaskStatus.COMPLETED)
    assert worker.poll() is None
    wait_for(lambda: queue.worker("first").state == "idle", seconds=START_SECONDS, what="an idle worker")
