"""The gallery's rows and files, and the register of workers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from backend.core.errors.lookups import OutputFileMissing, OutputNotFound
from backend.core.paths import Home
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore
from backend.store.tasks import TaskStore
from backend.store.workers import Equipment, WorkerState, WorkerStore, new_worker_id
from tests.store.samples import claimed, output_of, submit


def finish(store: TaskStore, home: Home) -> str:
    task = submit(store)
    _, token = claimed(store)
    home.video_of(task.id).write_bytes(b"video")
    home.thumbnail_of(task.id).write_bytes(b"jpeg")
    store.complete(task.id, token, output_of(task.id))
    return task.id


def test_outputs_are_listed_newest_first(store: TaskStore, database: Database, home: Home) -> None:
    outputs = OutputStore(database, home)
    assert outputs.list() == []
    ids = [finish(store, home) for _ in range(3)]
    assert [output.task_id for output in outputs.list()] == ids[::-1]
    assert [output.task_id for output in outputs.list(limit=1, offset=1)] == [ids[1]]


def test_an_output_reads_back_as_it_was_recorded(store: TaskStore, database: Database, home: Home) -> None:
    task_id = finish(store, home)
    found = OutputStore(database, home).get(task_id)
    assert found.created_at is not None
    expected = output_of(task_id)
    assert (found.filename, found.warnings, found.metadata) == (expected.filename, expected.warnings, expected.metadata)
    assert found.duration_seconds == 17 / 8


def test_videos_are_counted_by_model(store: TaskStore, database: Database, home: Home) -> None:
    outputs = OutputStore(database, home)
    assert outputs.uses() == {}
    ids = [finish(store, home) for _ in range(3)]
    (use,) = outputs.uses().values()
    assert (use.videos, use.mean_seconds) == (3, output_of(ids[0]).generation_seconds)
    assert use.last == outputs.get(ids[-1]).created_at


def test_present_and_missing_files_are_detected(store: TaskStore, database: Database, home: Home) -> None:
    outputs = OutputStore(database, home)
    task_id = finish(store, home)
    with pytest.raises(OutputFileMissing, match="5 bytes instead of 1234"):
        outputs.video_path(task_id)
    home.video_of(task_id).write_bytes(bytes(1234))
    assert outputs.video_path(task_id) == home.video_of(task_id)
    assert outputs.thumbnail_path(task_id).read_bytes() == b"jpeg"
    home.video_of(task_id).unlink()
    with pytest.raises(OutputFileMissing):
        outputs.video_path(task_id)
    assert [output.task_id for output in outputs.list()] == [task_id]
    for call in (outputs.get, outputs.video_path, outputs.thumbnail_path, outputs.delete):
        with pytest.raises(OutputNotFound):
            call("no-such-task")


def test_deleting_an_output_deletes_its_files(store: TaskStore, database: Database, home: Home) -> None:
    outputs = OutputStore(database, home)
    first, second = finish(store, home), finish(store, home)
    outputs.delete(first)
    assert [output.task_id for output in outputs.list()] == [second]
    assert sorted(path.name for path in home.outputs.iterdir()) == [f"{second}.mp4", f"{second}_thumb.jpg"]
    home.video_of(second).unlink()
    outputs.delete(second)  # the file is already gone; the row is deleted anyway
    assert outputs.list() == []


def test_a_worker_signs_on_beats_and_signs_off(database: Database) -> None:
    workers = WorkerStore(database)
    worker_id = new_worker_id()
    workers.beat(worker_id, device="cpu", state=WorkerState.LOADING)
    (first,) = workers.alive(30.0)
    assert (first.id, first.pid, first.device, first.state) == (worker_id, os.getpid(), "cpu", WorkerState.LOADING)
    assert not first.is_dead()
    equipment = Equipment("no card was found", ("Install a driver",), attention="native")
    workers.beat(
        worker_id,
        device="cpu",
        state=WorkerState.BUSY,
        detail="a task\x00",
        model="tiny-t2v-a14b",
        equipment=equipment,
    )
    (second,) = workers.list()
    assert (first.equipment, second.equipment) == (None, equipment)
    assert (second.state, second.detail, second.model) == (WorkerState.BUSY, "a task", "tiny-t2v-a14b")
    assert second.started_at == first.started_at
    assert second.seen_at >= first.seen_at
    assert workers.alive(-1.0) == []
    workers.remove(worker_id)
    assert workers.list() == []


def test_a_worker_whose_process_is_gone_is_dead(database: Database, database_url: str) -> None:
    program = (
        "import sys\n"
        "from backend.store.engine import Database\n"
        "from backend.store.workers import Equipment, WorkerState, WorkerStore\n"
        "WorkerStore(Database(sys.argv[1])).beat('gone', device='cpu', state=WorkerState.IDLE)\n"
    )
    subprocess.run([sys.executable, "-c", program, database_url], check=True)
    (worker,) = WorkerStore(database).list()
    assert worker.id == "gone"
    assert worker.is_dead()


def test_worker_ids_are_unique() -> None:
    assert len({new_worker_id() for _ in range(100)}) == 100
