"""The whole recipe in small, and the embedded model as it is: both open with the stock pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from training import card, contact_sheet, folder
from training.experts import BOUNDARY, FLOW_SHIFT, NoiseLevels
from training.judge import judge
from training.scores import Scores, Settings
from training.split import held_out
from training.train import Place, Recipe, train

TINY = Recipe(autoencoder_steps=2, clips=8, spinning_clips=8, common_steps=2, high_steps=2, low_steps=2, batch=2)
#: A folder of this size can travel in a package.
MOST_BYTES = 15_000_000


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # Threads of one process wait for each other; next to other tests one is faster than two.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_the_recipe_in_small_gives_a_folder_that_runs(tmp_path: Path) -> None:
    out = tmp_path / "model"
    size = train(TINY, Place(work=tmp_path / "work", out=out, compiled=False))
    assert 0 < size < MOST_BYTES
    settings = Settings(steps=2, frames=5)
    scores, clips, seconds = judge(folder.load(out), held_out()[:1], settings)
    assert clips[0].shape == (5, 96, 96, 3)
    card.write(out, scores, settings, seconds)
    text = (out / folder.CARD).read_text()
    assert text.startswith("---\nlicense: apache-2.0")
    assert "| foreground colour |" in text


def test_the_contact_sheet_holds_every_caption(tmp_path: Path) -> None:
    clips = [np.full((17, 96, 96, 3), 80, dtype=np.uint8)] * 12
    contact_sheet.draw(held_out()[:12], clips, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_noise_levels_stay_on_their_side_of_the_boundary() -> None:
    rng = np.random.default_rng(0)
    high = NoiseLevels(low=BOUNDARY).draw(500, rng)
    low = NoiseLevels(high=BOUNDARY).draw(500, rng)
    assert high.min() >= BOUNDARY
    assert high.max() <= 1.0
    assert low.max() <= BOUNDARY
    assert low.min() < 0.1


def test_the_embedded_model_is_what_its_card_says() -> None:
    size = sum(path.stat().st_size for path in folder.MODEL_FOLDER.rglob("*") if path.is_file())
    assert size < MOST_BYTES
    pipeline = folder.load(folder.MODEL_FOLDER)
    assert pipeline.config.boundary_ratio == BOUNDARY
    assert pipeline.scheduler.config.flow_shift == FLOW_SHIFT
    parts = (pipeline.text_encoder, pipeline.vae, pipeline.transformer, pipeline.transformer_2)
    assert {part.dtype for part in parts} == {torch.float32}
    scores, _, _ = judge(pipeline, held_out()[:3], Settings())
    assert isinstance(scores, Scores)
    assert scores.right["colour"] == scores.right["background"] == 3
    assert scores.right["motion"] >= 2
