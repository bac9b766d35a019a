"""What dead attempts left goes; what somebody still needs stays."""

from __future__ import annotations

import pytest

from backend.core.errors import OutOfMemory
from backend.worker.leftovers import Leftovers
from tests.store.samples import claimed, output_of
from tests.worker.conftest import Queue


@pytest.fixture
def leftovers(queue: Queue) -> Leftovers:
    return Leftovers(queue.home, queue.tasks, queue.outputs)


def litter(queue: Queue, task_id: str) -> None:
    """Write what a running attempt has on disk."""
    queue.home.preview_of(task_id).parent.mkdir()
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


def test_a_sweep_removes_videos_that_nobody_recorded(queue: Queue, leftovers: Leftovers) -> None:
    done, failed, waiting = queue.submit(), queue.submit(), queue.submit()
    for task in (done, failed, waiting):
        queue.home.video_of(task.id).write_bytes(b"video")
        queue.home.thumbnail_of(task.id).write_bytes(b"jpeg")
    (queue.home.outputs / "holiday.mp4").write_bytes(b"the user's own")
    queue.tasks.complete(done.id, claimed(queue.tasks)[1], output_of(done.id))
    queue.tasks.fail(failed.id, claimed(queue.tasks)[1], OutOfMemory())
    leftovers.sweep()
    assert queue.videos() == sorted([f"{done.id}.mp4", f"{waiting.id}.mp4", "holiday.mp4"])
    assert queue.home.thumbnail_of(done.id).exists()
    assert not queue.home.thumbnail_of(failed.id).exists()


def test_removing_one_tasks_leftovers_spares_its_next_attempt(queue: Queue, leftovers: Leftovers) -> None:
    task = queue.submit()
    _, token = claimed(queue.tasks)
    litter(queue, task.id)
    leftovers.remove(task.id)
    assert len(queue.leftovers()) == 3
    queue.tasks.release(task.id, token)
    leftovers.remove(task.id)
    assert queue.leftovers() == []
