"""The recipe of tiny-t2v-a14b: from a seed to the finished folder.

Runs the stages in order: autoencoder, encoded clips, one common network on all noise levels, and the
two experts initialised from it. Every stage can be killed at any time and resumes when run again.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch

from training.networks import autoencoder, experts, latents
from training.networks.flow import BOUNDARY, FlowLoss, NoiseLevels
from training.networks.loop import Schedule, run
from training.networks.workspace import ScalableRecipe, Workspace, notes_of
from training.recipes import folder, models
from training.world import tokenizer


@dataclass(frozen=True)
class TextToVideoRecipe(ScalableRecipe):
    """Amounts of training; the defaults produced the embedded model on two CPU cores."""

    seed: int = 1
    autoencoder_steps: int = 4600
    clips: int = 2400
    spinning_clips: int = 480
    common_steps: int = 3000
    high_steps: int = 700
    low_steps: int = 1600
    batch: int = 32


def train(recipe: TextToVideoRecipe, workspace: Workspace, remark: str = "") -> int:
    """Run every unfinished stage, save the folder, and return its size in bytes."""
    work, device = workspace.work, workspace.torch_device
    seconds: dict[str, float] = {}
    torch.manual_seed(recipe.seed)
    codec = autoencoder.build().to(device)
    schedule = Schedule("autoencoder", recipe.autoencoder_steps, rate=1e-2, adam_rate=2e-3)
    loss = autoencoder.AutoencoderLoss(codec, autoencoder.Crops(), schedule.steps, device)
    seconds["autoencoder"] = run(schedule, codec, loss, work, recipe.seed)
    codec.eval().requires_grad_(False)
    clip_set = latents.ClipSet("latents", recipe.clips, recipe.spinning_clips)
    clips, seconds["clips"] = latents.encode(codec, clip_set, work, recipe.seed)

    words = tokenizer.build()
    torch.manual_seed(recipe.seed)
    common = experts.Denoiser(experts.build_text_encoder(len(words)), experts.build_expert()).to(device)
    schedule = Schedule("common", recipe.common_steps, rate=8e-3, adam_rate=1.5e-3, final_share=0.15, average=0.99)
    if workspace.compiled:
        experts.make_fast(common.expert)
    every_level = FlowLoss(common, clips, words, NoiseLevels(), recipe.batch)
    seconds["common"] = run(schedule, common, every_level, work, recipe.seed)
    common.text_encoder.requires_grad_(False)

    parts: dict[str, Any] = {"tokenizer": words, "text_encoder": common.text_encoder, "vae": codec}
    # The learning rate of the high-noise expert starts where that of the common network ended. The low-noise
    # expert is responsible for corners and their rotation, so it learns faster and sees more spinning clips.
    sides = {
        "transformer": (NoiseLevels(low=BOUNDARY), Schedule("high", recipe.high_steps, 1.2e-3, 2.2e-4, average=0.99)),
        "transformer_2": (
            NoiseLevels(high=BOUNDARY, spinning=0.3),
            Schedule("low", recipe.low_steps, 2.4e-3, 4.4e-4, average=0.99),
        ),
    }
    for part, (levels, schedule) in sides.items():
        side = copy.deepcopy(common)
        if workspace.compiled:
            experts.make_fast(side.expert)
        loss_of = FlowLoss(side, clips, words, levels, recipe.batch)
        seconds[schedule.name] = run(schedule, side, loss_of, work, recipe.seed + 1)
        parts[part] = side.expert
    notes = notes_of(recipe, seconds, parts, workspace, clip_set.size, clips.frames, remark)
    return folder.save(workspace.out, models.T2V, parts, clips.normalisation, latents.fit_preview(clips), notes)
