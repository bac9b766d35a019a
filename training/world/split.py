"""Which captions training may see: the only place that decides it.

A fixed fifth of all scenes is held out for the judge. Neither the autoencoder nor the experts are
ever shown a clip of one, while every word of the world is still met in training.
"""

from __future__ import annotations

import hashlib

import numpy as np

from training.world.scenes import Scene, all_scenes

#: Changing this changes what "never seen" means and makes every published score void.
SPLIT_SEED = "tiny-wan-1"
HELD_OUT_SHARE = 0.2


def held_out() -> list[Scene]:
    """List the scenes kept away from training (240 of 1200), in a fixed shuffled order."""
    ranked = sorted(all_scenes(), key=_rank)
    return ranked[: round(len(ranked) * HELD_OUT_SHARE)]


def seen() -> list[Scene]:
    """List the scenes that training may draw from, in the world's order."""
    hidden = set(held_out())
    return [scene for scene in all_scenes() if scene not in hidden]


class SceneSource:
    """Draws training scenes evenly, never a held-out one."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._scenes = seen()
        self._spinning = [scene for scene in self._scenes if scene.motion == "spinning"]

    def draw(self) -> Scene:
        """Pick one scene that training may see."""
        return self._scenes[int(self._rng.integers(len(self._scenes)))]

    def draw_spinning(self) -> Scene:
        """Pick one scene that training may see in which the shape spins."""
        return self._spinning[int(self._rng.integers(len(self._spinning)))]


def _rank(scene: Scene) -> str:
    # A hash and not a generator's shuffle: the split must not move with a library's version.
    return hashlib.sha256(f"{SPLIT_SEED}|{scene.caption}".encode()).hexdigest()
