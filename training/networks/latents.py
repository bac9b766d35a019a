"""Training clips in latent space, encoded once so that training an expert needs no autoencoder.

Owns the encoded data set with its image conditions, the normalisation stored in the configuration of the
autoencoder, and the linear map from latents to colours that live previews use.
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
from training.networks.workspace import mixed_precision
from training.world.scenes import SIZE, RenderedClip, Scene, render
from training.world.split import SceneSource

logger = logging.getLogger(__name__)

_BATCH = 8
_CHECKPOINT_SECONDS = 60.0
#: Added to the seed, so that these clips differ from those the autoencoder learned from.
_SEED_OFFSET = 7919
_FRAMES_PER_LATENT = 4

#: Mean and standard deviation per channel, in the units of the autoencoder.
Normalisation = tuple[list[float], list[float]]


@dataclass(frozen=True)
class ClipSet:
    """Specification of the clips to render and encode; the recipe of each model chooses it."""

    #: Name of the checkpoint file, without its suffix.
    name: str
    count: int
    #: Number of extra spinning clips after the `count` of any scene: spinning is the hardest motion and the rarest.
    spinning: int
    size: int = SIZE
    #: Share of the clips in which the shape starts anywhere.
    roaming: float = 0.0
    #: Share of the clips whose condition contains the last frame as well as the first; None: no conditions.
    end_images: float | None = None
    #: Renders a scene, with the signature of `render`; a different renderer teaches a different style or motion.
    renderer: Callable[..., RenderedClip] = render


@dataclass(frozen=True)
class EncodedClips:
    """Normalised latents (clips, channels, T, H, W) in half precision, and the scene of each clip."""

    latents: Tensor
    scenes: list[Scene]
    #: Per channel, in the units of the autoencoder.
    mean: list[float]
    deviation: list[float]
    #: Pixels in 0..1 as (clips, 3, T, H, W) at the size of the latents, to fit the preview map.
    thumbnails: Tensor
    #: Mask and normalised condition (clips, 4 + channels, T, H, W), if the clip set requests them.
    conditions: Tensor | None = None

    @property
    def frames(self) -> int:
        """Number of frames of a decoded clip."""
        return (self.latents.shape[2] - 1) * _FRAMES_PER_LATENT + 1

    @property
    def normalisation(self) -> Normalisation:
        """Mean and standard deviation, as the configuration of the autoencoder stores them."""
        return self.mean, self.deviation

    def required_conditions(self) -> Tensor:
        """Return the conditions.

        Raises:
            ValueError: the clip set requested none.
        """
        if self.conditions is None:
            raise ValueError("these clips were encoded without conditions")
        return self.conditions


def encode(
    autoencoder: Any, clip_set: ClipSet, work: Path, seed: int, measured: Normalisation | None = None
) -> tuple[EncodedClips, float]:
    """Render and encode training clips, resumably; return them and the time it took in seconds.

    Mean and deviation are computed from the first `count` clips unless `measured` provides them.
    """
    path = work / f"{clip_set.name}.pt"
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
    while len(words) < clip_set.count + clip_set.spinning:
        rng = np.random.default_rng([seed + _SEED_OFFSET, len(words)])
        source = SceneSource(rng)
        draw = source.draw if len(words) < clip_set.count else source.draw_spinning
        scenes = [draw() for _ in range(_BATCH)]
        roams = [bool(clip_set.roaming) and rng.random() < clip_set.roaming for _ in scenes]
        drawn = [
            clip_set.renderer(scene, rng, clip_set.size, roaming=roam)
            for scene, roam in zip(scenes, roams, strict=True)
        ]
        pixels = torch.from_numpy(np.stack([clip.pixels for clip in drawn])).to(device)
        parts["latents"].append(_encoded(autoencoder, pixels))
        parts["thumbnails"].append(_thumbnails(pixels, parts["latents"][0].shape[-1]).half().cpu())
        if clip_set.end_images is not None:
            with_end = torch.from_numpy(rng.random(_BATCH) < clip_set.end_images)
            parts["with_end"].append(with_end)
            parts["conditions"].append(_encoded(autoencoder, condition_video(pixels, with_end.to(device))))
        words += [[scene.colour, scene.shape, scene.motion, scene.background] for scene in scenes]
        now = time.monotonic()
        spent, tick = spent + now - tick, now
        if now - saved_at > _CHECKPOINT_SECONDS or len(words) >= clip_set.count + clip_set.spinning:
            logger.info("%s %d/%d  %.0f s", clip_set.name, len(words), clip_set.count + clip_set.spinning, spent)
            save()
            saved_at = now
    raw = torch.cat(parts["latents"]).float()
    if measured is None:
        # Statistics of the plain distribution, without the extra spinning clips.
        first = raw[: clip_set.count]
        measured = first.mean((0, 2, 3, 4)).tolist(), first.std((0, 2, 3, 4)).tolist()
    mean, deviation = (torch.tensor(values)[:, None, None, None] for values in measured)
    conditions = None
    if clip_set.end_images is not None:
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
    """Keep the first frame of (clips, 3, frames, H, W), the last one where `with_end`, and gray out the rest.

    This matches what `WanImageToVideoPipeline.prepare_latents` builds from its images.
    """
    video = torch.zeros_like(pixels)
    video[:, :, 0] = pixels[:, :, 0]
    video[with_end, :, -1] = pixels[with_end, :, -1]
    return video


def condition_mask(with_end: Tensor, latents: Tensor) -> Tensor:
    """Mark the given images as (clips, 4, T, H, W): one channel for each frame that a latent represents."""
    clips, _, length, height, width = latents.shape
    mask = torch.zeros(clips, _FRAMES_PER_LATENT, length, height, width)
    # The first latent represents one frame, which the pipeline repeats; the end image is the last of its four.
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
    """Shrink (clips, 3, frames, H, W) in -1..1 to one pixel per latent, using the last frame of each latent."""
    factor = pixels.shape[-1] // side
    small = torch.nn.functional.avg_pool3d(pixels, (1, factor, factor))
    return (small[:, :, ::_FRAMES_PER_LATENT] + 1) / 2
