"""Copies of a clip: what is in them, and names that FFmpeg would read as an address."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.core.errors.lookups import OutputFileMissing
from backend.core.errors.requests import InvalidRequest
from backend.services.media.copies import enlarge, frame_rate, save_gif, stills
from backend.services.media.video_encoder import read_frames, read_metadata
from tests.services.media.test_video_encoder import encode, noise

NAMES = ["clip.mp4", "take:2.mp4", "50%20off?.mp4", "http:x.mp4"]


@pytest.fixture(params=NAMES)
def clip(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path(request.param)
    encode(path, noise(64, 48), fps=12.5)
    return path


def test_a_gif_has_every_frame_and_the_speed_of_the_clip(clip: Path, tmp_path: Path) -> None:
    with Image.open(save_gif(clip, tmp_path / "clip.gif")) as gif:
        assert (gif.size, gif.n_frames) == ((64, 48), 9)
        assert (gif.info["duration"], gif.info["loop"]) == (80, 0)


def test_an_enlarged_clip_shows_the_same_and_says_so(clip: Path) -> None:
    before = list(read_frames(clip))
    assert enlarge(clip, 3) == (192, 144)
    after = [np.asarray(Image.fromarray(frame).resize((64, 48), Image.Resampling.BOX)) for frame in read_frames(clip)]
    assert len(after) == len(before)
    assert np.abs(np.stack(after).astype(int) - np.stack(before)).mean() < 8
    assert read_metadata(clip) == {"hello": "world", "enlarged": {"factor": 3, "method": "lanczos"}}
    assert frame_rate(clip) == 12.5


def test_stills_reach_from_the_first_frame_to_the_last(clip: Path) -> None:
    frames = list(read_frames(clip))
    for shown, at in zip(stills(clip, 3, 48), (0, 4, 8), strict=True):
        assert np.array_equal(shown, frames[at])


def test_what_is_no_video_or_too_large_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video")
    for refused in (lambda: save_gif(text, tmp_path / "text.gif"), lambda: enlarge(text, 2), lambda: frame_rate(text)):
        with pytest.raises(OutputFileMissing):
            refused()
    assert not (tmp_path / "text.gif").exists()
    wide = tmp_path / "wide.mp4"
    encode(wide, np.zeros((1, 32, 1024, 3), np.uint8))
    kept = wide.read_bytes()
    with pytest.raises(InvalidRequest, match="larger than"):
        enlarge(wide, 8)
    assert wide.read_bytes() == kept
