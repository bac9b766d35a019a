"""What a round of the janitor deletes, copies and adds, on a real home."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from backend.core.catalogue.table import MODELS
from backend.core.domain import EventType, Phase, TaskStatus, new_task_id
from backend.core.paths import Home
from backend.core.record import RunRecord, RunResult
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.core.requests.rules import resolve_request
from backend.core.settings import Settings, load_settings
from backend.models.lora.library import LoraLibrary
from backend.services.foreign.gallery_import import ClipImport
from backend.services.media.images import InputStore
from backend.services.media.placeholder import placeholder_of
from backend.services.media.video_encoder import VideoEncoder
from backend.services.system import found_videos
from backend.services.system.found_videos import Found, FoundVideos
from backend.services.system.janitor import Janitor
from backend.services.system.placeholders import Placeholders
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.gallery.listing import GalleryListing
from backend.store.gallery.marks import GalleryMarks
from backend.store.gallery.outputs import OutputStore
from backend.store.sqlite_file import indexes_differ
from backend.store.tasks import TaskStore
from backend.store.upkeep.adoption import VideoRegister
from tests.store.samples import claimed, submit
from tests.support.server import wait_for

FRAMES = 5


@dataclass
class Keeper:
    """A home, its database, and the janitor of a server on it."""

    home: Home
    database: Database
    settings: Settings

    def __post_init__(self) -> None:
        self.tasks, self.outputs = TaskStore(self.database), OutputStore(self.database, self.home)
        self.images = InputStore(self.home, self.settings.keep_uploads_hours * 3600)
        self.videos = FoundVideos(self.home, VideoRegister(self.database))
        self.gallery = GalleryListing(self.database)
        draw = Placeholders(self.home, self.gallery, GalleryMarks(self.database)).draw
        clips = ClipImport(self.home, VideoRegister(self.database), self.outputs, self.images, LoraLibrary(self.home))
        work = self._prune, self._empty, draw, clips.tidy
        self.janitor = Janitor(self.settings, self.home, self.database, self.tasks, self.videos, *work)

    def _empty(self, days: float, stopping: Callable[[], bool]) -> int:
        return 0  # the trash has tests of its own

    def _prune(self) -> int:
        return self.images.prune(self.tasks.images_in_use)


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Keeper]:
    settings = load_settings(home=tmp_path / "home")
    home = settings.paths.create()
    database = Database(settings.database)
    database.migrate()
    yield Keeper(home, database, settings)
    database.close()


def request_of(**changes: object) -> GenerationRequest:
    draft = RequestDraft(prompt="a red circle", seed=7, width=64, height=64, num_frames=FRAMES)
    return replace(resolve_request(MODELS["tiny-t2v-a14b"], draft)[0], **changes)


def make_video(path: Path, task_id: str, request: GenerationRequest) -> RunRecord:
    """Write a video as a worker does, with its record in it."""
    result = RunResult(
        frames=FRAMES, frames_sha256="0" * 64, seconds={Phase.LOAD: 1.5, Phase.MUX: 2.0}, warnings=("the clip is flat",)
    )
    record = RunRecord.of(task_id, request, result, device="cpu", weights_sha256="1" * 64, libraries={"torch": "2"})
    with VideoEncoder(path, 64, 64, request.fps) as encoder:
        encoder.write(np.full((FRAMES, 64, 64, 3), 200, np.uint8))
        encoder.finish(record.to_json())
    return record


def make_old(path: Path, hours: float) -> None:
    moment = time.time() - hours * 3600
    os.utime(path, (moment, moment))


def test_videos_without_a_placeholder_get_one_from_their_thumbnail(keeper: Keeper) -> None:
    with_picture, without = new_task_id(), new_task_id()
    for task_id in (with_picture, without):
        make_video(keeper.home.video_of(task_id), task_id, request_of())
    keeper.videos.adopt()
    keeper.home.thumbnail_of(without).unlink()
    assert [item.placeholder for item in keeper.gallery.of([with_picture, without])] == [None, None]
    assert keeper.janitor.sweep().drawn == 1
    drawn, none = keeper.gallery.of([with_picture, without])
    assert drawn.placeholder == placeholder_of(keeper.home.thumbnail_of(with_picture))
    assert none.placeholder is None
    assert keeper.janitor.sweep().drawn == 0
    assert keeper.gallery.undrawn(10) == []


def test_an_unknown_video_is_added_from_its_record(keeper: Keeper) -> None:
    task_id, request = new_task_id(), request_of()
    path = keeper.home.video_of(task_id)
    record = make_video(path, task_id, request)
    make_old(path, 48)
    assert keeper.videos.adopt() == Found((task_id,), ())
    output = keeper.outputs.get(task_id)
    assert (output.width, output.height, output.num_frames, output.fps) == (64, 64, FRAMES, request.fps)
    assert output.size_bytes == path.stat().st_size
    assert output.generation_seconds == 3.5
    assert output.warnings == ("the clip is flat",)
    assert output.metadata == record.to_json()
    assert output.created_at is not None
    assert abs(output.created_at.timestamp() - path.stat().st_mtime) < 0.01
    assert keeper.home.thumbnail_of(task_id).read_bytes()[:2] == b"\xff\xd8"
    task = keeper.tasks.get(task_id)
    assert (task.status, task.model, task.progress) == (TaskStatus.COMPLETED, request.model, 1.0)
    assert GenerationRequest.from_json(task.request) == request
    (event,) = EventLog(keeper.database).of_task(task_id)
    assert (event.type, event.number) == (EventType.COMPLETED, 1)
    assert keeper.videos.adopt() == Found(), "it is known now"
    keeper.outputs.delete(task_id)
    assert keeper.videos.adopt() == Found()


def test_a_waiting_task_whose_video_is_finished_is_completed(keeper: Keeper) -> None:
    """As after a restoration: the copy knows the task as waiting, and a worker finished it later."""
    waiting, running, failed = submit(keeper.tasks), submit(keeper.tasks), submit(keeper.tasks)
    with keeper.database.begin() as connection:
        change = text("UPDATE tasks SET priority = -1 WHERE id = :id")
        connection.execute(change, {"id": waiting.id})
    claimed(keeper.tasks)
    keeper.tasks.request_cancel(failed.id)
    for task in (waiting, running, failed):
        make_video(keeper.home.video_of(task.id), task.id, GenerationRequest.from_json(task.request))
    assert keeper.videos.adopt().added == (waiting.id,)
    assert keeper.tasks.get(waiting.id).status is TaskStatus.COMPLETED
    assert keeper.outputs.get(waiting.id).num_frames == FRAMES
    numbers = [event.number for event in EventLog(keeper.database).of_task(waiting.id)]
    assert numbers == [1, 2, 3]
    assert keeper.tasks.get(running.id).status is TaskStatus.PROCESSING
    assert keeper.tasks.get(failed.id).status is TaskStatus.CANCELLED


def test_a_folder_of_videos_is_gone_through_page_by_page(keeper: Keeper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(found_videos, "PAGE_ROWS", 2)
    known, *unknown = (new_task_id() for _ in range(5))
    make_video(keeper.home.video_of(known), known, request_of())
    keeper.videos.adopt()
    for task_id in unknown:
        make_video(keeper.home.video_of(task_id), task_id, request_of())
    assert set(keeper.videos.adopt().added) == set(unknown)
    assert len(keeper.outputs.list()) == 5


def test_files_that_are_not_the_video_of_their_task_are_left_alone(keeper: Keeper) -> None:
    other, broken, foreign = new_task_id(), new_task_id(), new_task_id()
    make_video(keeper.home.outputs / "holiday.mp4", new_task_id(), request_of())
    make_video(keeper.home.video_of(other), new_task_id(), request_of())
    keeper.home.video_of(broken).write_bytes(b"no video")
    with VideoEncoder(keeper.home.video_of(foreign), 64, 64, 8.0) as encoder:
        encoder.write(np.zeros((FRAMES, 64, 64, 3), np.uint8))
        encoder.finish({"product": "another", "task_id": foreign})
    before = sorted(path.name for path in keeper.home.outputs.iterdir())
    found = keeper.videos.adopt()
    assert found.added == ()
    assert set(found.unreadable) == {other, broken, foreign}
    assert keeper.outputs.list() == []
    assert sorted(path.name for path in keeper.home.outputs.iterdir()) == before
    assert "3 videos in `outputs` are in no list" in keeper.videos.faults()[0]


def test_03_an_upload_that_no_task_uses_goes_after_its_age(keeper: Keeper) -> None:
    used, orphan, fresh = (keeper.images.keep(np.full((64, 64, 3), shade, np.uint8)).id for shade in (10, 20, 30))
    task = submit(keeper.tasks)
    with keeper.database.begin() as connection:
        change = text("UPDATE tasks SET request = :request WHERE id = :id")
        request = f'{{"prompt": "x", "image": "{used}"}}'
        connection.execute(change, {"request": request, "id": task.id})
    for image in (used, orphan):
        make_old(keeper.home.input_of(image), 1.1)
    assert keeper.janitor.sweep().images == 1
    assert {path.stem for path in keeper.home.inputs.iterdir()} == {used, fresh}


def test_unfinished_files_and_forgotten_work_go_but_not_those_of_running_and_waiting_tasks(keeper: Keeper) -> None:
    running, waiting, ended = (submit(keeper.tasks) for _ in range(3))
    claimed(keeper.tasks)
    keeper.tasks.request_cancel(ended.id)
    home = keeper.home
    home.backups.mkdir()
    stale = [
        home.outputs / f"{ended.id}.0a1b.mp4.part",
        home.inputs / "abc.png.0a1b.part",
        home.loras / "mine.safetensors.0a1b.part",
        home.backups / "wan22-20260101T000000Z.db.0a1b.part",
        home.backups / "wan22-20260101T000000Z.db.0a1b.part-journal",
        home.root / "wan22.db.restored.part",
    ]
    kept = [home.outputs / f"{running.id}.0a1b.mp4.part", home.models / "m.part", home.outputs / "partial.mp4"]
    for path in (*stale, *kept):
        path.write_bytes(b"half")
        make_old(path, 25)
    fresh = home.inputs / "new.png.0a1b.part"
    fresh.write_bytes(b"half")
    for task_id in (running.id, waiting.id, ended.id, "unknown"):
        home.state_of(task_id).mkdir(parents=True)
        make_old(home.work_of(task_id), 8 * 24)
    home.state_of("recent").mkdir(parents=True)
    assert keeper.janitor.sweep().files == len(stale) + 1
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in (*kept, fresh))
    assert {path.name for path in home.work.iterdir()} == {running.id, waiting.id, ended.id, "recent"}
    keeper.settings = keeper.settings.model_copy(update={"keep_states_hours": 0.0})
    keeper.__post_init__()
    assert keeper.janitor.sweep().files == 1, "a cancelled task keeps its states only as long as it can be retried"
    assert {path.name for path in home.work.iterdir()} == {running.id, waiting.id, "recent"}


def test_the_database_is_copied_once_a_day_and_old_copies_go(keeper: Keeper) -> None:
    first = keeper.janitor.sweep().backup
    assert first is not None
    assert keeper.janitor.sweep().backup is None
    copies = keeper.janitor.backups
    (made,) = copies.list()
    for day in range(1, 10):
        made.path.rename(keeper.home.backups / f"wan22-2026010{day}T000000Z.db")
        if day < 9:
            made.path.write_bytes((keeper.home.backups / f"wan22-2026010{day}T000000Z.db").read_bytes())
    assert keeper.janitor.sweep().backup is not None
    assert len(copies.list()) == keeper.settings.backup_copies == 7
    assert copies.list()[-1].path.name == "wan22-20260104T000000Z.db"


def test_damaged_rows_are_found_at_the_start_and_with_each_copy(keeper: Keeper) -> None:
    first, second = submit(keeper.tasks), submit(keeper.tasks)

    def damage(task_id: str) -> None:
        with keeper.database.begin() as connection:
            connection.execute(text("UPDATE tasks SET request = '[' WHERE id = :id"), {"id": task_id})

    damage(first.id)
    keeper.janitor.start()
    wait_for(lambda: keeper.janitor.damaged_rows, what="the damaged row")
    assert [row.split(":")[0] for row in keeper.janitor.damaged_rows] == [f"tasks {first.id}"]
    damage(second.id)
    assert keeper.janitor.sweep().backup is not None
    wait_for(lambda: len(keeper.janitor.damaged_rows) == 2, what="the other damaged row")
    keeper.janitor.stop()


def test_an_index_that_differs_from_its_table_is_made_anew(keeper: Keeper) -> None:
    first, second = submit(keeper.tasks), submit(keeper.tasks)
    keeper.database.checkpoint()
    keeper.database.close()
    file = keeper.home.database
    content = file.read_bytes()
    damaged = first.id[:-1] + ("0" if first.id[-1] != "0" else "1")
    # The last place of the id is its entry in the index of the table's key, or its row: one of them is changed.
    file.write_bytes(damaged.encode().join(content.rsplit(first.id.encode(), 1)))
    assert indexes_differ(file) is not None
    keeper.janitor.start()
    wait_for(lambda: indexes_differ(file) is None, what="new indexes")
    keeper.janitor.stop()
    assert {task.id for task in keeper.tasks.list()} - {damaged} <= {first.id, second.id}
    assert len(keeper.tasks.list()) == 2


def test_a_round_goes_on_after_a_failure_and_names_it(keeper: Keeper) -> None:
    keeper.home.backups.write_text("a file in its place")
    task_id = new_task_id()
    make_video(keeper.home.video_of(task_id), task_id, request_of())
    done = keeper.janitor.sweep()
    assert done.backup is None
    assert done.adopted == 1
    assert done.failures == ("copying the database: The folder of the backups cannot be written: File exists",)
    keeper.home.backups.unlink()
    assert keeper.janitor.sweep().failures == ()


def test_the_thread_adopts_before_it_starts_and_ends_with_the_server(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", janitor_seconds=0.01)
    database = Database(settings.database)
    keeper = Keeper(settings.paths.create(), database, settings)
    database.migrate()
    task_id = new_task_id()
    make_video(keeper.home.video_of(task_id), task_id, request_of())
    keeper.janitor.start()
    assert keeper.videos.added == 1
    wait_for(keeper.janitor.backups.list, what="a copy of the database")
    keeper.janitor.stop()
    assert [thread.name for thread in threading.enumerate() if thread.name == "janitor"] == []
    database.close()
