"""What keeps a video from being kept, with real folders and real disks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from backend.core.paths import Home
from backend.services.system.surroundings import MIN_FREE_BYTES, Surroundings

#: A disk of its own on every Linux machine.
OTHER_DISK = Path("/dev/shm")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "wan").create()


@pytest.fixture
def other_disk() -> Iterator[Path]:
    folder = OTHER_DISK / f"wan22-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The free bytes of every disk."""
    stat = SimpleNamespace(f_bavail=10 * MIN_FREE_BYTES, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda _path: stat)
    return stat


def test_a_usable_home_has_no_fault_and_nothing_is_left_in_it(home: Home) -> None:
    surroundings = Surroundings(home)
    assert (surroundings.fault(), surroundings.refusal()) == (None, None)
    assert [*home.outputs.iterdir(), *home.work.iterdir()] == []


@pytest.mark.parametrize("name", ["outputs", "work", "models"])
def test_a_folder_that_is_gone_is_named_until_it_is_back(home: Home, name: str) -> None:
    surroundings = Surroundings(home)
    folder = home.root / name
    folder.rename(home.root / "elsewhere")
    assert name in (surroundings.refusal() or "")
    (home.root / "elsewhere").rename(folder)
    assert surroundings.refusal() is None


@pytest.mark.parametrize("name", ["outputs", "work"])
def test_a_disk_that_is_not_mounted_any_more_is_not_written_around(home: Home, other_disk: Path, name: str) -> None:
    folder, below = home.root / name, home.root / "below the mount"
    folder.rmdir()
    folder.symlink_to(other_disk)
    surroundings = Surroundings(home)
    assert surroundings.refusal() is None
    below.mkdir()
    folder.unlink()
    folder.symlink_to(below)
    assert surroundings.fault() == f"The disk of the folder `{name}` is not mounted"
    assert list(below.iterdir()) == []
    folder.unlink()
    folder.symlink_to(other_disk)
    assert surroundings.refusal() is None


def test_a_folder_that_takes_no_file_is_found_by_writing(home: Home) -> None:
    surroundings = Surroundings(home)
    home.work.rmdir()
    home.work.symlink_to("/proc/self")  # a folder that even root cannot write to
    assert surroundings.refusal() is not None


def test_a_full_disk_is_a_fault_until_there_is_room(home: Home, free: SimpleNamespace) -> None:
    surroundings = Surroundings(home)
    free.f_bavail = MIN_FREE_BYTES - 1
    assert surroundings.fault() == "The disk is full"
    free.f_bavail = MIN_FREE_BYTES
    assert surroundings.fault() is None


def test_after_a_run_without_room_more_room_or_time_is_needed(home: Home, free: SimpleNamespace) -> None:
    clock = Clock()
    surroundings = Surroundings(home, clock)
    surroundings.ran_out_of_room()
    assert "too little room" in (surroundings.refusal() or "")
    assert surroundings.fault() is None
    free.f_bavail += MIN_FREE_BYTES
    assert surroundings.refusal() is None, "somebody made room"
    surroundings.ran_out_of_room()
    clock.now += 31.0
    assert surroundings.refusal() is not None, "the second pause is longer"
    clock.now += 30.0
    assert surroundings.refusal() is None
    surroundings.had_room()
    surroundings.ran_out_of_room()
    clock.now += 31.0
    assert surroundings.refusal() is None
