"""The LoRA recipe at a small scale, the files it writes, and the effect of the embedded LoRAs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from training.evaluation import cases, lora_card
from training.evaluation.judge import generate
from training.evaluation.lora_judge import judge_preset, preset_of, with_lora
from training.networks import adapters, experts
from training.networks.experts import build_expert
from training.networks.flow import BOUNDARY
from training.networks.workspace import Workspace
from training.recipes import loras
from training.recipes.distillation import DistilledPreset
from training.recipes.models import T2V
from training.world.effects import EFFECTS

SMALL = loras.LoraRecipe(clips=8, effect_steps=2, preset_clips=2, preset_steps=2, batch=2)


@torch.no_grad()
def answer(expert: Any) -> torch.Tensor:
    torch.manual_seed(1)
    noisy, prompt = torch.randn(1, 16, 2, 4, 4), torch.randn(1, 8, experts.TEXT_WIDTH)
    predicted: torch.Tensor = expert(noisy, torch.tensor([500.0]), prompt, return_dict=False)[0]
    return predicted


def test_a_merged_file_equals_the_trained_adapter(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = build_expert()
    before = answer(plain)
    adapted = build_expert()
    adapted.load_state_dict(plain.state_dict())
    adapter_set = adapters.AdapterSet(adapted, 4, adapters.ATTENTION + adapters.FEED_FORWARD)
    assert torch.allclose(answer(adapted), before, atol=1e-6)
    for factor in adapter_set.factors:
        torch.nn.init.normal_(factor.weight, std=0.1)
    adapters.write(tmp_path / "one.safetensors", adapter_set, {"wan22.expert": "high_noise"})
    adapters.merge(plain, tmp_path / "one.safetensors", 1.0)
    assert not torch.allclose(answer(plain), before, atol=1e-2)
    assert torch.allclose(answer(plain), answer(adapted), atol=2e-3)
    adapters.merge(plain, tmp_path / "one.safetensors", -1.0)
    assert torch.allclose(answer(plain), before, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_the_scaled_down_recipe_writes_pairs_that_can_be_merged(tmp_path: Path) -> None:
    names = ["tiny_drift", loras.PRESET_NAME]
    loras.train(SMALL, Workspace(tmp_path, tmp_path / "work", compiled=False), names)
    for name in names:
        assert with_lora(tmp_path, name, 1.0).transformer_2 is not None
        assert json.loads((tmp_path / loras.NOTES).read_text())[name]["recipe"]["effect_steps"] == 2
    assert preset_of(tmp_path) == DistilledPreset()


@pytest.mark.parametrize("expert", adapters.EXPERTS)
@pytest.mark.parametrize("name", [*EFFECTS, loras.PRESET_NAME])
def test_every_header_describes_its_file(name: str, expert: str) -> None:
    header = adapters.read_header(adapters.file_of(loras.FOLDER, name, expert))
    assert header["format"] == "pt"
    assert header["modelspec.architecture"] == T2V.name
    assert header["wan22.expert"] == expert
    assert header["modelspec.title"]
    assert header["modelspec.description"]
    assert header["modelspec.trigger_phrase"] == ""
    adapter = json.loads(header["lora_adapter_metadata"])
    assert adapter["transformer.r"] == adapter["transformer.lora_alpha"]
    assert ("wan22.preset" in header) == (name == loras.PRESET_NAME)


@pytest.mark.parametrize("name", EFFECTS)
def test_an_embedded_effect_grows_with_its_strength(name: str) -> None:
    case = cases.from_text(2)
    means = []
    for strength in (0.0, 0.5, 1.0):
        pipeline = with_lora(loras.FOLDER, name, strength)
        pipeline.set_progress_bar_config(disable=True)
        means.append(sum(EFFECTS[name].measure(clip) for clip in generate(pipeline, case, T2V.settings)) / len(case))
    assert means[0] + 0.05 < means[1] < means[2] - 0.02
    figures = json.loads((loras.FOLDER / loras.NOTES).read_text())[name]["figures"]["mean"]
    assert figures["0.0"] < figures["0.5"] < figures["1.0"]


def test_the_embedded_preset_needs_four_steps_and_both_experts() -> None:
    preset = preset_of(loras.FOLDER)
    levels = preset.levels()
    assert len(levels) == 5
    assert levels[0] >= BOUNDARY > levels[-2]
    assert preset.guidance_scale == preset.guidance_scale_2 == 1.0
    scores, _, _ = judge_preset(loras.FOLDER, preset, 4, 1.0)
    assert scores.right["colour"] >= 3
    assert scores.right["background"] >= 3
    assert scores.right["motion"] >= 3


def test_the_card_matches_the_notes_and_headers(tmp_path: Path) -> None:
    written = (loras.FOLDER / lora_card.CARD).read_text()
    for path in loras.FOLDER.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    lora_card.write(tmp_path)
    assert (tmp_path / lora_card.CARD).read_text() == written
