"""How fast a disk reads is measured on a file that is there, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.commands.doctor import MOST_BYTES, SMALLEST, read_speed


class Clock:
    """One second goes by at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def test_the_largest_file_is_read_and_the_bytes_by_the_time_are_the_speed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "small").write_bytes(bytes(SMALLEST))
    (tmp_path / "model" / "large").write_bytes(bytes(3 * SMALLEST))
    # Looks: before the read, after the one part that there is, and at the end.
    assert read_speed(tmp_path, clock=Clock()) == pytest.approx(3 * SMALLEST / 2)
    assert (read_speed(tmp_path) or 0) > 0


def test_a_slow_disk_is_not_read_to_the_end(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(MOST_BYTES)
    # Parts of 8 MiB, one a second, until more than two seconds have gone: three of them, in four seconds.
    assert read_speed(tmp_path, clock=Clock()) == pytest.approx(3 * 8 * 1024**2 / 4)


def test_where_there_is_nothing_to_read_nothing_is_said(tmp_path: Path) -> None:
    assert read_speed(tmp_path) is None
    assert read_speed(tmp_path / "not there") is None
    (tmp_path / "small").write_bytes(b"x")
    assert read_speed(tmp_path) is None
