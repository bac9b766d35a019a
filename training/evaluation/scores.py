"""The scores of the judge: correct clips per aspect, and the fidelity to the input images.

Knows neither the model nor how a clip is analysed.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.world.observation import Frames, ObservedScene
from training.world.scenes import Scene

#: The judged aspects of a clip, in the order of the score table.
ASPECTS = ("colour", "background", "motion", "shape")
#: Overlap with a perfect shape from which a clip keeps its outline; rendered clips reach 0.95 to 1.
SHARP = 0.9
#: PSNR in dB from which a frame counts as a reproduction of the input image.
ENOUGH = 24.0


@dataclass
class Scores:
    """The correct clips per aspect, the mistakes, and the fidelity to the input images."""

    count: int = 0
    right: Counter[str] = field(default_factory=Counter)
    #: Number of mistakes by (aspect, expected, observed).
    mistakes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    #: PSNR in dB of the first and last frame against the input images, per clip.
    first_frames: list[float] = field(default_factory=list)
    last_frames: list[float] = field(default_factory=list)
    #: Overlap of the shape with a perfect one, per clip.
    outlines: list[float] = field(default_factory=list)

    def add(self, scene: Scene, observed: ObservedScene) -> None:
        """Count one clip."""
        self.count += 1
        wrong = [aspect for aspect in ASPECTS if getattr(scene, aspect) != getattr(observed, aspect)]
        self.right.update(aspect for aspect in ASPECTS if aspect not in wrong)
        self.right.update([] if wrong else ["everything"])
        self.outlines.append(observed.outline)
        self.mistakes.update((aspect, getattr(scene, aspect), getattr(observed, aspect)) for aspect in wrong)

    def share(self, aspect: str) -> float:
        """Return the share of the clips, 0 to 1, that were correct in an aspect or in "everything"."""
        return self.right[aspect] / max(1, self.count)

    def summary(self) -> dict[str, Any]:
        """Return the scores as plain values, for the notes in the folder of the model."""
        plain: dict[str, Any] = {"count": self.count, "right": {name: self.right[name] for name in RIGHT}}
        plain["mistakes"] = [[*mistake, times] for mistake, times in self.mistakes.most_common()]
        if self.outlines:
            plain["outline"] = {
                "mean": round(float(np.mean(self.outlines)), 3),
                "least": round(min(self.outlines), 3),
                "enough": sum(overlap >= SHARP for overlap in self.outlines),
            }
        for name, ratios in (("first_frame", self.first_frames), ("last_frame", self.last_frames)):
            if ratios:
                enough = sum(ratio >= ENOUGH for ratio in ratios)
                plain[name] = {
                    "mean_db": round(float(np.mean(ratios)), 1),
                    "least_db": round(min(ratios), 1),
                    "enough": enough,
                }
        return plain


#: The keys of `Scores.right`.
RIGHT = (*ASPECTS, "everything")


def likeness(frame: Frames, image: Frames) -> float:
    """Return the peak signal-to-noise ratio in dB of two uint8 images of the same size."""
    error = float(np.mean((frame.astype(np.float64) - image.astype(np.float64)) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
