"""Tasks that are paused, held up and retried while real workers run them: the same bits, and no attempt is lost."""

from __future__ import annotations

import signal

import pytest

from backend.core.domain import EventType, Task, TaskStatus
from backend.store.order import device_scope
from tests.support.server import wait_for
from tests.worker.conftest import START_SECONDS, Queue

pytestmark = pytest.mark.timeout(900)  # several process starts in one test, on a busy machine
STEPS, FRAMES = 32, 17
LONG = {"steps": 50, "frames": 9}  #: of slowed steps, enough for ten pauses on a machine of any speed
PAUSES = 10
SLOWED = {"WAN22_FAULTS": "denoise.step:*=slow"}


def submit(queue: Queue) -> Task:
    return queue.submit(steps=STEPS, frames=FRAMES)


def frames_of(queue: Queue, task: Task) -> str:
    return str(queue.outputs.get(task.id).metadata["result"]["frames_sha256"])


def pass_step(queue: Queue, task: Task, step: int) -> None:
    """Wait until the task has finished a step after this one."""

    def passed() -> bool:
        now = queue.tasks.get(task.id)
        return now.status is TaskStatus.PROCESSING and (now.step or 0) > step

    wait_for(passed, seconds=START_SECONDS, what=f"a step after {step}")


def test_ten_pauses_within_one_clip_change_no_bit_on_whatever_worker(queue: Queue) -> None:
    whole, task = queue.submit(**LONG), queue.submit(**LONG)
    queue.start_worker("a", **SLOWED)
    queue.wait_status(whole.id, TaskStatus.COMPLETED)
    queue.start_worker("b", **SLOWED)
    workers, steps = set(), [0]
    for _ in range(PAUSES):
        pass_step(queue, task, steps[-1])
        workers.add(queue.tasks.get(task.id).worker_id)
        queue.tasks.request_pause(task.id)
        paused = queue.wait_status(task.id, TaskStatus.PAUSED)
        assert (paused.attempt, paused.worker_id, paused.lease_token) == (0, None, None)
        steps.append(max(queue.states(task.id)))
        queue.tasks.resume(task.id)
    done = queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert frames_of(queue, task) == frames_of(queue, whole)
    assert steps == sorted(set(steps)), "every pause came later in the clip than the one before"
    resumed = [
        event.data["message"]
        for event in queue.events.of_task(task.id)
        if event.type is EventType.PROGRESS and event.data["message"].startswith("Resumed")
    ]
    assert resumed == [f"Resumed at step {step} of {LONG['steps']}" for step in steps[1:]], "no finished step ran again"
    assert queue.types(task.id).count(EventType.PAUSED) == PAUSES
    assert done.attempt == 1
    assert workers <= {"a", "b"}
    assert not any(task.id in name for name in queue.leftovers())


def test_a_paused_task_continues_in_another_process_with_the_same_bits(queue: Queue) -> None:
    task, whole = submit(queue), submit(queue)
    first = queue.start_worker("first")
    pass_step(queue, task, 3)
    queue.tasks.request_pause(task.id)
    queue.wait_status(task.id, TaskStatus.PAUSED)
    queue.wait_status(whole.id, TaskStatus.COMPLETED)  # the device is free for others meanwhile
    first.send_signal(signal.SIGTERM)
    assert first.wait(START_SECONDS) == 0
    kept = queue.states(task.id)
    assert max(kept) >= 4
    queue.start_worker("second")
    wait_for(lambda: queue.workers.list(), seconds=START_SECONDS, what="the second worker")
    assert queue.tasks.get(task.id).status is TaskStatus.PAUSED
    assert queue.states(task.id) == kept, "the sweep of a new worker leaves them alone"
    queue.tasks.resume(task.id)
    done = queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert done.worker_id == "second"
    assert frames_of(queue, task) == frames_of(queue, whole)
    assert queue.outputs.get(task.id).metadata["result"]["resumed_from_step"] == max(kept)


def test_a_cancelled_task_that_is_retried_goes_on_from_its_newest_state(queue: Queue) -> None:
    task, whole = submit(queue), submit(queue)
    queue.start_worker("first")
    pass_step(queue, task, 3)
    queue.tasks.request_cancel(task.id)
    queue.wait_status(task.id, TaskStatus.CANCELLED)
    kept = max(queue.states(task.id))
    assert kept >= 4
    queue.wait_status(whole.id, TaskStatus.COMPLETED)
    again = queue.tasks.retry(task.id)
    assert (again.status, again.attempt, again.completed_at) == (TaskStatus.PENDING, 0, None)
    queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert queue.outputs.get(task.id).metadata["result"]["resumed_from_step"] == kept
    assert frames_of(queue, task) == frames_of(queue, whole)
    assert queue.types(task.id).count(EventType.STARTED) == 2


@pytest.mark.parametrize("whole_queue", [True, False])
def test_a_hold_hands_the_running_task_back_and_claims_nothing_until_it_is_lifted(
    queue: Queue, whole_queue: bool
) -> None:
    task = submit(queue)
    queue.start_worker("first")
    pass_step(queue, task, 3)
    worker = queue.worker("first")
    held = {} if whole_queue else {"scope": device_scope(worker.host, worker.device)}
    queue.tasks.hold(**held, interrupts=True)
    back = queue.wait_status(task.id, TaskStatus.PENDING)
    assert (back.attempt, queue.types(task.id)[-1]) == (0, EventType.HELD_UP)
    kept = max(queue.states(task.id))
    seen = queue.worker("first").seen_at
    wait_for(lambda: queue.worker("first").seen_at > seen, seconds=START_SECONDS, what="a worker that goes on living")
    assert queue.tasks.get(task.id).status is TaskStatus.PENDING
    queue.tasks.lift(**held)
    done = queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert done.attempt == 1
    assert queue.outputs.get(task.id).metadata["result"]["resumed_from_step"] == kept
