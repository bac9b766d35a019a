"""The recipe of tiny-i2v-a14b: the finished text-to-video model learns to start with a given image.

Autoencoder and text encoder stay unchanged. Each expert gets 20 more input channels (mask and encoded
image), which it ignores at first, and is trained further on its side of the boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.networks import autoencoder, experts, latents
from training.networks.flow import IMAGE_BOUNDARY, FlowLoss, NoiseLevels, as_channels
from training.networks.loop import Schedule, run
from training.networks.workspace import ScalableRecipe, Workspace, notes_of
from training.recipes import folder, models


@dataclass(frozen=True)
class ImageToVideoRecipe(ScalableRecipe):
    """Amounts of training; the defaults produced the embedded model on one CPU core."""

    seed: int = 11
    clips: int = 1920
    spinning_clips: int = 384
    #: Share of the clips whose first frame barely reveals the motion, so that the network must use the caption.
    roaming: float = 0.75
    #: Share of the clips that are conditioned on their last frame as well.
    end_images: float = 0.25
    high_steps: int = 400
    low_steps: int = 1300
    #: Weight of an error in the first latent frame; at 1, edges of the given image come back dented.
    first_frame: float = 3.0
    batch: int = 32


def train(recipe: ImageToVideoRecipe, workspace: Workspace, remark: str = "", base: Path = models.T2V.folder) -> int:
    """Run every unfinished stage, save the folder, and return its size in bytes.

    `base` is the finished text-to-video folder to start from.
    """
    seconds: dict[str, float] = {}
    start = folder.load(base).to(workspace.torch_device)
    codec = start.vae.requires_grad_(False)
    autoencoder.channels_last(codec)
    measured = list(codec.config.latents_mean), list(codec.config.latents_std)
    clip_set = latents.ClipSet(
        "i2v_latents",
        recipe.clips,
        recipe.spinning_clips,
        roaming=recipe.roaming,
        end_images=recipe.end_images,
    )
    clips, seconds["clips"] = latents.encode(codec, clip_set, workspace.work, recipe.seed, measured)
    conditioning = as_channels(clips.required_conditions(), recipe.first_frame)

    parts: dict[str, Any] = {"tokenizer": start.tokenizer, "text_encoder": start.text_encoder, "vae": codec}
    start.text_encoder.requires_grad_(False)
    sides = {
        "transformer": (NoiseLevels(low=IMAGE_BOUNDARY), "high", recipe.high_steps),
        "transformer_2": (NoiseLevels(high=IMAGE_BOUNDARY, spinning=0.25), "low", recipe.low_steps),
    }
    for part, (levels, name, steps) in sides.items():
        torch.manual_seed(recipe.seed)
        expert = experts.widened(getattr(start, part), clips.required_conditions().shape[1])
        side = experts.Denoiser(start.text_encoder, expert).to(workspace.torch_device)
        if workspace.compiled:
            experts.make_fast(side.expert)
        loss = FlowLoss(side, clips, start.tokenizer, levels, recipe.batch, conditioning)
        schedule = Schedule(f"i2v_{name}", steps, 4e-3, 7e-4, average=0.99)
        seconds[name] = run(schedule, side, loss, workspace.work, recipe.seed)
        parts[part] = side.expert
    notes = notes_of(recipe, seconds, parts, workspace, clip_set.size, clips.frames, remark)
    return folder.save(workspace.out, models.I2V, parts, clips.normalisation, latents.fit_preview(clips), notes)
