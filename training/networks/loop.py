"""The resumable training loop shared by every stage.

Owns checkpoints, the learning-rate schedule, weight averaging and progress lines. A stage that is killed
resumes from its last checkpoint. The loop does not know what it trains.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.networks.optimizer import Muon

logger = logging.getLogger(__name__)

_WARMUP_STEPS = 50
_REPORT_EVERY = 50

#: Maps a step and its random generator to named losses, whose sum is minimised.
LossOf = Callable[[int, np.random.Generator], dict[str, Tensor]]


@dataclass(frozen=True)
class Schedule:
    """Length and learning rates of a stage."""

    name: str
    steps: int
    rate: float
    adam_rate: float
    #: The learning rate falls linearly to this share of its initial value.
    final_share: float = 0.02
    #: Decay of the averaged weights; 0 keeps no average.
    average: float = 0.0
    #: Seconds between checkpoints, and so the most work that a kill can cost.
    checkpoint_seconds: float = 60.0


def run(schedule: Schedule, network: nn.Module, loss_of: LossOf, work: Path, seed: int) -> float:
    """Train `network` in place and return the time it took in seconds; a finished stage is only loaded.

    If the schedule averages weights, the network ends with the average.
    """
    path = work / f"{schedule.name}.pt"
    optimizer = Muon(network.parameters(), schedule.rate, schedule.adam_rate)
    averaged = copy.deepcopy(network) if schedule.average else None
    step, spent = 0, 0.0
    if path.exists():
        state = torch.load(path, weights_only=True, map_location=next(network.parameters()).device)
        step, spent = state["step"], state["seconds"]
        network.load_state_dict(state["network"])
        if averaged is not None:
            averaged.load_state_dict(state["averaged"])
        if step < schedule.steps:
            optimizer.load_state_dict(state["optimizer"])
        logger.info("%s: resumes at step %d of %d", schedule.name, step, schedule.steps)

    def save() -> None:
        state = {"step": step, "seconds": spent, "network": network.state_dict()}
        state |= {"averaged": averaged.state_dict() if averaged is not None else None}
        save_state(path, state | {"optimizer": optimizer.state_dict()})

    smooth: dict[str, float] = {}
    saved_at = tick = time.monotonic()
    while step < schedule.steps:
        # Every step has its own seed, so a resumed stage draws exactly what an uninterrupted one would.
        rng = np.random.default_rng([seed, step])
        torch.manual_seed(int(rng.integers(2**31)))
        losses = loss_of(step, rng)
        network.zero_grad()
        torch.autograd.backward([torch.stack(list(losses.values())).sum()])
        optimizer.step(_rate_scale(schedule, step))
        if averaged is not None:
            _update_average(averaged, network, min(schedule.average, (1 + step) / (10 + step)))
        for name, loss in losses.items():
            smooth[name] = 0.97 * smooth.get(name, loss.item()) + 0.03 * loss.item()
        step += 1
        now = time.monotonic()
        spent, tick = spent + now - tick, now
        if step % _REPORT_EVERY == 0 or step == schedule.steps:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in smooth.items())
            logger.info("%s %d/%d  %s  %.0f s", schedule.name, step, schedule.steps, shown, spent)
        if now - saved_at > schedule.checkpoint_seconds or step == schedule.steps:
            save()
            saved_at = now
    if averaged is not None:
        network.load_state_dict(averaged.state_dict())
    return spent


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically: a kill leaves either the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


def _rate_scale(schedule: Schedule, step: int) -> float:
    left = 1.0 - step / schedule.steps
    return min(1.0, (step + 1) / _WARMUP_STEPS) * max(schedule.final_share, left)


@torch.no_grad()
def _update_average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    for mean, current in zip(averaged.parameters(), network.parameters(), strict=True):
        mean.lerp_(current, 1.0 - decay)
