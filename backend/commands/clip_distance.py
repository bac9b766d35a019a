"""Measures the distance of two video files over the frames that a player shows. Compares pixels only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from backend.core.errors import WanError

_PEAK = 255.0  # of 8-bit samples


class NotComparable(WanError):
    """The two videos cannot be compared frame by frame."""

    code = "not_comparable"
    category = "input_validation"
    suggestions = ("Look at the table of what has changed.",)


@dataclass(frozen=True, slots=True)
class ClipDistance:
    """The distance of two clips; PSNR = 10 log10(255² / mean squared error) in dB, infinite for equal pixels."""

    frames: int
    psnr: float  #: dB, over all samples of all frames
    worst_psnr: float  #: dB, of the frame that is furthest off
    worst_frame: int  #: its number, from 0

    @property
    def equal(self) -> bool:
        """Whether every pixel is the same."""
        return math.isinf(self.psnr)


def measure_distance(one: Path, other: Path) -> ClipDistance:
    """Compare two video files frame by frame, as RGB.

    Raises:
        NotComparable: a file cannot be decoded, or they differ in size or length.
    """
    errors: list[float] = []
    try:
        for first, second in zip_longest(_frames(one), _frames(other)):
            if first is None or second is None:
                raise NotComparable("The two videos have different numbers of frames")
            if first.shape != second.shape:
                raise NotComparable("The two videos have different sizes")
            errors.append(float(np.square(first.astype(np.int32) - second).mean()))
    except (av.FFmpegError, OSError) as error:
        raise NotComparable(f"A video cannot be decoded: {error}") from error
    if not errors:
        raise NotComparable("There are no frames to compare")
    worst = max(range(len(errors)), key=errors.__getitem__)
    return ClipDistance(len(errors), _psnr(sum(errors) / len(errors)), _psnr(errors[worst]), worst)


def _frames(path: Path) -> Iterator[npt.NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise NotComparable(f"{path} has no pictures")
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _psnr(error: float) -> float:
    return math.inf if error == 0 else 10 * math.log10(_PEAK**2 / error)
