"""Detects clips that show nothing: black, flat or frozen.

Works on uint8 frames as they leave the decoder; does not decide what follows from a verdict.
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

#: In levels of 255. A frame whose brightest value is below this is black to any viewer.
BLACK_LEVEL = 10
#: In levels. A frame whose darkest and brightest values (per channel) are closer than this shows nothing.
FLAT_SPREAD = 8
#: In levels. A clip in which no value differs from the first frame by more than this is frozen.
FROZEN_CHANGE = 3
_SAMPLE_SIDE = 512


class Quality(StrEnum):
    """The verdict on a clip, as stored in its record."""

    OK = "ok"
    BLACK = "black"
    FLAT = "flat"
    FROZEN = "frozen"


class ClipSentinel:
    """Inspects every frame once and keeps only the first one."""

    def __init__(self) -> None:
        self._frames = 0
        self._brightest = 0
        self._widest = 0
        self._most_changed = 0
        self._first: npt.NDArray[np.int16] | None = None

    def see(self, frames: npt.NDArray[np.uint8]) -> None:
        """Take the next frames into account, uint8 [n, H, W, 3]."""
        stride = max(1, max(frames.shape[1:3]) // _SAMPLE_SIDE)
        sample = frames[:, ::stride, ::stride].astype(np.int16)
        self._frames += len(frames)
        self._brightest = max(self._brightest, int(sample.max()))
        self._widest = max(self._widest, int((sample.max(axis=(1, 2)) - sample.min(axis=(1, 2))).max()))
        if self._first is None:
            self._first = sample[0]
        self._most_changed = max(self._most_changed, int(np.abs(sample - self._first).max()))

    @property
    def quality(self) -> Quality:
        """The verdict on all frames so far."""
        if self._brightest < BLACK_LEVEL:
            return Quality.BLACK
        if self._widest < FLAT_SPREAD:
            return Quality.FLAT
        if self._frames > 1 and self._most_changed <= FROZEN_CHANGE:
            return Quality.FROZEN
        return Quality.OK

    def warnings(self) -> tuple[str, ...]:
        """Return one sentence per fault of the clip; empty if there is none."""
        if self._frames == 0:
            return ("The clip has no frames.",)
        sentences = {
            Quality.BLACK: (
                "The clip is black: no value is brighter than "
                f"{self._brightest} of 255. Try another seed, and check the model's files."
            ),
            Quality.FLAT: (
                "The clip is flat: every frame has a single colour. Try another seed, and check the model's files."
            ),
            Quality.FROZEN: (
                f"The clip is frozen: no value changes by more than {self._most_changed} of 255 over "
                f"{self._frames} frames. Name a movement in the prompt, or try another seed."
            ),
        }
        sentence = sentences.get(self.quality)
        return () if sentence is None else (sentence,)
