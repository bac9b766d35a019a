"""Frames of a video as one picture: which, how many, where."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.core.errors.lookups import OutputFileMissing
from backend.services.media.spritesheet import COLUMNS, MAX_TILES, TILE_SIDE, chosen_frames, spritesheet
from backend.services.media.video_encoder import VideoEncoder


def clip(path: Path, frames: int, width: int = 64, height: int = 48) -> Path:
    with VideoEncoder(path, width, height, 8.0) as encoder:
        greys = np.arange(frames, dtype=np.uint8)[:, None, None, None] * 3
        encoder.write(np.broadcast_to(greys, (frames, height, width, 3)).copy())
        encoder.finish()
    return path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


@pytest.mark.parametrize("frames", [1, 2, 5, 24, 25, 26, 81, 241])
def test_the_tiles_are_spread_from_the_first_frame_to_the_last(frames: int) -> None:
    chosen = chosen_frames(frames)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(frames, MAX_TILES)
    assert (chosen[0], chosen[-1]) == (0, frames - 1)


def test_every_tile_shows_its_frame(tmp_path: Path) -> None:
    sheet = Image.open(spritesheet(clip(tmp_path / "a.mp4", 81), 81, tmp_path / "a.jpg"))
    assert sheet.size == (COLUMNS * 64, MAX_TILES // COLUMNS * 48)
    for tile, frame in enumerate(chosen_frames(81)):
        row, column = divmod(tile, COLUMNS)
        shade = np.asarray(sheet.crop((column * 64 + 8, row * 48 + 8, column * 64 + 56, row * 48 + 40))).mean()
        assert abs(shade - frame * 3) < 6, frame


def test_a_short_clip_has_a_small_picture_and_a_large_one_small_tiles(tmp_path: Path) -> None:
    short = spritesheet(clip(tmp_path / "a.mp4", 1), 1, tmp_path / "a.jpg")
    wide = spritesheet(clip(tmp_path / "b.mp4", 2, 640, 320), 2, tmp_path / "b.jpg")
    assert [size_of(short), size_of(wide)] == [(64, 48), (2 * TILE_SIDE, TILE_SIDE // 2)]


def test_the_picture_is_made_again_when_the_video_is_newer(tmp_path: Path) -> None:
    video, kept = clip(tmp_path / "a.mp4", 5), tmp_path / "a.jpg"
    first = spritesheet(video, 5, kept).read_bytes()
    kept.write_bytes(b"kept")
    assert spritesheet(video, 5, kept).read_bytes() == b"kept"
    later = kept.stat().st_mtime + 5
    os.utime(video, (later, later))
    assert spritesheet(video, 5, kept).read_bytes() == first


def test_a_damaged_video_leaves_no_picture(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"no video")
    with pytest.raises(OutputFileMissing):
        spritesheet(video, 5, tmp_path / "a.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4"]
