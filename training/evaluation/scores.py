"""What the judge counts: per aspect, and how near the given images come back.

Knows neither the model nor how a clip is looked at.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.world.observation import Frames, Observation
from training.world.scenes import Scene

#: What a clip is asked for, in the order of the score table.
ASPECTS = ("colour", "background", "motion", "shape")
#: From here on a frame counts as the given image, in dB.
ENOUGH = 24.0


@dataclass
class Scores:
    """What was right, per aspect, which mistakes were made, and how near given images came."""

    count: int = 0
    right: Counter[str] = field(default_factory=Counter)
    #: (aspect, asked for, seen) and how often.
    mistakes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    #: Peak signal-to-noise ratios in dB of the first and last frame against the given images, per clip.
    first_frames: list[float] = field(default_factory=list)
    last_frames: list[float] = field(default_factory=list)

    def add(self, scene: Scene, seen: Observation) -> None:
        """Count one clip."""
        self.count += 1
        wrong = [aspect for aspect in ASPECTS if getattr(scene, aspect) != getattr(seen, aspect)]
        self.right.update(aspect for aspect in ASPECTS if aspect not in wrong)
        self.right.update([] if wrong else ["everything"])
        self.mistakes.update((aspect, getattr(scene, aspect), getattr(seen, aspect)) for aspect in wrong)

    def share(self, aspect: str) -> float:
        """Share of the clips, 0 to 1, that were right in an aspect or in "everything"."""
        return self.right[aspect] / max(1, self.count)

    def summary(self) -> dict[str, Any]:
        """Give everything as plain values, for the notes in the model's folder."""
        plain: dict[str, Any] = {"count": self.count, "right": {name: self.right[name] for name in RIGHT}}
        plain["mistakes"] = [[*mistake, often] for mistake, often in self.mistakes.most_common()]
        for name, ratios in (("first_frame", self.first_frames), ("last_frame", self.last_frames)):
            if ratios:
                enough = sum(ratio >= ENOUGH for ratio in ratios)
                plain[name] = {
                    "mean_db": round(float(np.mean(ratios)), 1),
                    "least_db": round(min(ratios), 1),
                    "enough": enough,
                }
        return plain


#: Every name that `Scores.right` counts.
RIGHT = (*ASPECTS, "everything")


def likeness(frame: Frames, image: Frames) -> float:
    """Peak signal-to-noise ratio in dB between two uint8 pictures of one size."""
    error = float(np.mean((frame.astype(np.float64) - image.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
