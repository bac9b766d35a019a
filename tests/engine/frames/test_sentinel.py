"""What counts as a clip that shows nothing."""

from __future__ import annotations

import numpy as np
import pytest

from backend.engine.frames.sentinel import ClipSentinel, Quality


def warnings_of(frames: np.ndarray) -> tuple[str, ...]:
    return inspect(frames).warnings()


def inspect(frames: np.ndarray) -> ClipSentinel:
    sentinel = ClipSentinel()
    sentinel.see(frames[:1])
    for start in range(1, len(frames), 4):
        sentinel.see(frames[start : start + 4])
    return sentinel


def moving_square(background: int = 20, square: int = 200) -> np.ndarray:
    frames = np.full((9, 48, 48, 3), background, np.uint8)
    for index, frame in enumerate(frames):
        frame[20:30, index * 3 : index * 3 + 10] = square
    return frames


def test_a_moving_shape_is_fine() -> None:
    assert warnings_of(moving_square()) == ()
    assert warnings_of(moving_square(background=12, square=60)) == ()
    assert inspect(moving_square()).quality is Quality.OK


def test_a_single_frame_is_never_frozen() -> None:
    assert warnings_of(moving_square()[:1]) == ()
    assert inspect(moving_square()[:1]).quality is Quality.OK
    assert inspect(np.zeros((1, 48, 48, 3), np.uint8)).quality is Quality.BLACK, "but it can be black"


@pytest.mark.parametrize(
    ("frames", "word"),
    [
        (np.zeros((5, 48, 48, 3), np.uint8), "black"),
        (np.full((5, 48, 48, 3), 8, np.uint8), "black"),
        (np.full((5, 48, 48, 3), 128, np.uint8), "flat"),
        (np.tile(np.array([20, 90, 200], np.uint8), (5, 48, 48, 1)), "flat"),
        (np.repeat(moving_square()[3:4], 9, axis=0), "frozen"),
    ],
)
def test_a_clip_that_shows_nothing_is_reported(frames: np.ndarray, word: str) -> None:
    (warning,) = warnings_of(frames)
    assert word in warning
    assert inspect(frames).quality == word


def test_noise_of_one_level_does_not_hide_a_frozen_clip() -> None:
    frames = np.repeat(moving_square()[3:4], 9, axis=0)
    frames = frames + np.random.default_rng(0).integers(0, 2, frames.shape, dtype=np.uint8)
    assert "frozen" in warnings_of(frames)[0]


def test_changing_plain_colours_are_flat_and_reported_once() -> None:
    frames = np.stack([np.full((48, 48, 3), 20 * i, np.uint8) for i in range(5)])
    assert len(warnings_of(frames)) == 1


def test_no_frames_are_a_warning() -> None:
    assert ClipSentinel().warnings() != ()
