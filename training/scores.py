"""What the judge counts, and the settings under which it counts.

Knows neither the model nor how a clip is looked at.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from training.observation import Observation
from training.world import FRAMES, SIZE, Scene

#: What a clip is asked for, in the order of the score table.
ASPECTS = ("colour", "background", "motion", "shape")


@dataclass(frozen=True)
class Settings:
    """How clips are generated; the defaults are the model's recommended settings."""

    steps: int = 20
    #: Guidance of the high-noise expert and of the low-noise expert.
    guidance: float = 4.0
    guidance_2: float = 3.0
    max_sequence_length: int = 64
    size: int = SIZE
    frames: int = FRAMES


@dataclass
class Scores:
    """What was right, per aspect, and which mistakes were made."""

    count: int = 0
    right: Counter[str] = field(default_factory=Counter)
    #: (aspect, asked for, seen) and how often.
    mistakes: Counter[tuple[str, str, str]] = field(default_factory=Counter)

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
