"""Clips in latent space: encodes training clips once, so that the experts need no autoencoder.

Owns the encoded data set with the conditions of given images, the normalisation that goes into the
autoencoder's configuration, and the linear map from latents to colours that live previews use.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.networks.loop import save_state
from training.networks.place import mixed_precision
from training.world.scenes import SIZE, Clip, Scene, render
from training.world.split import SceneSource

logger = logging.getLogger(__name__)

_BATCH = 8
_CHECKPOINT_SECONDS = 60.0
#: Seed of the clips themselves, apart from those that the autoencoder learned from.
_SEED_OFFSET = 7919
_FRAMES_PER_LATENT = 4

#: Mean and deviation per channel, in the autoencoder's own units.
Normalisation = tuple[list[float], list[float]]


@dataclass(frozen=True)
class Drawing:
    """Which clips are drawn and encoded; what a model needs to see is decided in its recipe."""

    #: File of the checkpoint.
    name: str
    count: int
    #: After `count` clips of any scene come so many that spin: it is the hardest motion and the rarest.
    spinning: int
    size: int = SIZE
    #: Share of the clips whose shape starts anywhere.
    roaming: float = 0.0
    #: Share of the clips whose condition holds the last frame besides the first; None makes no conditions.
    end_images: float | None = None
    #: Draws a scene like `render`; another one teaches another look or way to move.
    renderer: Callable[..., Clip] = render


@dataclass(frozen=True)
class EncodedClips:
    """Normalised latents (clips, channels, T, H, W) in half precision, and the scene of each clip."""

    latents: Tensor
    scenes: list[Scene]
    #: Per channel, in the autoencoder's own units.
    mean: list[float]
    deviation: list[float]
    #: Pixels in 0..1 as (clips, 3, T, H, W) at the latents' size, for the preview's linear map.
    thumbnails: Tensor
    #: Mask and normalised condition (clips, 4 + channels, T, H, W) where the drawing asks for them.
    conditions: Tensor | None = None

    @property
    def frames(self) -> int:
        """Frames of a clip in pixels."""
        return (self.latents.shape[2] - 1) * _FRAMES_PER_LATENT + 1

    @property
    def normalisation(self) -> Normalisation:
        """What the autoencoder's configuration needs to know."""
        return self.mean, self.deviation

    def given(self) -> Tensor:
        """Give the conditions.

        Raises:
            ValueError: the drawing did not ask for any.
        """
        if self.conditions is None:
            raise ValueError("these clips were encoded without conditions")
        return self.conditions


