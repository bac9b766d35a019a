"""The number of states kept, and that a reader finds a complete one or none."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.errors.surroundings import StorageFull
from backend.core.paths import Home
from backend.services.run.files import StateFiles


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


def of_size(size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(bytes(size))

    return write


def names(home: Home, task_id: str) -> list[str]:
    return sorted(path.name for path in home.state_of(task_id).glob("*"))


def test_the_newest_two_states_of_a_task_are_kept(home: Home) -> None:
    files = StateFiles(home, "task")
    assert files.newest_first() == []
    for step in (3, 9, 10, 12):
        files.save(step, of_size(10))
    assert names(home, "task") == ["step-0010.safetensors", "step-0012.safetensors"]
    assert [step for step, _ in files.newest_first()] == [12, 10]


def test_an_attempt_that_lost_its_lease_cannot_displace_its_successors_states(home: Home) -> None:
    successor, zombie = StateFiles(home, "task"), StateFiles(home, "task")
    successor.save(20, of_size(10))
    successor.save(21, of_size(10))
    zombie.save(7, of_size(10))
    assert [step for step, _ in successor.newest_first()] == [21, 20]


def test_a_partially_written_state_is_never_visible(home: Home) -> None:
    files = StateFiles(home, "task")
    files.save(1, of_size(10))

    def interrupted(path: Path) -> None:
        path.write_bytes(b"half")
        assert [step for step, _ in files.newest_first()] == [1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.save(2, interrupted)
    assert names(home, "task") == ["step-0001.safetensors"]
    (home.state_of("task") / "step-0003.safetensors.0a1b2c3d.part").write_bytes(b"left by kill -9")
    assert [step for step, _ in files.newest_first()] == [1]


def test_a_full_disk_has_its_own_error_and_keeps_the_older_states(home: Home) -> None:
    files = StateFiles(home, "task")
    files.save(1, of_size(10))

    def full(path: Path) -> None:
        path.write_bytes(b"half")
        with Path("/dev/full").open("wb") as device:
            device.write(b"x")

    with pytest.raises(StorageFull):
        files.save(2, full)
    assert names(home, "task") == ["step-0001.safetensors"]


def test_the_oldest_states_of_all_tasks_make_room_for_a_new_one(home: Home) -> None:
    for age, task_id in ((300, "oldest"), (200, "older"), (100, "young")):
        StateFiles(home, task_id).save(5, of_size(100))
        (path,) = home.state_of(task_id).iterdir()
        stamp = path.stat().st_mtime - age
        os.utime(path, (stamp, stamp))
    StateFiles(home, "new", max_bytes=250).save(1, of_size(100))
    kept = [task_id for task_id in ("oldest", "older", "young", "new") if names(home, task_id)]
    assert kept == ["young", "new"]


def test_a_state_larger_than_the_limit_is_kept_alone(home: Home) -> None:
    StateFiles(home, "other").save(1, of_size(100))
    files = StateFiles(home, "task", max_bytes=50)
    files.save(1, of_size(100))
    files.save(2, of_size(100))
    assert names(home, "task") == ["step-0002.safetensors"]
    assert names(home, "other") == []


def test_a_state_set_aside_is_not_offered_again(home: Home) -> None:
    files = StateFiles(home, "task")
    files.save(1, of_size(10))
    files.save(2, of_size(10))
    files.set_aside(files.newest_first()[0][1])
    assert [step for step, _ in files.newest_first()] == [1]
    assert names(home, "task") == ["step-0001.safetensors", "step-0002.safetensors.set-aside"]
