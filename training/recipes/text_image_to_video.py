"""The recipe of tiny-ti2v-5b: one transformer that begins with an image where one is given.

It has its own autoencoder, of the residual kind with latents at a sixteenth. Tokenizer and text encoder
start from those of tiny-t2v-a14b. Half of the clips are learned with a clean first latent frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from training.networks import autoencoder, experts, latents
from training.networks.alignment import align
from training.networks.flow import FlowLoss, NoiseLevels, as_first_frame
from training.networks.loop import Schedule, run
from training.networks.place import Amounts, Place, notes_of
from training.recipes import folder, models

SIZE = 128
LAYERS = 3


@dataclass(frozen=True)
class Recipe(Amounts):
    """How much of everything; the defaults made the embedded model on one CPU core."""

    seed: int = 1
    autoencoder_steps: int = 6400
    clips: int = 2400
    spinning_clips: int = 480
    #: Share of the clips whose first frame hardly tells what happens, so that the caption must.
    roaming: float = 0.5
    #: Share of the clips that begin with a given image.
    given: float = 0.5
    #: Latent channels that hold anything once they are aligned.
    used_channels: int = 12
    network_steps: int = 4800
    batch: int = 32


def train(recipe: Recipe, place: Place, remark: str = "", base: Path = models.T2V.folder) -> int:
    """Run every stage that is not finished yet, save the folder, and give its size in bytes.

    `base` is the finished text-to-video folder whose words are taken over.
    """
    seconds: dict[str, float] = {}
    device = place.torch_device
    torch.manual_seed(recipe.seed)
    codec = autoencoder.build_residual().to(device)
    schedule = Schedule("residual_autoencoder", recipe.autoencoder_steps, rate=1e-2, adam_rate=2e-3)
    crops = autoencoder.Crops(SIZE, side=80, roaming=recipe.roaming)
    loss = autoencoder.AutoencoderLoss(codec, crops, schedule.steps, device)
    seconds["autoencoder"] = run(schedule, codec, loss, place.work, recipe.seed)
    codec.eval().requires_grad_(False)
    drawing = latents.Drawing("ti2v_latents", recipe.clips, recipe.spinning_clips, SIZE, recipe.roaming)
    clips, seconds["clips"] = latents.encode(codec, drawing, place.work, recipe.seed)
    clips = align(codec, clips, recipe.used_channels)

    start = folder.load(base)
    torch.manual_seed(recipe.seed)
    expert = experts.build_expert(autoencoder.RESIDUAL_CHANNELS, LAYERS)
    experts.ignore_channels(expert, recipe.used_channels)
    network = experts.Denoiser(start.text_encoder, expert).to(device)
    if place.compiled:
        experts.make_fast(network.expert)
    levels = NoiseLevels(spinning=0.15)
    ask = as_first_frame(recipe.given, recipe.used_channels)
    learning = FlowLoss(network, clips, start.tokenizer, levels, recipe.batch, ask)
    schedule = Schedule("ti2v_network", recipe.network_steps, rate=8e-3, adam_rate=1.5e-3, average=0.99)
    seconds["network"] = run(schedule, network, learning, place.work, recipe.seed)
    parts = {
        "tokenizer": start.tokenizer,
        "text_encoder": network.text_encoder,
        "vae": codec,
        "transformer": network.expert,
    }
    notes = notes_of(recipe, seconds, parts, place, SIZE, clips.frames, remark)
    return folder.save(place.out, models.TI2V, parts, clips.normalisation, latents.fit_preview(clips), notes)
