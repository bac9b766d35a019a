"""Whether a series grows: its slope with a confidence interval, after the warm-up.

Every process starts at its own level, so the fit has one level for each and one slope for all. Neighbouring samples of
a process resemble each other; the interval allows for that (Newey and West), or it would be far too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.soak.sampler import Sample

#: Samples of a process before this age are its warm-up, in hours: every thread of the pool works for the first time,
#: the caches of the database's connections fill, and the allocator finds its size.
WARM_UP_HOURS: Final = 10 / 60
#: Width of a confidence interval of 95 %, in standard errors on either side.
_WIDTH: Final = 1.96
#: Fewest samples of a process that count.
_FEWEST: Final = 8

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Limit:
    """How fast something may grow."""

    per: str  #: "hour", or "1,000 tasks"
    tolerance: float


@dataclass(frozen=True, slots=True)
class Slope:
    """How fast something grows, with its confidence interval of 95 %."""

    value: float
    low: float
    high: float
    samples: int

    def exceeds(self, tolerance: float) -> bool:
        """Whether the whole interval lies above the tolerance."""
        return self.low > tolerance


def warm(samples: Sequence[Sample]) -> list[Sample]:
    """Return the samples after the warm-up of their process, without processes that hardly outlived it."""
    kept: list[Sample] = []
    for life in dict.fromkeys(sample.life for sample in samples):
        mine = [sample for sample in samples if sample.life == life]
        after = [sample for sample in mine if sample.hours - mine[0].hours >= WARM_UP_HOURS]
        kept += after if len(after) >= _FEWEST else []
    return kept


def fit(samples: Sequence[Sample], per: str) -> Slope | None:
    """Fit the slope of warm samples, per hour or per 1,000 tasks; None with too few of them."""
    if len(samples) < _FEWEST:
        return None
    across = np.array([sample.hours if per == "hour" else sample.tasks / 1000 for sample in samples], np.float64)
    values = np.array([sample.value for sample in samples], np.float64)  # counts are whole numbers
    lives = np.array([sample.life for sample in samples])
    for life in np.unique(lives):  # takes each process's own level out
        mine = lives == life
        across[mine] -= across[mine].mean()
        values[mine] -= values[mine].mean()
    spread = float(across @ across)
    if spread == 0:
        return None
    value = float(across @ values) / spread
    error = _standard_error(across, values - value * across, lives, spread)
    return Slope(value, value - _WIDTH * error, value + _WIDTH * error, len(samples))


def _standard_error(across: Vector, residuals: Vector, lives: npt.NDArray[Any], spread: float) -> float:
    """Return the standard error of the slope where neighbouring residuals of a process are correlated."""
    scores = across * residuals
    lags = int(4 * (len(scores) / 100) ** (2 / 9)) + len(scores) // 20
    variance = float(scores @ scores)
    for lag in range(1, min(lags + 1, len(scores))):
        same = lives[lag:] == lives[:-lag]
        variance += 2 * (1 - lag / (lags + 1)) * float((scores[lag:] * scores[:-lag])[same].sum())
    return float(np.sqrt(max(variance, 0.0))) / spread
