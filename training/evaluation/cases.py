"""The test cases of the judge: held-out scenes, with input images for the models that take them.

Every seed is a function of the position in the held-out list, fixed before any result was seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.world.observation import Frames
from training.world.scenes import Scene, render
from training.world.split import held_out

#: Noise seed of the first held-out caption; each further caption has the next seed.
FIRST_SEED = 1000
#: Seed of the first input image; training uses other seeds.
FIRST_IMAGE_SEED = 500_000


@dataclass(frozen=True)
class Case:
    """One test case: a scene, the seed of its noise, and the input images, if any."""

    scene: Scene
    seed: int
    image: Frames | None = None
    end_image: Frames | None = None


def from_text(count: int) -> list[Case]:
    """Return the first `count` held-out captions."""
    return [Case(scene, FIRST_SEED + index) for index, scene in enumerate(held_out()[:count])]


def from_image(count: int, size: int, with_end: bool = False) -> list[Case]:
    """Return the first `count` held-out captions, each with the first frame of a clip of that scene.

    The shape starts anywhere, so that the image barely reveals the motion in the caption.
    """
    cases = []
    for index, scene in enumerate(held_out()[:count]):
        pixels = render(scene, np.random.default_rng(FIRST_IMAGE_SEED + index), size, roaming=True).pixels
        frames = np.round((pixels + 1) * 127.5).astype(np.uint8).transpose(1, 2, 3, 0)
        cases.append(Case(scene, FIRST_SEED + index, frames[0], frames[-1] if with_end else None))
    return cases
