"""Leftovers of dead attempts are removed; files still in use stay."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from backend.core.errors.generation import OutOfMemory
from backend.worker.leftovers import Leftovers
from tests.store.samples import claimed, output_of
from tests.worker.conftest import Queue


@pytest.fixture
def leftovers(queue: Queue) -> Leftovers:
    return Leftovers(queue.home, queue.tasks, queue.outputs)


def litter(queue: Queue, task_id: str) -> None:
    """Write the files of a running attempt."""
    queue.home.state_of(task_id).mkdir(parents=True)
    (queue.home.state_of(task_id) / "step-0004.safetensors").write_bytes(b"state")
    queue.home.preview_of(task_id).write_bytes(b"jpeg")
    for name in (f"{task_id}.0a1b.mp4.part", f"{task_id}_thumb.jpg.0a1b.part"):
        (queue.home.outputs / name).write_bytes(b"half")


def test_a_sweep_keeps_what_a_running_attempt_needs(queue: Queue, leftovers: Leftovers) -> None:
    running, waiting = queue.submit(), queue.submit()
    claimed(queue.tasks)
    litter(queue, running.id)
    litter(queue, waiting.id)
    (queue.home.outputs / "unknown.mp4.part").write_bytes(b"half")
    leftovers.sweep()
    assert all(name.startswith(running.id) for name in queue.leftovers())
    assert len(queue.leftovers()) == 3
    assert queue.states(running.id) == [4]
    assert queue.states(waiting.id) == [4], "its next attempt goes on from there"


def test_states_are_removed_when_their_task_has_ended(queue: Queue, leftovers: Leftovers) -> None:
    done, failed, cancelled, waiting = (queue.submit() for _ in range(4))
    for task in (done, failed, cancelled, waiting):
        litter(queue, task.id)
    queue.home.state_of("unknown").mkdir(parents=True)
    queue.tasks.complete(done.id, claimed(queue.tasks)[1], output_of(done.id))
    queue.tasks.fail(failed.id, claimed(queue.tasks)[1], OutOfMemory())
    queue.tasks.request_cancel(cancelled.id)
    leftovers.sweep_work()
    assert [path.name for path in queue.home.work.iterdir()] == [waiting.id]
    assert queue.states(waiting.id) == [4]
    assert not queue.home.preview_of(waiting.id).exists()


def test_states_of_failed_and_cancelled_tasks_are_kept_for_a_time_and_until_they_are_deleted(queue: Queue) -> None:
    keeping = Leftovers(queue.home, queue.tasks, queue.outputs, keep_seconds=3600.0)
    failed, cancelled, done, deleted = (queue.submit() for _ in range(4))
    for task in (failed, cancelled, done, deleted):
        litter(queue, task.id)
    queue.tasks.fail(failed.id, claimed(queue.tasks)[1], OutOfMemory())
    for task in (cancelled, deleted):
        queue.tasks.request_cancel(task.id)
    queue.tasks.complete(done.id, claimed(queue.tasks)[1], output_of(done.id))
    queue.tasks.delete(deleted.id)
    keeping.sweep_work()
    assert {path.name for path in queue.home.work.iterdir()} == {failed.id, cancelled.id}
    assert [queue.states(task.id) for task in (failed, cancelled)] == [[4], [4]]
    with queue.database.begin() as connection:
        connection.execute(text("UPDATE tasks SET completed_at = completed_at - 3601"))
    keeping.sweep_work()
    assert list(queue.home.work.iterdir()) == []


def test_a_sweep_removes_unrecorded_videos(queue: Queue, leftovers: Leftovers) -> None:
    done, failed, waiting = queue.submit(), queue.submit(), queue.submit()
    for task in (done, failed, waiting):
        queue.home.video_of(task.id).write_bytes(b"video")
        queue.home.thumbnail_of(task.id).write_bytes(b"jpeg")
        queue.home.latents_of(task.id).write_bytes(b"latents")
    (queue.home.outputs / "holiday.mp4").write_bytes(b"the user's own")
    queue.tasks.complete(done.id, claimed(queue.tasks)[1], output_of(done.id))
    queue.tasks.fail(failed.id, claimed(queue.tasks)[1], OutOfMemory())
    leftovers.sweep()
    assert queue.videos() == sorted([f"{done.id}.mp4", f"{waiting.id}.mp4", "holiday.mp4"])
    assert queue.home.thumbnail_of(done.id).exists()
    assert not queue.home.thumbnail_of(failed.id).exists()
    assert queue.home.latents_of(done.id).exists()
    assert not queue.home.latents_of(failed.id).exists()


def test_removing_a_tasks_leftovers_spares_its_next_attempt(queue: Queue, leftovers: Leftovers) -> None:
    task = queue.submit()
    _, token = claimed(queue.tasks)
    litter(queue, task.id)
    leftovers.remove(task.id)
    assert len(queue.leftovers()) == 3
    queue.tasks.release(task.id, token)
    leftovers.remove(task.id)
    assert queue.leftovers() == []
    assert queue.states(task.id) == [4]
