"""Clips in latent space: encodes training clips once, so that the experts need no autoencoder.

Owns the encoded data set, the normalisation that goes into the autoencoder's configuration, and the
linear map from latents to colours that live previews use.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.loop import save_state
from training.split import SceneSource
from training.world import Scene, render

logger = logging.getLogger(__name__)

_BATCH = 8
_CHECKPOINT_SECONDS = 60.0
#: Seed of the clips themselves, apart from those that the autoencoder learned from.
_SEED_OFFSET = 7919


@dataclass(frozen=True)
class EncodedClips:
    """Normalised latents (clips, 16, T, H, W) in half precision, and the scene of each clip."""

    latents: Tensor
    scenes: list[Scene]
    #: Per channel, in the autoencoder's own units.
    mean: list[float]
    deviation: list[float]
    #: Pixels in 0..1 as (clips, 3, T, H, W) at the latents' size, for the preview's linear map.
    thumbnails: Tensor


def encode(autoencoder: Any, count: int, spinning: int, work: Path, seed: int) -> tuple[EncodedClips, float]:
    """Render and encode training clips, resumably; give them and the seconds it took.

    After `count` clips of any scene come `spinning` more that spin: it is the hardest motion and, with only
    two shapes that can do it, the rarest.
    """
    path = work / "latents.pt"
    device = next(autoencoder.parameters()).device
    latents: list[Tensor] = []
    thumbnails: list[Tensor] = []
    words: list[list[str]] = []
    spent = 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        latents, thumbnails = [state["latents"]], [state["thumbnails"]]
        words, spent = state["words"], state["seconds"]

    def save() -> None:
        tensors = {"latents": torch.cat(latents), "thumbnails": torch.cat(thumbnails)}
        save_state(path, tensors | {"words": words, "seconds": spent})

    tick = saved_at = time.monotonic()
    while len(words) < count + spinning:
        rng = np.random.default_rng([seed + _SEED_OFFSET, len(words)])
        source = SceneSource(rng)
        draw = source.draw if len(words) < count else source.draw_spinning
        scenes = [draw() for _ in range(_BATCH)]
        pixels = torch.from_numpy(np.stack([render(scene, rng).pixels for scene in scenes]))
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            mode = autoencoder.encode(pixels.to(device)).latent_dist.mode()
        latents.append(mode.float().cpu().half())
        thumbnails.append(_thumbnails(pixels).half())
        words += [[scene.colour, scene.shape, scene.motion, scene.background] for scene in scenes]
        now = time.monotonic()
        spent, tick = spent + now - tick, now
        if now - saved_at > _CHECKPOINT_SECONDS or len(words) >= count + spinning:
            logger.info("latents %d/%d  %.0f s", len(words), count + spinning, spent)
            save()
            saved_at = now
    raw = torch.cat(latents).float()
    # Normalised by the world as it is, without the extra ones.
    mean, deviation = raw[:count].mean((0, 2, 3, 4)), raw[:count].std((0, 2, 3, 4))
    normalised = (raw - mean[:, None, None, None]) / deviation[:, None, None, None]
    scenes = [Scene(*four) for four in words]
    clips = EncodedClips(normalised.half(), scenes, mean.tolist(), deviation.tolist(), torch.cat(thumbnails))
    return clips, spent


def fit_preview(clips: EncodedClips) -> dict[str, list[Any]]:
    """Fit the linear map from normalised latents to RGB in 0..1 by least squares."""
    latents = clips.latents.float().movedim(1, -1).reshape(-1, clips.latents.shape[1])
    colours = clips.thumbnails.float().movedim(1, -1).reshape(-1, 3)
    design = torch.cat([latents, torch.ones(len(latents), 1)], 1)
    solution = torch.linalg.lstsq(design, colours).solution
    rounded = [[round(value, 5) for value in row] for row in solution.tolist()]
    return {"latent_rgb": rounded[:-1], "bias": rounded[-1]}


def _thumbnails(pixels: Tensor) -> Tensor:
    """Shrink (clips, 3, frames, H, W) in -1..1 to a pixel per latent, with the frames a latent ends with."""
    small = torch.nn.functional.avg_pool3d(pixels, (1, 8, 8))
    return (small[:, :, ::4] + 1) / 2
