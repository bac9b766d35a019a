"""The split into training scenes and held-out scenes; it is decided here and nowhere else.

A fixed fifth of all scenes is held out for the judge. Neither the autoencoder nor the experts ever see
a clip of one, while every word of the world still occurs in training.
"""

from __future__ import annotations

import hashlib

import numpy as np

from training.world.scenes import Scene, all_scenes

#: Changing this redefines "never seen" and invalidates every published score.
SPLIT_SEED = "tiny-wan-1"
HELD_OUT_SHARE = 0.2


def held_out() -> list[Scene]:
    """Return the scenes withheld from training (240 of 1200), in a fixed shuffled order."""
    ranked = sorted(all_scenes(), key=_rank)
    return ranked[: round(len(ranked) * HELD_OUT_SHARE)]


def training_scenes() -> list[Scene]:
    """Return the scenes that training may draw from, in the order of `all_scenes`."""
    hidden = set(held_out())
    return [scene for scene in all_scenes() if scene not in hidden]


class SceneSource:
    """Draws training scenes uniformly, never a held-out one."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._scenes = training_scenes()
        self._spinning = [scene for scene in self._scenes if scene.motion == "spinning"]

    def draw(self) -> Scene:
        """Draw one training scene."""
        return self._scenes[int(self._rng.integers(len(self._scenes)))]

    def draw_spinning(self) -> Scene:
        """Draw one training scene in which the shape spins."""
        return self._spinning[int(self._rng.integers(len(self._spinning)))]


def _rank(scene: Scene) -> str:
    # A hash rather than a seeded shuffle: the split must not change with a library version. Of the words rather than
    # the caption: its grammar may change ("an orange"), what was never seen may not.
    words = f"a {scene.colour} {scene.shape} {scene.motion} on a {scene.background} background"
    return hashlib.sha256(f"{SPLIT_SEED}|{words}".encode()).hexdigest()
