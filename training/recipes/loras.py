"""The LoRAs of tiny-t2v-a14b, from its finished folder: `python -m training.recipes.loras`.

A style, a motion and a preset of four steps; each is a pair of files, one for each expert. Every stage can
be killed at any time and continues when run again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from training.networks import adapters, autoencoder, experts, latents
from training.networks.experts import Denoiser
from training.networks.flow import BOUNDARY, FlowLoss, NoiseLevels
from training.networks.loop import LossOf, Schedule, run
from training.networks.place import Amounts, Place
from training.recipes import folder
from training.recipes.distillation import Preset, StepLoss, follow
from training.recipes.models import ASSETS, T2V
from training.world.effects import EFFECTS, Effect

logger = logging.getLogger(__name__)

FOLDER = ASSETS / "loras"
PRESET_NAME = "tiny_lightning"
#: Notes about the making, which the judge completes.
NOTES = "training.json"


@dataclass(frozen=True)
class Recipe(Amounts):
    """How much of everything; the defaults made the files in the repository on one CPU core."""

    seed: int = 21
    clips: int = 384
    effect_steps: int = 220
    effect_rank: int = 4
    preset_clips: int = 960
    preset_steps: int = 400
    preset_rank: int = 8
    batch: int = 32


def train(recipe: Recipe, place: Place, names: Sequence[str]) -> None:
    """Train the pairs of those names that are not finished yet and write their files."""
    for name in names:
        # Adapters are put into the experts in place, so every pair gets them fresh.
        pipeline = folder.load(T2V.folder).to(place.torch_device)
        pipeline.text_encoder.requires_grad_(False)
        if name == PRESET_NAME:
            seconds = _train_preset(pipeline, recipe, place)
        else:
            seconds = _train_effect(pipeline, EFFECTS[name], recipe, place)
        _note(place.out, name, seconds, recipe)


def _train_effect(pipeline: Any, effect: Effect, recipe: Recipe, place: Place) -> dict[str, float]:
    codec = pipeline.vae.requires_grad_(False)
    autoencoder.channels_last(codec)
    measured = list(codec.config.latents_mean), list(codec.config.latents_std)
    drawing = latents.Drawing(f"{effect.name}_latents", recipe.clips, 0, renderer=effect.draw)
    clips, spent = latents.encode(codec, drawing, place.work, recipe.seed, measured)
    seconds = {"clips": spent}
    levels = {"high_noise": NoiseLevels(low=BOUNDARY), "low_noise": NoiseLevels(high=BOUNDARY)}
    for expert, part in adapters.EXPERTS.items():
        denoiser = Denoiser(pipeline.text_encoder, getattr(pipeline, part))
        change = _adapted(denoiser, recipe.effect_rank, adapters.ATTENTION, recipe, place)
        loss = FlowLoss(denoiser, clips, pipeline.tokenizer, levels[expert], recipe.batch)
        name = f"{effect.name}_{expert}"
        seconds[expert] = _learn(name, recipe.effect_steps, change, loss, recipe, place)
        words = {"title": effect.title, "description": effect.description}
        adapters.write(adapters.file_of(place.out, effect.name, expert), change, _header(expert, words))
    return seconds


def _train_preset(pipeline: Any, recipe: Recipe, place: Place) -> dict[str, float]:
    preset = Preset()
    ways, spent = follow(pipeline, preset, recipe.preset_clips, recipe.batch, place.work, recipe.seed)
    seconds = {"clips": spent}
    for expert, part in adapters.EXPERTS.items():
        denoiser = Denoiser(pipeline.text_encoder, getattr(pipeline, part))
        layers = adapters.ATTENTION + adapters.FEED_FORWARD
        change = _adapted(denoiser, recipe.preset_rank, layers, recipe, place)
        loss = StepLoss(denoiser, ways, expert == "high_noise", recipe.batch)
        name = f"{PRESET_NAME}_{expert}"
        seconds[expert] = _learn(name, recipe.preset_steps, change, loss, recipe, place)
        words = {
            "title": "Tiny lightning (four steps)",
            "description": "Four steps without guidance, learned from the model's own guided steps.",
        }
        header = _header(expert, words) | {"wan22.preset": json.dumps(asdict(preset))}
        adapters.write(adapters.file_of(place.out, PRESET_NAME, expert), change, header)
    return seconds


def _adapted(denoiser: Denoiser, rank: int, layers: tuple[str, ...], recipe: Recipe, place: Place) -> adapters.Change:
    torch.manual_seed(recipe.seed)
    change = adapters.Change(denoiser.expert, rank, layers).to(place.torch_device)
    denoiser.to(place.torch_device)
    if place.compiled:
        experts.make_fast(denoiser.expert)
    return change


def _learn(name: str, steps: int, change: adapters.Change, loss: LossOf, recipe: Recipe, place: Place) -> float:
    # AdamW alone: two thin factors are no matrix whose directions should all move alike.
    return run(Schedule(name, steps, 0.0, 4e-3, average=0.98), change, loss, place.work, recipe.seed)


def _header(expert: str, words: dict[str, str]) -> dict[str, str]:
    return {
        "modelspec.title": words["title"],
        "modelspec.description": words["description"],
        "modelspec.architecture": T2V.name,
        "modelspec.trigger_phrase": "",
        "wan22.expert": expert,
    }


def _note(place: Path, name: str, seconds: dict[str, float], recipe: Recipe) -> None:
    path = place / NOTES
    notes: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    notes[name] = {"recipe": asdict(recipe), "seconds": {part: round(value) for part, value in seconds.items()}}
    path.write_text(json.dumps(notes, indent=1) + "\n")


def main() -> None:
    """Read the command line and train."""
    every = [*EFFECTS, PRESET_NAME]
    parser = argparse.ArgumentParser(prog="python -m training.recipes.loras", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*every, []], help="which pairs; all unless named")
    parser.add_argument("--work", type=Path, default=Place(FOLDER).work, help="checkpoints, to continue from")
    parser.add_argument("--out", type=Path, default=FOLDER, help="the folder of the finished files")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile and its C++ compiler")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the recipe's steps and clips")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    place = Place(arguments.out, arguments.work, arguments.device, not arguments.no_compile)
    train(Recipe().scaled(arguments.scale), place, arguments.names or every)


if __name__ == "__main__":
    main()
