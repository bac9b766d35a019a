"""What an attempt leaves on disk: everything or nothing, and never another attempt's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.core.errors.generation import GenerationFailed
from backend.core.errors.interruptions import LeaseLost, TaskCancelled
from backend.core.errors.lookups import NotFound
from backend.core.errors.surroundings import StorageFull
from backend.core.files import storage_errors
from backend.core.paths import Home
from backend.services.run.files import AttemptFiles, remove_attempt_files

TASK = "7b1d4c5e-0000-4000-8000-000000000001"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


def files_in(home: Home) -> list[str]:
    return sorted(path.relative_to(home.root).as_posix() for path in home.root.rglob("*") if path.is_file())


def finish(files: AttemptFiles) -> None:
    files.part.write_bytes(b"video")
    files.write_preview(b"preview")
    files.write_thumbnail(b"thumbnail")
    files.publish()


def test_a_finished_attempt_leaves_video_and_thumbnail(home: Home) -> None:
    with AttemptFiles(home, TASK) as files:
        finish(files)
    assert files_in(home) == [f"outputs/{TASK}.mp4", f"outputs/{TASK}_thumb.jpg"]
    assert home.video_of(TASK).read_bytes() == b"video"
    assert not home.work_of(TASK).exists()


@pytest.mark.parametrize("error", [TaskCancelled, GenerationFailed, KeyboardInterrupt])
@pytest.mark.parametrize("published", [False, True])
def test_an_unfinished_attempt_leaves_nothing(home: Home, error: type[BaseException], published: bool) -> None:
    def attempt() -> None:
        with AttemptFiles(home, TASK) as files:
            files.part.write_bytes(b"vid")
            files.write_preview(b"preview")
            files.write_thumbnail(b"thumbnail")
            if published:
                files.publish()
            raise error

    with pytest.raises(error):
        attempt()
    assert files_in(home) == []


def test_an_attempt_that_lost_its_lease_leaves_its_successors_files_alone(home: Home) -> None:
    def zombie() -> None:
        with AttemptFiles(home, TASK) as old:
            old.part.write_bytes(b"old")
            old.write_preview(b"old")
            old.write_thumbnail(b"old")
            with AttemptFiles(home, TASK) as new:
                assert not old.part.exists(), "the successor clears what it finds"
                old.part.write_bytes(b"old, written by a process that knows nothing yet")
                finish(new)
            raise LeaseLost

    with pytest.raises(LeaseLost):
        zombie()
    assert files_in(home) == [f"outputs/{TASK}.mp4", f"outputs/{TASK}_thumb.jpg"]
    assert home.video_of(TASK).read_bytes() == b"video"


def test_a_new_attempt_removes_the_files_of_a_killed_one(home: Home) -> None:
    home.create()
    dead = AttemptFiles(home, TASK)
    dead.part.write_bytes(b"half")
    dead.write_preview(b"old")
    home.video_of(TASK).write_bytes(b"published, but never recorded")
    other = home.outputs / "another-task.0123.mp4.part"
    other.write_bytes(b"somebody else's")
    with AttemptFiles(home, TASK):
        assert files_in(home) == ["outputs/another-task.0123.mp4.part"]


@pytest.mark.parametrize("error", [None, TaskCancelled, LeaseLost, KeyboardInterrupt])
def test_saved_states_outlive_every_attempt(home: Home, error: type[BaseException] | None) -> None:
    state = home.state_of(TASK) / "step-0004.safetensors"
    state.parent.mkdir(parents=True)
    state.write_bytes(b"state")

    def attempt() -> None:
        with AttemptFiles(home, TASK) as files:
            assert files_in(home) == [f"work/{TASK}/state/{state.name}"]
            files.write_preview(b"preview")
            if error is not None:
                raise error

    if error is None:
        attempt()
    else:
        with pytest.raises(error):
            attempt()
    preview = [f"work/{TASK}/preview.jpg"] if error is LeaseLost else []
    assert files_in(home) == [*preview, f"work/{TASK}/state/{state.name}"]


def test_latents_stay_with_a_finished_video_and_are_removed_with_a_failed_one(home: Home) -> None:
    with AttemptFiles(home, TASK) as files:
        files.write_latents(lambda part: part.write_bytes(b"latents"))
        finish(files)
    assert home.latents_of(TASK).read_bytes() == b"latents"

    def failing() -> None:
        with AttemptFiles(home, "other") as files:
            files.write_latents(lambda part: part.write_bytes(b"latents"))
            assert home.latents_of("other").exists()
            raise GenerationFailed

    with pytest.raises(GenerationFailed):
        failing()
    assert not home.latents_of("other").exists()


def test_previews_are_replaced_atomically(home: Home) -> None:
    with AttemptFiles(home, TASK) as files:
        for content in (b"one", b"two"):
            files.write_preview(content)
            assert home.preview_of(TASK).read_bytes() == content
            assert files_in(home) == [f"work/{TASK}/preview.jpg"]


def test_removing_a_tasks_files_leaves_those_of_others(home: Home) -> None:
    with AttemptFiles(home, TASK) as files:
        finish(files)
    with AttemptFiles(home, "other") as files:
        finish(files)
    remove_attempt_files(home, TASK)
    assert files_in(home) == ["outputs/other.mp4", "outputs/other_thumb.jpg"]


def test_a_full_disk_has_its_own_error() -> None:
    with pytest.raises(StorageFull), storage_errors():
        Path("/dev/full").write_text("x")
    with pytest.raises(FileNotFoundError), storage_errors():
        Path("/does/not/exist").read_bytes()


def test_a_task_id_cannot_name_a_path(home: Home) -> None:
    with pytest.raises(NotFound):
        AttemptFiles(home, "../escape")
