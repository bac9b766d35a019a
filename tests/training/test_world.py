"""Rendering follows the caption and is deterministic, and held-out captions never reach training."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from training.world import tokenizer
from training.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    FILLERS,
    FRAMES,
    MOTIONS,
    SHAPES,
    SIZE,
    Scene,
    all_scenes,
    render,
)
from training.world.split import SceneSource, held_out, training_scenes


def test_a_clip_depends_on_scene_and_seed_alone() -> None:
    scene = Scene("red", "circle", "moving right", "navy")
    first, again, other = (render(scene, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.pixels.shape == (3, FRAMES, SIZE, SIZE)
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_stay_in_the_frame(shape: str, motion: str) -> None:
    for seed in range(3):
        coverage = render(Scene("red", shape, motion, "black"), np.random.default_rng(seed)).coverage
        border = np.concatenate([coverage[:, 0], coverage[:, -1], coverage[:, :, 0], coverage[:, :, -1]], axis=1)
        assert border.mean() < 0.05
        assert coverage.max(axis=(1, 2)).min() == 1.0


@pytest.mark.parametrize("motion", MOTIONS)
def test_roaming_shapes_start_anywhere_and_stay_in_the_frame(motion: str) -> None:
    scene = Scene("red", "square", motion, "black")
    starts = []
    for seed in range(20):
        coverage = render(scene, np.random.default_rng(seed), roaming=True).coverage
        assert coverage[:, [0, -1]].mean() < 0.05
        assert coverage[:, :, [0, -1]].mean() < 0.05
        rows, columns = np.nonzero(coverage[0] > 0.5)
        starts.append((rows.mean() / SIZE, columns.mean() / SIZE))
    assert np.ptp(starts, axis=0).min() > 0.15


def test_most_captions_are_canonical_and_free_phrasings_name_the_same_things() -> None:
    rng = np.random.default_rng(0)
    scene = Scene("orange", "ring", "growing", "teal")
    phrases = [scene.phrase(rng) for _ in range(400)]
    assert scene.caption == "an orange ring growing on a teal background"
    assert 0.7 < phrases.count(scene.caption) / len(phrases) < 0.9
    assert all(word in text for text in phrases for word in ("orange", "ring", "teal", "background"))


def test_the_held_out_scenes_are_fixed_and_training_still_covers_every_word() -> None:
    hidden, visible = held_out(), training_scenes()
    assert len(hidden) >= 200
    assert hidden == held_out()
    words = "\n".join(f"{one.colour} {one.shape} {one.motion} {one.background}" for one in hidden)
    assert hashlib.sha256(words.encode()).hexdigest()[:16] == "42759a8f79a7e390", "the scores are of these scenes"
    assert hidden[0].caption == "a purple triangle spinning on a teal background"
    assert not set(hidden) & set(visible)
    assert set(hidden) | set(visible) == set(all_scenes())
    assert {scene.colour for scene in visible} == set(COLOURS)
    assert {scene.background for scene in visible} == set(BACKGROUNDS)
    assert {(scene.shape, scene.motion) for scene in visible} == {(s.shape, s.motion) for s in all_scenes()}


def test_training_never_draws_a_held_out_scene() -> None:
    source, hidden = SceneSource(np.random.default_rng(1)), set(held_out())
    assert not any(source.draw() in hidden for _ in range(20_000))
    assert not any(source.draw_spinning() in hidden for _ in range(2_000))
    assert source.draw_spinning().motion == "spinning"


def test_the_tokenizer_knows_every_caption_and_round_trips_it() -> None:
    words = tokenizer.build()
    unknown = words.convert_tokens_to_ids(tokenizer.UNKNOWN)
    rng = np.random.default_rng(2)
    for scene in all_scenes():
        caption = " ".join(word for word in scene.phrase(rng).split() if word not in FILLERS)
        ids = words(caption).input_ids
        assert unknown not in ids
        assert words.decode(ids, skip_special_tokens=True) == caption.replace(",", "")


def test_the_tokenizer_works_with_the_arguments_of_the_stock_pipeline() -> None:
    encoded = tokenizer.build()(
        ["A Red circle, MOVING right!", ""],
        padding="max_length",
        max_length=12,
        truncation=True,
        add_special_tokens=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    assert encoded.input_ids.shape == (2, 12)
    assert encoded.attention_mask.sum(1).tolist() == [6, 1]
    assert encoded.input_ids[1, 0] == 1
    assert encoded.input_ids[0, -1] == 0
    assert tokenizer.build()("a wobbly circle").input_ids[1] == 2
