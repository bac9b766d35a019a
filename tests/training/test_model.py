"""Every recipe at a small scale, and the embedded models: all open with the stock pipelines."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from training.evaluation import card, cases, contact_sheet
from training.evaluation.cases import Case
from training.evaluation.judge import judge, judge_model
from training.evaluation.scores import ENOUGH, Scores
from training.networks.flow import BOUNDARY, FLOW_SHIFT, NoiseLevels
from training.networks.workspace import Workspace
from training.recipes import folder, image_to_video, text_image_to_video, text_to_video
from training.recipes.models import ASSETS, I2V, MODELS, T2V, TI2V, TinyModel

SMALL = {
    T2V.name: (
        text_to_video.train,
        text_to_video.TextToVideoRecipe(
            autoencoder_steps=2, clips=8, spinning_clips=8, common_steps=2, high_steps=2, low_steps=2, batch=2
        ),
    ),
    I2V.name: (
        image_to_video.train,
        image_to_video.ImageToVideoRecipe(clips=8, spinning_clips=8, high_steps=2, low_steps=2, batch=2),
    ),
    TI2V.name: (
        text_image_to_video.train,
        text_image_to_video.TextImageToVideoRecipe(
            autoencoder_steps=2, clips=8, spinning_clips=8, network_steps=2, batch=2
        ),
    ),
}
#: Largest size of one model and of all embedded files together that a package may carry.
MOST_BYTES, MOST_BYTES_TOGETHER = 15_100_000, 40_000_000


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("name", MODELS)
def test_the_scaled_down_recipe_writes_a_folder_that_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = MODELS[name], tmp_path / "model"
    monkeypatch.setattr(TinyModel, "sheet", lambda self, use: tmp_path / f"{use}.png")
    train, recipe = SMALL[name]
    size = train(recipe, Workspace(out, tmp_path / "work", compiled=False))
    assert 0 < size < MOST_BYTES
    judge_model(model, out, 1, replace(model.settings, steps=2, frames=5), dry=False)
    text = (out / folder.CARD).read_text()
    assert text.startswith("---\nlicense: apache-2.0")
    assert "| foreground colour |" in text
    assert ("| first frame with a PSNR of at least 24 dB" in text) == model.from_image
    uses = {
        "text": model.from_text,
        "image": model.from_image,
        "end image": not model.expand_timesteps and model.from_image,
    }
    assert {path.stem for path in tmp_path.glob("*.png")} == {use for use, has in uses.items() if has}


def test_the_contact_sheet_shows_every_kind_of_case(tmp_path: Path) -> None:
    clips = [np.full((17, 96, 96, 3), 80, dtype=np.uint8)] * 12
    path = tmp_path / "sheet.png"
    contact_sheet.draw(cases.from_text(12), clips, path)
    assert path.stat().st_size > 1000
    contact_sheet.draw(cases.from_image(12, 96, with_end=True), clips, path)
    assert path.stat().st_size > 1000


def test_noise_levels_stay_on_their_side_of_the_boundary() -> None:
    rng = np.random.default_rng(0)
    high = NoiseLevels(low=BOUNDARY).draw(500, rng)
    low = NoiseLevels(high=BOUNDARY).draw(500, rng)
    assert high.min() >= BOUNDARY
    assert high.max() <= 1.0
    assert low.max() <= BOUNDARY
    assert low.min() < 0.1


def test_the_embedded_files_fit_into_a_package() -> None:
    sizes = {path: path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < MOST_BYTES_TOGETHER
    for model in MODELS.values():
        assert sum(size for path, size in sizes.items() if model.folder in path.parents) < MOST_BYTES


def cases_of(model: TinyModel) -> dict[str, list[Case]]:
    test_cases = {"text": cases.from_text(3)} if model.from_text else {}
    if model.from_image:
        test_cases["image"] = cases.from_image(2, model.settings.size)
    return test_cases


@pytest.mark.parametrize("name", MODELS)
def test_the_embedded_model_performs_as_its_card_states(name: str) -> None:
    model = MODELS[name]
    for use, test_cases in cases_of(model).items():
        pipeline = folder.load(model.folder, use != "text")
        assert pipeline.config.boundary_ratio == model.boundary
        assert pipeline.config.expand_timesteps == model.expand_timesteps
        assert pipeline.scheduler.config.flow_shift == FLOW_SHIFT
        experts = [part for part in (pipeline.transformer, pipeline.transformer_2) if part is not None]
        assert len(experts) == (1 if model.boundary is None else 2)
        assert {part.dtype for part in (pipeline.text_encoder, pipeline.vae, *experts)} == {torch.float32}
        scores, _, _ = judge(pipeline, test_cases, model.settings)
        assert isinstance(scores, Scores)
        assert scores.right["colour"] == scores.right["background"] == len(test_cases)
        assert scores.right["motion"] >= len(test_cases) - 1
        assert all(ratio >= ENOUGH for ratio in scores.first_frames)


@pytest.mark.parametrize("name", MODELS)
def test_the_card_matches_the_notes(name: str, tmp_path: Path) -> None:
    model = MODELS[name]
    (tmp_path / folder.NOTES).write_text((model.folder / folder.NOTES).read_text())
    card.write(tmp_path, model)
    # The size of the weights differs between the two folders and shifts the line breaks of its paragraph.
    written, again = (
        re.sub(r"\d+\.\d MB of weights", "", " ".join((directory / folder.CARD).read_text().split()))
        for directory in (model.folder, tmp_path)
    )
    assert again == written
