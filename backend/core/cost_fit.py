"""Costs of things that add up to a time, from few and noisy times: never negative, never carried off by one outlier.

Pure calculation; knows neither what the things are nor where the times come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul
from statistics import median
from typing import Final

#: How much the costs that were expected weigh against one time that was measured. Small: with several times that tell
#: the costs apart they decide; with one, the costs keep their proportion.
_TRUST: Final = 0.02
#: Relative error from which a time counts less and less, as in a fit of absolute errors.
_NOISE: Final = 0.05
#: How often weights and values are found again at most, and the change from which on nothing changes any more.
_ROUNDS, _SWEEPS, _SETTLED = 30, 200, 1e-6


def fit_costs(
    amounts: Sequence[Sequence[float]], times: Sequence[float], expected: Sequence[float]
) -> tuple[float, ...]:
    """Return the cost of each thing, so that the sums of amount times cost come near the times.

    Minimises the absolute errors, each relative to its time, with a weak pull towards the expected costs, which are
    first scaled by the median of measured to expected time. Weighted least squares are solved again with weights from
    the last errors (IRLS), each time coordinate by coordinate with 0 as the lowest value.

    Args:
        amounts: for each time, how much of each thing it was for; none negative.
        times: seconds, each above 0.
        expected: the cost of each thing before anything was measured; above 0.

    Returns:
        One cost for each thing; that of a thing which no time was for stays as expected.
    """
    sums = [sum(a * c for a, c in zip(row, expected, strict=True)) for row in amounts]
    ratios = [time / total for time, total in zip(times, sums, strict=True) if total > 0]
    if not ratios:
        return tuple(expected)
    seen = [any(row[index] > 0 for row in amounts) for index in range(len(expected))]
    scale = median(ratios)
    scaled = [cost * scale if met else cost for cost, met in zip(expected, seen, strict=True)]
    # In units of the scaled costs and of each time, every row should sum to 1, and every cost is expected to be 1.
    rows = [
        [amount * cost / time for amount, cost in zip(row, scaled, strict=True)]
        for row, time in zip(amounts, times, strict=True)
    ]
    found = [1.0] * len(expected)
    for _ in range(_ROUNDS):
        before = found
        errors = [sum(map(mul, row, found)) - 1.0 for row in rows]
        found = _least_squares(rows, [_NOISE / max(_NOISE, abs(error)) for error in errors])
        if max(abs(new - old) for new, old in zip(found, before, strict=True)) < _SETTLED:
            break
    return tuple(value * cost for value, cost in zip(found, scaled, strict=True))


def _least_squares(rows: Sequence[Sequence[float]], weights: Sequence[float]) -> list[float]:
    """Return the values, none negative, with which every row sums to 1 as nearly as may be, pulled weakly towards 1."""
    indices = range(len(rows[0]))
    weighted = list(zip(rows, weights, strict=True))
    matrix = [[sum(by * row[i] * row[j] for row, by in weighted) + _TRUST * (i == j) for j in indices] for i in indices]
    target = [sum(by * row[i] for row, by in weighted) + _TRUST for i in indices]
    found = [1.0] * len(target)
    for _ in range(_SWEEPS):
        largest = 0.0
        for i in indices:
            others = sum(map(mul, matrix[i], found)) - matrix[i][i] * found[i]
            value = max(0.0, (target[i] - others) / matrix[i][i])
            largest, found[i] = max(largest, abs(value - found[i])), value
        if largest < _SETTLED:
            break
    return found
