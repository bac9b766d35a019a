"""A copy without tags: the same frames, nothing about how they were made, and nothing left behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import av
import numpy as np
import pytest

from backend.core.errors.lookups import OutputFileMissing
from backend.services.media.untagged import untagged
from backend.services.media.video_encoder import read_frames, read_metadata
from tests.services.media.test_video_encoder import encode, noise


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_the_frames_are_the_same_and_the_record_is_gone(temporary: Path, tmp_path: Path) -> None:
    clip, copy = tmp_path / "take:2.mp4", tmp_path / "copy.mp4"
    encode(clip, noise(64, 48), fps=12.5)
    assert read_metadata(clip) == {"hello": "world"}
    size, content = untagged(clip)
    copy.write_bytes(b"".join(content))
    assert copy.stat().st_size == size
    assert read_metadata(copy) is None
    assert b"hello" not in copy.read_bytes()
    assert b"Lavf" not in copy.read_bytes()
    for before, after in zip(read_frames(clip), read_frames(copy), strict=True):
        assert np.array_equal(before, after)
    with av.open(str(clip)) as first, av.open(str(copy)) as second:
        ours, theirs = (one.streams.video[0] for one in (first, second))
        assert (ours.average_rate, ours.frames) == (theirs.average_rate, theirs.frames)
    assert copy.read_bytes().index(b"moov") < copy.read_bytes().index(b"mdat")  # it plays before it has come whole
    assert list(temporary.iterdir()) == []


def test_what_is_no_video_is_refused_and_leaves_nothing(temporary: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"no video")
    with pytest.raises(OutputFileMissing):
        untagged(clip)
    assert list(temporary.iterdir()) == []


def test_a_copy_that_nobody_reads_to_its_end_is_removed(temporary: Path, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    encode(clip, noise(64, 48))
    _, content = untagged(clip)
    assert next(content)
    content.close()  # type: ignore[attr-defined]
    assert list(temporary.iterdir()) == []
