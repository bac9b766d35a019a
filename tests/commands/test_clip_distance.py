"""How far two files are apart: against the formula, over frames decoded another way."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from backend.commands.replay import NotComparable, measure_distance
from tests.commands.support import frames_of
from tests.services.media.test_video_encoder import encode, noise


def test_a_file_and_its_copy_are_equal(tmp_path: Path) -> None:
    one, copy = tmp_path / "one.mp4", tmp_path / "copy.mp4"
    encode(one, noise(64, 64))
    copy.write_bytes(one.read_bytes())
    distance = measure_distance(one, copy)
    assert distance.equal
    assert (distance.frames, distance.psnr, distance.worst_psnr) == (9, math.inf, math.inf)


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, other = Path("take:1.mp4"), Path("http:2.mp4")
    encode(one, noise(64, 64))
    encode(other, noise(64, 64))
    assert measure_distance(one, other).equal


def test_the_distance_is_the_formula_and_the_worst_frame_is_found(tmp_path: Path) -> None:
    one, other = tmp_path / "one.mp4", tmp_path / "other.mp4"
    frames = noise(64, 64)
    encode(one, frames)
    frames[6] = 255 - frames[6]
    encode(other, frames)
    distance = measure_distance(one, other)
    error = ((frames_of(one).astype(float) - frames_of(other)) ** 2).mean(axis=(1, 2, 3))
    assert not distance.equal
    assert distance.psnr == pytest.approx(10 * np.log10(255**2 / error.mean()))
    assert distance.worst_frame == 6
    assert distance.worst_psnr == pytest.approx(10 * np.log10(255**2 / error[6]))


def test_clips_of_other_sizes_and_lengths_cannot_be_compared(tmp_path: Path) -> None:
    one, shorter, wider = tmp_path / "one.mp4", tmp_path / "shorter.mp4", tmp_path / "wider.mp4"
    encode(one, noise(64, 64))
    encode(shorter, noise(64, 64)[:5])
    encode(wider, noise(96, 64))
    with pytest.raises(NotComparable, match="numbers of frames"):
        measure_distance(one, shorter)
    with pytest.raises(NotComparable, match="sizes"):
        measure_distance(wider, one)
    with pytest.raises(NotComparable, match="cannot be read"):
        measure_distance(one, tmp_path / "missing.mp4")