def encode(
    autoencoder: Any, drawing: Drawing, work: Path, seed: int, measured: Normalisation | None = None
) -> tuple[EncodedClips, float]:
    """Render and encode training clips, resumably; give them and the seconds it took.

    The latents' mean and deviation are measured on the first `count` clips unless they are given.
    """
    path = work / f"{drawing.name}.pt"
    device = next(autoencoder.parameters()).device
    parts: dict[str, list[Tensor]] = {"latents": [], "thumbnails": [], "conditions": [], "with_end": []}
    words: list[list[str]] = []
    spent = 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        parts = {name: [state[name]] for name in parts if name in state}
        words, spent = state["words"], state["seconds"]

    def save() -> None:
        tensors = {name: torch.cat(part) for name, part in parts.items() if part}
        save_state(path, tensors | {"words": words, "seconds": spent})

    tick = saved_at = time.monotonic()
    while len(words) < drawing.count + drawing.spinning:
        rng = np.random.default_rng([seed + _SEED_OFFSET, len(words)])
        source = SceneSource(rng)
        draw = source.draw if len(words) < drawing.count else source.draw_spinning
        scenes = [draw() for _ in range(_BATCH)]
        roams = [bool(drawing.roaming) and rng.random() < drawing.roaming for _ in scenes]
        drawn = [
            drawing.renderer(scene, rng, drawing.size, roaming=roam) for scene, roam in zip(scenes, roams, strict=True)
        ]
        pixels = torch.from_numpy(np.stack([clip.pixels for clip in drawn])).to(device)
        parts["latents"].append(_encoded(autoencoder, pixels))
        parts["thumbnails"].append(_thumbnails(pixels, parts["latents"][0].shape[-1]).half().cpu())
        if drawing.end_images is not None:
            with_end = torch.from_numpy(rng.random(_BATCH) < drawing.end_images)
            parts["with_end"].append(with_end)
            parts["conditions"].append(_encoded(autoencoder, condition_video(pixels, with_end.to(device))))
        words += [[scene.colour, scene.shape, scene.motion, scene.background] for scene in scenes]
        now = time.monotonic()
        spent, tick = spent + now - tick, now
        if now - saved_at > _CHECKPOINT_SECONDS or len(words) >= drawing.count + drawing.spinning:
            logger.info("%s %d/%d  %.0f s", drawing.name, len(words), drawing.count + drawing.spinning, spent)
            save()
            saved_at = now
    raw = torch.cat(parts["latents"]).float()
    if measured is None:
        # Normalised by the world as it is, without the extra ones.
        first = raw[: drawing.count]
        measured = first.mean((0, 2, 3, 4)).tolist(), first.std((0, 2, 3, 4)).tolist()
    mean, deviation = (torch.tensor(values)[:, None, None, None] for values in measured)
    conditions = None
    if drawing.end_images is not None:
        normalised = ((torch.cat(parts["conditions"]).float() - mean) / deviation).half()
        conditions = torch.cat([condition_mask(torch.cat(parts["with_end"]), normalised).half(), normalised], 1)
    clips = EncodedClips(
        ((raw - mean) / deviation).half(),
        [Scene(*four) for four in words],
        *measured,
        torch.cat(parts["thumbnails"]),
        conditions,
    )
    return clips, spent


def condition_video(pixels: Tensor, with_end: Tensor) -> Tensor:
    """Keep the first frame of (clips, 3, frames, H, W), the last one where `with_end`, and gray for the rest.

    As `WanImageToVideoPipeline.prepare_latents` makes it from the given image or images.
    """
    video = torch.zeros_like(pixels)
    video[:, :, 0] = pixels[:, :, 0]
    video[with_end, :, -1] = pixels[with_end, :, -1]
    return video


def condition_mask(with_end: Tensor, latents: Tensor) -> Tensor:
    """Say where a given image is, as (clips, 4, T, H, W): a channel for each frame that a latent stands for."""
    clips, _, length, height, width = latents.shape
    mask = torch.zeros(clips, _FRAMES_PER_LATENT, length, height, width)
    # The first latent stands for one frame, which the pipeline repeats; the end image is the last of its four.
    mask[:, :, 0] = 1.0
    mask[with_end, -1, -1] = 1.0
    return mask


def _encoded(autoencoder: Any, pixels: Tensor) -> Tensor:
    with torch.inference_mode(), mixed_precision(pixels.device):
        mode: Tensor = autoencoder.encode(pixels).latent_dist.mode()
    return mode.float().cpu().half()


def fit_preview(clips: EncodedClips) -> dict[str, list[Any]]:
    """Fit the linear map from normalised latents to RGB in 0..1 by least squares."""
    latents = clips.latents.float().movedim(1, -1).reshape(-1, clips.latents.shape[1])
    colours = clips.thumbnails.float().movedim(1, -1).reshape(-1, 3)
    design = torch.cat([latents, torch.ones(len(latents), 1)], 1)
    solution = torch.linalg.lstsq(design, colours).solution
    rounded = [[round(value, 5) for value in row] for row in solution.tolist()]
    return {"latent_rgb": rounded[:-1], "bias": rounded[-1]}


def _thumbnails(pixels: Tensor, side: int) -> Tensor:
    """Shrink (clips, 3, frames, H, W) in -1..1 to a pixel per latent, with the frames a latent ends with."""
    factor = pixels.shape[-1] // side
    small = torch.nn.functional.avg_pool3d(pixels, (1, factor, factor))
    return (small[:, :, ::_FRAMES_PER_LATENT] + 1) / 2
