"""Trains the LoRAs of tiny-t2v-a14b from its finished folder: `python -m training.recipes.loras`.

A style, a motion and a four-step preset; each is a pair of files, one per expert. Every stage can be killed
at any time and resumes when run again.
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
from training.networks.workspace import ScalableRecipe, Workspace
from training.recipes import folder
from training.recipes.distillation import DistilledPreset, StepLoss, follow_teacher
from training.recipes.models import ASSETS, T2V
from training.world.effects import EFFECTS, LoraEffect

logger = logging.getLogger(__name__)

FOLDER = ASSETS / "loras"
PRESET_NAME = "tiny_lightning"
#: Training notes, to which the judge adds its figures.
NOTES = "training.json"


@dataclass(frozen=True)
class LoraRecipe(ScalableRecipe):
    """Amounts of training; the defaults produced the files in the repository on one CPU core."""

    seed: int = 21
    clips: int = 384
    effect_steps: int = 220
    effect_rank: int = 4
    preset_clips: int = 960
    preset_steps: int = 400
    preset_rank: int = 8
    batch: int = 32


def train(recipe: LoraRecipe, workspace: Workspace, names: Sequence[str]) -> None:
    """Train the unfinished pairs among `names` and write their files."""
    for name in names:
        # Adapters modify the experts in place, so every pair starts from a freshly loaded pipeline.
        pipeline = folder.load(T2V.folder).to(workspace.torch_device)
        pipeline.text_encoder.requires_grad_(False)
        if name == PRESET_NAME:
            seconds = _train_preset(pipeline, recipe, workspace)
        else:
            seconds = _train_effect(pipeline, EFFECTS[name], recipe, workspace)
        _note(workspace.out, name, seconds, recipe)


def _train_effect(pipeline: Any, effect: LoraEffect, recipe: LoraRecipe, workspace: Workspace) -> dict[str, float]:
    codec = pipeline.vae.requires_grad_(False)
    autoencoder.channels_last(codec)
    measured = list(codec.config.latents_mean), list(codec.config.latents_std)
    clip_set = latents.ClipSet(f"{effect.name}_latents", recipe.clips, 0, renderer=effect.draw)
    clips, spent = latents.encode(codec, clip_set, workspace.work, recipe.seed, measured)
    seconds = {"clips": spent}
    levels = {"high_noise": NoiseLevels(low=BOUNDARY), "low_noise": NoiseLevels(high=BOUNDARY)}
    for expert, part in adapters.EXPERTS.items():
        denoiser = Denoiser(pipeline.text_encoder, getattr(pipeline, part))
        adapter_set = _adapted(denoiser, recipe.effect_rank, adapters.ATTENTION, recipe, workspace)
        loss = FlowLoss(denoiser, clips, pipeline.tokenizer, levels[expert], recipe.batch)
        name = f"{effect.name}_{expert}"
        seconds[expert] = _learn(name, recipe.effect_steps, adapter_set, loss, recipe, workspace)
        words = {"title": effect.title, "description": effect.description}
        adapters.write(adapters.file_of(workspace.out, effect.name, expert), adapter_set, _header(expert, words))
    return seconds


def _train_preset(pipeline: Any, recipe: LoraRecipe, workspace: Workspace) -> dict[str, float]:
    preset = DistilledPreset()
    trajectories, spent = follow_teacher(
        pipeline, preset, recipe.preset_clips, recipe.batch, workspace.work, recipe.seed
    )
    seconds = {"clips": spent}
    for expert, part in adapters.EXPERTS.items():
        denoiser = Denoiser(pipeline.text_encoder, getattr(pipeline, part))
        layers = adapters.ATTENTION + adapters.FEED_FORWARD
        adapter_set = _adapted(denoiser, recipe.preset_rank, layers, recipe, workspace)
        loss = StepLoss(denoiser, trajectories, expert == "high_noise", recipe.batch)
        name = f"{PRESET_NAME}_{expert}"
        seconds[expert] = _learn(name, recipe.preset_steps, adapter_set, loss, recipe, workspace)
        words = {
            "title": "Tiny lightning (four steps)",
            "description": "Four steps without guidance, learned from the model's own guided steps.",
        }
        header = _header(expert, words) | {"wan22.preset": json.dumps(asdict(preset))}
        adapters.write(adapters.file_of(workspace.out, PRESET_NAME, expert), adapter_set, header)
    return seconds


def _adapted(
    denoiser: Denoiser, rank: int, layers: tuple[str, ...], recipe: LoraRecipe, workspace: Workspace
) -> adapters.AdapterSet:
    torch.manual_seed(recipe.seed)
    adapter_set = adapters.AdapterSet(denoiser.expert, rank, layers).to(workspace.torch_device)
    denoiser.to(workspace.torch_device)
    if workspace.compiled:
        experts.make_fast(denoiser.expert)
    return adapter_set


def _learn(
    name: str, steps: int, adapter_set: adapters.AdapterSet, loss: LossOf, recipe: LoraRecipe, workspace: Workspace
) -> float:
    # AdamW alone: Muon would move all directions alike, which does not suit two thin factors.
    return run(Schedule(name, steps, 0.0, 4e-3, average=0.98), adapter_set, loss, workspace.work, recipe.seed)


def _header(expert: str, words: dict[str, str]) -> dict[str, str]:
    return {
        "modelspec.title": words["title"],
        "modelspec.description": words["description"],
        "modelspec.architecture": T2V.name,
        "modelspec.trigger_phrase": "",
        "wan22.expert": expert,
    }


def _note(out: Path, name: str, seconds: dict[str, float], recipe: LoraRecipe) -> None:
    path = out / NOTES
    notes: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    notes[name] = {"recipe": asdict(recipe), "seconds": {part: round(value) for part, value in seconds.items()}}
    path.write_text(json.dumps(notes, indent=1) + "\n")


def main() -> None:
    """Run the command line."""
    every = [*EFFECTS, PRESET_NAME]
    parser = argparse.ArgumentParser(prog="python -m training.recipes.loras", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*every, []], help="pairs to train; default: all")
    parser.add_argument(
        "--work",
        type=Path,
        default=Workspace(FOLDER).work,
        help="folder of the checkpoints, from which training resumes",
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the finished files")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile, which needs a C++ compiler")
    parser.add_argument("--scale", type=float, default=1.0, help="factor for the steps and clips of the recipe")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    workspace = Workspace(arguments.out, arguments.work, arguments.device, not arguments.no_compile)
    train(LoraRecipe().scaled(arguments.scale), workspace, arguments.names or every)


if __name__ == "__main__":
    main()
