"""From a seed to the finished model folder: `python -m training.train`.

Runs the stages in order: autoencoder, encoded clips, one common network on all noise levels, and the
two experts that start from it. Every stage can be killed at any time and continues when run again.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from training import autoencoder, experts, folder, latents, tokenizer
from training.loop import Schedule, run
from training.world import FRAMES, SIZE

logger = logging.getLogger(__name__)

WORK = Path(__file__).parent / ".work"


@dataclass(frozen=True)
class Recipe:
    """How much of everything; the defaults made the embedded model on two CPU cores."""

    seed: int = 1
    autoencoder_steps: int = 4600
    clips: int = 2400
    spinning_clips: int = 480
    common_steps: int = 3000
    high_steps: int = 700
    low_steps: int = 1600
    batch: int = 32

    def scaled(self, share: float) -> Recipe:
        """Give the same recipe with that share of every step and clip."""
        amounts = {name: value for name, value in asdict(self).items() if name not in ("seed", "batch")}
        return replace(self, **{name: max(2, round(value * share)) for name, value in amounts.items()})


@dataclass(frozen=True)
class Place:
    """Where to train: checkpoints, the finished folder, the device, and whether to compile."""

    work: Path = WORK
    out: Path = folder.MODEL_FOLDER
    device: str = "cpu"
    compiled: bool = True


def train(recipe: Recipe, place: Place, remark: str = "") -> int:
    """Run every stage that is not finished yet, save the folder, and give its size in bytes."""
    work, device = place.work, torch.device(place.device)
    seconds: dict[str, float] = {}
    torch.manual_seed(recipe.seed)
    codec = autoencoder.build().to(device)
    schedule = Schedule("autoencoder", recipe.autoencoder_steps, rate=1e-2, adam_rate=2e-3)
    loss = autoencoder.AutoencoderLoss(codec, schedule.steps, device)
    seconds["autoencoder"] = run(schedule, codec, loss, work, recipe.seed)
    codec.eval().requires_grad_(False)
    clips, seconds["clips"] = latents.encode(codec, recipe.clips, recipe.spinning_clips, work, recipe.seed)

    words = tokenizer.build()
    torch.manual_seed(recipe.seed)
    common = experts.Denoiser(experts.build_text_encoder(len(words)), experts.build_expert()).to(device)
    schedule = Schedule("common", recipe.common_steps, rate=8e-3, adam_rate=1.5e-3, final_share=0.15, average=0.99)
    if place.compiled:
        experts.make_fast(common.expert)
    every_level = experts.FlowLoss(common, clips, words, experts.NoiseLevels(), recipe.batch)
    seconds["common"] = run(schedule, common, every_level, work, recipe.seed)
    common.text_encoder.requires_grad_(False)

    parts: dict[str, Any] = {"tokenizer": words, "text_encoder": common.text_encoder, "vae": codec}
    # The high-noise expert's rate goes on from where the common network's ended. Corners and how far they
    # have turned are the low-noise expert's work, so it learns faster and sees more clips that spin.
    high_levels = experts.NoiseLevels(low=experts.BOUNDARY)
    low_levels = experts.NoiseLevels(high=experts.BOUNDARY, spinning=0.3)
    sides = {
        "transformer": (high_levels, Schedule("high", recipe.high_steps, 1.2e-3, 2.2e-4, average=0.99)),
        "transformer_2": (low_levels, Schedule("low", recipe.low_steps, 2.4e-3, 4.4e-4, average=0.99)),
    }
    for part, (levels, schedule) in sides.items():
        side = copy.deepcopy(common)
        if place.compiled:
            experts.make_fast(side.expert)
        loss_of = experts.FlowLoss(side, clips, words, levels, recipe.batch)
        seconds[schedule.name] = run(schedule, side, loss_of, work, recipe.seed + 1)
        parts[part] = side.expert
    notes = {
        "recipe": asdict(recipe),
        "seconds": {name: round(value) for name, value in seconds.items()},
        "parameters": {name: _parameters(part) for name, part in parts.items() if name != "tokenizer"},
        "device": device.type,
        "size": SIZE,
        "frames": FRAMES,
        "remark": remark,
    }
    preview = latents.fit_preview(clips)
    return folder.save(place.out, parts, (clips.mean, clips.deviation), preview, notes)


def _parameters(part: Any) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("--work", type=Path, default=WORK, help="checkpoints, to continue from")
    parser.add_argument("--out", type=Path, default=folder.MODEL_FOLDER, help="the finished folder")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda to be done in minutes")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile and its C++ compiler")
    parser.add_argument("--remark", default="", help="a sentence for the model card")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the recipe's steps and clips")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    recipe = Recipe().scaled(arguments.scale)
    place = Place(arguments.work, arguments.out, arguments.device, not arguments.no_compile)
    size = train(recipe, place, arguments.remark)
    logger.info("saved %s, %.1f MB", arguments.out, size / 1e6)


if __name__ == "__main__":
    main()
