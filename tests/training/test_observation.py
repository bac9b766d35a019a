"""The image analysis recognises what a clip shows and nothing that it does not show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.evaluation.scores import Scores, likeness
from training.world.observation import UNCLEAR, Frames, ObservedScene, observe, saturation, travel
from training.world.scenes import SHAPES, Scene, all_scenes, render

STILL = Scene("red", "square", "staying still", "black")


def frames_of(scene: Scene, seed: int = 0) -> Frames:
    pixels = render(scene, np.random.default_rng(seed)).pixels
    return np.round((pixels + 1) * 127.5).astype(np.uint8).transpose(1, 2, 3, 0)


def test_rendered_clips_are_recognised_in_every_aspect() -> None:
    scores = Scores()
    scenes = all_scenes()
    for index in range(0, len(scenes), 11):
        scores.add(scenes[index], observe(frames_of(scenes[index], seed=index)))
    assert scores.count > 100
    assert not scores.mistakes
    assert scores.share("everything") == 1.0
    assert min(scores.outlines) > 0.93


@pytest.mark.parametrize(
    ("aspect", "other"),
    [("colour", "orange"), ("shape", "circle"), ("motion", "spinning"), ("background", "navy")],
)
def test_a_clip_that_differs_in_one_aspect_is_wrong_in_that_aspect_alone(aspect: str, other: str) -> None:
    scores = Scores()
    scores.add(STILL, observe(frames_of(replace(STILL, **{aspect: other}))))
    assert [mistake[0] for mistake in scores.mistakes] == [aspect]
    assert scores.right["everything"] == 0


def test_an_empty_clip_has_a_background_and_no_shape() -> None:
    empty = np.full((17, 96, 96, 3), (12, 12, 16), dtype=np.uint8)
    assert observe(empty) == ObservedScene(UNCLEAR, UNCLEAR, UNCLEAR, "black")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_with_a_dent_or_a_bulge_loses_its_outline(shape: str) -> None:
    clip = frames_of(replace(STILL, shape=shape), seed=3)
    rows, columns = np.nonzero((clip[0] == clip[0].reshape(-1, 3).max(axis=0)).all(axis=-1))
    perfect, centre = observe(clip).outline, (int(rows.mean()), int(columns.mean()))
    dented, bulging = clip.copy(), clip.copy()
    dented[:, rows.min() : rows.min() + 14, centre[1] - 7 : centre[1] + 7] = clip[0, 0, 0]
    bulging[:, centre[0] - 5 : centre[0] + 5, columns.max() : columns.max() + 12] = clip[0, rows[0], columns[0]]
    assert perfect > 0.93
    assert observe(dented).outline < min(0.9, perfect - 0.05)
    assert observe(bulging).outline < perfect - 0.04


def test_a_changing_background_is_unclear() -> None:
    clip = np.concatenate([frames_of(STILL)[:9], frames_of(replace(STILL, background="teal"))[:8]])
    assert observe(clip).background == UNCLEAR


def test_noise_is_unclear() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (17, 96, 96, 3), dtype=np.uint8)
    assert observe(noise).shape == UNCLEAR
    assert observe(noise).colour == UNCLEAR


def test_frozen_and_reversed_motions_are_recognised_as_such() -> None:
    clip = frames_of(replace(STILL, motion="moving right"))
    assert observe(np.repeat(clip[8:9], 17, axis=0)).motion == "staying still"
    assert observe(clip[::-1]).motion == "moving left"
    assert observe(frames_of(replace(STILL, motion="growing"))[::-1]).motion == "shrinking"


def test_a_flickering_square_does_not_spin() -> None:
    turned, straight = frames_of(replace(STILL, motion="spinning"))[6], frames_of(STILL)[0]
    clip = np.stack([turned if index % 2 else straight for index in range(17)])
    assert observe(clip).motion != "spinning"


def test_likeness_is_the_peak_signal_to_noise_ratio() -> None:
    image = frames_of(STILL)[0]
    assert likeness(image, image) == float("inf")
    # An error of one level everywhere: 20 log10(255).
    assert likeness(np.full_like(image, 100), np.full_like(image, 101)) == pytest.approx(48.13, abs=0.01)


def test_travel_and_saturation_measure_what_their_names_promise() -> None:
    moving = replace(STILL, motion="moving down")
    down = travel(frames_of(moving))
    assert 0.3 < down.imag < 0.5
    assert abs(down.real) < 0.02
    sunk = render(STILL, np.random.default_rng(0), drift=0.6).pixels
    frames = np.round((sunk + 1) * 127.5).astype(np.uint8).transpose(1, 2, 3, 0)
    assert travel(frames).imag == pytest.approx(0.3, abs=0.02)
    assert saturation(np.full((17, 8, 8, 3), (200, 50, 50), dtype=np.uint8)) == pytest.approx(150 / 255)
    assert saturation(np.full((17, 8, 8, 3), 90, dtype=np.uint8)) == 0.0
