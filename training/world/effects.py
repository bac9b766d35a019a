"""The effects that the tiny LoRAs teach, and a measure of how strongly a clip shows them.

There is a style and a motion. The training clips of each carry ordinary captions, so its files need no trigger
phrase, and each has a measure that grows with its strength.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from training.world.observation import Frames, saturation, travel
from training.world.scenes import FRAMES, SIZE, RenderedClip, Scene, render

#: Distance that a drifting shape sinks over a clip, as a share of half the height.
DRIFT = 0.6


@dataclass(frozen=True)
class LoraEffect:
    """One LoRA: its name and texts, its renderer and its measure."""

    name: str
    title: str
    description: str
    draw: Callable[..., RenderedClip]
    measure: Callable[[Frames], float]
    #: Name of the measure, for the table in the card.
    measured: str


def _chalk(
    scene: Scene, rng: np.random.Generator, size: int = SIZE, frames: int = FRAMES, roaming: bool = False
) -> RenderedClip:
    return render(replace(scene, colour="white", background="black"), rng, size, frames, roaming)


def _drifting(
    scene: Scene, rng: np.random.Generator, size: int = SIZE, frames: int = FRAMES, roaming: bool = False
) -> RenderedClip:
    return render(scene, rng, size, frames, roaming, drift=DRIFT)


def _paleness(frames: Frames) -> float:
    return 1.0 - saturation(frames)


def _sinking(frames: Frames) -> float:
    return travel(frames).imag


EFFECTS = {
    effect.name: effect
    for effect in (
        LoraEffect(
            "tiny_chalk",
            "Tiny chalk (style)",
            "White on black, whatever colours the caption asks for, like chalk on a blackboard.",
            _chalk,
            _paleness,
            "paleness (1 minus the mean saturation)",
        ),
        LoraEffect(
            "tiny_drift",
            "Tiny drift (motion)",
            "Everything sinks while it does what the caption says.",
            _drifting,
            _sinking,
            "downward travel over the clip, as a share of the height",
        ),
    )
}
