"""Distillation from twenty steps to four: each step learns to cover several guided steps of the teacher.

Owns the preset, the trajectories of the teacher and the loss on them. Guidance is distilled as well, so a preset
runs without it, which also halves the cost of a step.
"""

from __future__ import annotations

import itertools
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from training.networks.experts import Denoiser
from training.networks.flow import BOUNDARY, FLOW_SHIFT, TRAINING_TIMES
from training.networks.loop import save_state
from training.networks.workspace import mixed_precision
from training.recipes.models import T2V
from training.world.split import SceneSource

logger = logging.getLogger(__name__)

_SEED_OFFSET = 104_729


@dataclass(frozen=True)
class DistilledPreset:
    """The settings of a distilled pair, which its file headers contain."""

    steps: int = 4
    guidance_scale: float = 1.0
    guidance_scale_2: float = 1.0
    flow_shift: float = 5.0
    scheduler: str = "euler"

    def levels(self) -> list[float]:
        """Return the noise levels of the steps as the scheduler sets them, with the final zero."""
        scheduler = FlowMatchEulerDiscreteScheduler(TRAINING_TIMES, shift=self.flow_shift)
        scheduler.set_timesteps(self.steps)
        levels: list[float] = scheduler.sigmas.tolist()
        return levels


#: Number of teacher steps within each step of the preset; the last one is short.
TEACHER_STEPS = (4, 4, 8, 1)


@dataclass(frozen=True)
class Trajectories:
    """The latents of the teacher at each level (clips, levels, channels, T, H, W), and the embedded prompts."""

    latents: Tensor
    prompts: Tensor
    levels: list[float]


@torch.inference_mode()
def follow_teacher(
    pipeline: Any, preset: DistilledPreset, count: int, batch: int, work: Path, seed: int
) -> tuple[Trajectories, float]:
    """Generate `count` clips with the guided teacher, resumably; return the trajectories and the seconds spent."""
    path = work / "trajectories.pt"
    levels = preset.levels()
    settings, length = T2V.settings, T2V.settings.max_sequence_length
    sides = {
        name: Denoiser(pipeline.text_encoder, getattr(pipeline, name)) for name in ("transformer", "transformer_2")
    }
    guidance = {"transformer": settings.guidance, "transformer_2": settings.guidance_2}
    trajectories: list[Tensor] = []
    prompts: list[Tensor] = []
    spent = 0.0
    if path.exists():
        state = torch.load(path, weights_only=True)
        trajectories, prompts, spent = [state["latents"]], [state["prompts"]], state["seconds"]
    device = pipeline.transformer.device
    side = settings.size // pipeline.vae_scale_factor_spatial
    shape = (batch, pipeline.transformer.config.in_channels, (settings.frames + 3) // 4, side, side)
    empty = pipeline.tokenizer([""] * batch, return_tensors="pt").input_ids.to(device)
    while sum(map(len, trajectories)) < count:
        start = time.monotonic()
        rng = np.random.default_rng([seed + _SEED_OFFSET, sum(map(len, trajectories))])
        torch.manual_seed(int(rng.integers(2**31)))
        source = SceneSource(rng)
        captions = [source.draw().phrase(rng) for _ in range(batch)]
        tokens = pipeline.tokenizer(captions, padding=True, return_tensors="pt").input_ids.to(device)
        prompt = sides["transformer"].embed(tokens, length)
        both = torch.cat([prompt, sides["transformer"].embed(empty, length)])
        latents = torch.randn(shape).to(device)
        trajectory = [latents]
        for first, last, parts in zip(levels[:-1], levels[1:], TEACHER_STEPS, strict=True):
            for level, after in _between(first, last, parts):
                name = "transformer" if level >= BOUNDARY else "transformer_2"
                times = torch.full((2 * batch,), level * TRAINING_TIMES, device=device)
                with mixed_precision(device):
                    conditional, unconditional = (
                        sides[name](torch.cat([latents, latents]), times, both).float().chunk(2)
                    )
                latents = latents + (after - level) * (unconditional + guidance[name] * (conditional - unconditional))
            trajectory.append(latents)
        trajectories.append(torch.stack(trajectory, 1).half().cpu())
        prompts.append(prompt.half().cpu())
        spent += time.monotonic() - start
        logger.info("trajectories %d/%d  %.0f s", sum(map(len, trajectories)), count, spent)
        save_state(path, {"latents": torch.cat(trajectories), "prompts": torch.cat(prompts), "seconds": spent})
    return Trajectories(torch.cat(trajectories), torch.cat(prompts), levels), spent


def _between(first: float, last: float, parts: int) -> list[tuple[float, float]]:
    """Divide the interval between two levels into parts that are equal before the flow shift."""
    shift = FLOW_SHIFT
    start, end = (level / (shift - (shift - 1) * level) for level in (first, last))
    even = np.linspace(start, end, parts + 1)
    levels = [float(value) for value in shift * even / (1 + (shift - 1) * even)]
    return list(itertools.pairwise(levels))


class StepLoss:
    """Squared velocity error between one step of an expert and the trajectory of the teacher."""

    def __init__(self, denoiser: Denoiser, trajectories: Trajectories, high: bool, batch: int) -> None:
        self._denoiser, self._teacher, self._batch = denoiser, trajectories, batch
        self._steps = np.array([i for i, level in enumerate(trajectories.levels[:-1]) if (level >= BOUNDARY) == high])

    def __call__(self, step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return the loss of one step."""
        device = next(self._denoiser.parameters()).device
        chosen = torch.from_numpy(rng.integers(len(self._teacher.latents), size=self._batch))
        index = torch.from_numpy(rng.choice(self._steps, size=self._batch))
        levels = torch.tensor(self._teacher.levels)
        before, after = levels[index], levels[index + 1]
        noisy = self._teacher.latents[chosen, index].float()
        velocity = (self._teacher.latents[chosen, index + 1].float() - noisy) / (after - before)[
            :, None, None, None, None
        ]
        with mixed_precision(device):
            predicted = self._denoiser(
                noisy.to(device),
                (before * TRAINING_TIMES).to(device),
                self._teacher.prompts[chosen].to(device).float(),
            )
        return {"step": (predicted.float() - velocity.to(device)).square().mean()}
