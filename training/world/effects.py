"""What the tiny LoRAs add to a clip, and how much of it can be seen in one.

A style and a motion. Each draws its training clips from ordinary captions, so its files need no trigger
phrase, and each comes with a measure that grows with its strength.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from training.world.observation import Frames, saturation, travel
from training.world.scenes import FRAMES, SIZE, Clip, Scene, render

#: How far a drifting shape sinks over a clip, as a share of half the height.
DRIFT = 0.6


@dataclass(frozen=True)
class Effect:
    """One LoRA: its name, its words, what it draws and how that is measured."""

    name: str
    title: str
    description: str
    draw: Callable[..., Clip]
    measure: Callable[[Frames], float]
    #: What the measure is, for the table of figures.
    measured: str


def _chalk(
    scene: Scene, rng: np.random.Generator, size: int = SIZE, frames: int = FRAMES, roaming: bool = False
) -> Clip:
    return render(replace(scene, colour="white", background="black"), rng, size, frames, roaming)


def _drifting(
    scene: Scene, rng: np.random.Generator, size: int = SIZE, frames: int = FRAMES, roaming: bool = False
) -> Clip:
    return render(scene, rng, size, frames, roaming, drift=DRIFT)


def _paleness(frames: Frames) -> float:
    return 1.0 - saturation(frames)


def _sinking(frames: Frames) -> float:
    return travel(frames).imag


EFFECTS = {
    effect.name: effect
    for effect in (
        Effect(
            "tiny_chalk",
            "Tiny chalk (style)",
            "White on black, whatever colours the caption asks for, like chalk on a blackboard.",
            _chalk,
            _paleness,
            "paleness (1 minus the mean saturation)",
        ),
        Effect(
            "tiny_drift",
            "Tiny drift (motion)",
            "Everything sinks while it does what the caption says.",
            _drifting,
            _sinking,
            "way down over the clip, as a share of the height",
        ),
    )
}
