"""The recipe of tiny-ti2v-5b: one transformer that starts with an image if one is given.

It has its own residual autoencoder with latents at a sixteenth of the size. Tokenizer and text encoder come from
tiny-t2v-a14b. Half of the clips are trained with a clean first latent frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from training.networks import autoencoder, experts, latents
from training.networks.alignment import align
from training.networks.flow import FlowLoss, NoiseLevels, as_first_frame
from training.networks.loop import Schedule, run
from training.networks.workspace import ScalableRecipe, Workspace, notes_of
from training.recipes import folder, models

SIZE = 128
LAYERS = 3


@dataclass(frozen=True)
class TextImageToVideoRecipe(ScalableRecipe):
    """Amounts of training; the defaults produced the embedded model on one CPU core."""

    seed: int = 1
    autoencoder_steps: int = 6400
    clips: int = 2400
    spinning_clips: int = 480
    #: Share of the clips whose first frame barely reveals the motion, so that the network must use the caption.
    roaming: float = 0.5
    #: Share of the clips that start with a given image.
    given: float = 0.5
    #: Number of latent channels that carry content after the alignment.
    used_channels: int = 12
    network_steps: int = 4800
    batch: int = 32


def train(
    recipe: TextImageToVideoRecipe, workspace: Workspace, remark: str = "", base: Path = models.T2V.folder
) -> int:
    """Run every unfinished stage, save the folder, and return its size in bytes.

    `base` is the finished text-to-video folder that provides tokenizer and text encoder.
    """
    seconds: dict[str, float] = {}
    device = workspace.torch_device
    torch.manual_seed(recipe.seed)
    codec = autoencoder.build_residual().to(device)
    schedule = Schedule("residual_autoencoder", recipe.autoencoder_steps, rate=1e-2, adam_rate=2e-3)
    crops = autoencoder.Crops(SIZE, side=80, roaming=recipe.roaming)
    loss = autoencoder.AutoencoderLoss(codec, crops, schedule.steps, device)
    seconds["autoencoder"] = run(schedule, codec, loss, workspace.work, recipe.seed)
    codec.eval().requires_grad_(False)
    clip_set = latents.ClipSet("ti2v_latents", recipe.clips, recipe.spinning_clips, SIZE, recipe.roaming)
    clips, seconds["clips"] = latents.encode(codec, clip_set, workspace.work, recipe.seed)
    clips = align(codec, clips, recipe.used_channels)

    start = folder.load(base)
    torch.manual_seed(recipe.seed)
    expert = experts.build_expert(autoencoder.RESIDUAL_CHANNELS, LAYERS)
    experts.ignore_channels(expert, recipe.used_channels)
    network = experts.Denoiser(start.text_encoder, expert).to(device)
    if workspace.compiled:
        experts.make_fast(network.expert)
    levels = NoiseLevels(spinning=0.15)
    conditioning = as_first_frame(recipe.given, recipe.used_channels)
    learning = FlowLoss(network, clips, start.tokenizer, levels, recipe.batch, conditioning)
    schedule = Schedule("ti2v_network", recipe.network_steps, rate=8e-3, adam_rate=1.5e-3, average=0.99)
    seconds["network"] = run(schedule, network, learning, workspace.work, recipe.seed)
    parts = {
        "tokenizer": start.tokenizer,
        "text_encoder": network.text_encoder,
        "vae": codec,
        "transformer": network.expert,
    }
    notes = notes_of(recipe, seconds, parts, workspace, SIZE, clips.frames, remark)
    return folder.save(workspace.out, models.TI2V, parts, clips.normalisation, latents.fit_preview(clips), notes)
