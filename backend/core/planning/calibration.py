"""Fits a machine's rates, fixed costs and memory corrections to observations of finished tasks.

Works with few and noisy times: costs are never negative, and one outlier does not dominate them. Pure calculation;
knows neither records nor the queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from operator import mul
from statistics import median
from typing import Final

from backend.core.planning.cost_model import (
    GIGA,
    TERA,
    Rates,
    Workload,
    decode_amounts,
    denoise_flops,
    image_seconds,
    vae_costs,
    weight_bytes,
)
from backend.core.planning.footprint import Footprint

#: Weight of the expected costs against one measured time. Small: several times that distinguish the costs outweigh
#: it; with a single one the costs keep their proportions.
_TRUST: Final = 0.02
#: Relative error above which a time loses weight, as in a fit of absolute errors.
_NOISE: Final = 0.05
#: Maximum number of reweightings and of sweeps, and the change below which they have converged.
_ROUNDS, _SWEEPS, _SETTLED = 30, 200, 1e-6
#: A load shorter than this, in seconds, found the model in memory; it says nothing about loading.
WARM_SECONDS: Final = 0.05
#: A cost that was fitted to zero becomes this share of the expected one, so that its rate stays finite.
_LEAST: Final = 1e-6
#: Bounds of a memory correction.
_CORRECTION: Final = (0.75, 2.0)

#: A run is disturbed when it takes longer than the fastest of the newest few runs of equal work by this factor.
_LOADED: Final = 1.5
_NEWEST: Final = 5

Row = tuple[Sequence[float], float]


def fit_costs(
    amounts: Sequence[Sequence[float]], times: Sequence[float], expected: Sequence[float]
) -> tuple[float, ...]:
    """Return the cost of each item, so that the sums of amount times cost approximate the times.

    Minimises the absolute errors, each relative to its time, with a weak pull towards the expected costs, which are
    first scaled by the median ratio of measured to expected time. Iteratively reweighted least squares (IRLS), each
    solved coordinate by coordinate with 0 as the lower bound.

    Args:
        amounts: for each time, the amount of each item in it; not negative.
        times: seconds, each above 0.
        expected: the cost of each item before anything was measured; above 0.

    Returns:
        One cost for each item; an item without any amount keeps its expected cost.
    """
    sums = [sum(a * c for a, c in zip(row, expected, strict=True)) for row in amounts]
    ratios = [time / total for time, total in zip(times, sums, strict=True) if total > 0]
    if not ratios:
        return tuple(expected)
    occurs = [any(row[index] > 0 for row in amounts) for index in range(len(expected))]
    scale = median(ratios)
    scaled = [cost * scale if met else cost for cost, met in zip(expected, occurs, strict=True)]
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
    """Return the non-negative values for which every row sums to 1 as closely as possible, pulled weakly towards 1."""
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


@dataclass(frozen=True, slots=True)
class Observation:
    """Phases of a finished task, in seconds; None = not measured."""

    workload: Workload
    denoise_seconds: float | None
    decode_seconds: float | None
    encode_seconds: float | None = None
    finish_seconds: float | None = None  #: from the last decoded frame to the end


def refine(rates: Rates, observations: Iterable[Observation]) -> Rates:
    """Fit the rates to finished tasks of one model; without any they are returned unchanged.

    Every phase is a sum of amounts times costs (`fit_costs`): forwards and operations; chunks, operations and unfolded
    bytes; the prompt and the image; the run and its pixels. Costs that start at 0 are not fitted: on a card, the runs
    of the large models are too long to reveal them.
    """
    observed = list(observations)
    forward, transformer = rates.forward, 1 / rates.transformer
    if denoise := _rows((_denoising(one.workload), one.denoise_seconds) for one in observed if one.workload.passes):
        forward, transformer = _fit(denoise, (forward, transformer))
        rates = replace(rates, forward=forward, transformer=1 / transformer, measured=rates.measured | {"transformer"})
    if decode := _rows((decode_amounts(one.workload), one.decode_seconds) for one in observed):
        chunk, operation, unfolded = _fit(decode, vae_costs(rates))
        unfolding = None if rates.unfolding is None else 1 / unfolded
        rates = replace(
            rates, chunk=chunk, decode=1 / operation, unfolding=unfolding, measured=rates.measured | {"decode"}
        )
    images = ((1.0, image_seconds(one.workload, rates)) for one in observed)
    encode = _rows((row, one.encode_seconds) for row, one in zip(images, observed, strict=True) if one.workload.prompts)
    if encode and rates.begin:
        begin, image = _fit(encode, (rates.begin, rates.image))
        rates = replace(rates, begin=begin, image=image)
    if finish := _rows(((1.0, prod(one.workload.size) / 1e6), one.finish_seconds) for one in observed):
        finish_run, pixels = _fit(finish, (rates.finish, rates.finish_pixels))
        rates = replace(rates, finish=finish_run, finish_pixels=pixels)
    return replace(rates, known=True) if denoise and decode else rates


def refine_load(rates: Rates, loads: Iterable[tuple[Workload, float]]) -> Rates:
    """Set the load rate to the median over these loads, in seconds; without any it stays unknown."""
    found = [weight_bytes(work.architecture) / GIGA / taken for work, taken in loads if taken > WARM_SECONDS]
    return replace(rates, load=median(found), measured=rates.measured | {"load"}) if found else rates


def _denoising(work: Workload) -> tuple[float, float]:
    return work.passes, denoise_flops(work) / TERA


def _rows(pairs: Iterable[tuple[Sequence[float], float | None]]) -> list[Row]:
    return _undisturbed([(amounts, taken) for amounts, taken in pairs if taken])


def _undisturbed(rows: Sequence[Row]) -> list[Row]:
    """Leave out the times of equal work that took much longer than its fastest: the machine had other load then.

    Other load only ever slows a run down, so one quick run after a loaded hour restores the estimate. Only the newest
    few count (rows come newest first), so that a machine that is slower for good is believed after them.
    """
    newest: dict[Sequence[float], list[Row]] = {}
    for row in rows:
        same = newest.setdefault(tuple(row[0]), [])
        if len(same) < _NEWEST:
            same.append(row)
    return [row for same in newest.values() for row in same if row[1] <= _LOADED * min(taken for _, taken in same)]


def _fit(rows: Sequence[Row], expected: Sequence[float]) -> tuple[float, ...]:
    """Fit the costs whose expected value is not 0."""
    wanted = [index for index, cost in enumerate(expected) if cost > 0]
    if not wanted:
        return tuple(expected)
    amounts = [[row[index] for index in wanted] for row, _ in rows]
    fitted = fit_costs(amounts, [taken for _, taken in rows], [expected[index] for index in wanted])
    costs = dict(zip(wanted, fitted, strict=True))
    return tuple(max(costs.get(index, 0.0), _LEAST * cost) for index, cost in enumerate(expected))


@dataclass(frozen=True, slots=True)
class Peak:
    """The predicted memory of a run and its measured peak in bytes; None = not measured."""

    predicted: Footprint
    ram: int | None
    vram: int | None


@dataclass(frozen=True, slots=True)
class MemoryCorrection:
    """Measured by predicted memory of one model on one kind of device; None = never measured."""

    ram: float | None = None
    vram: float | None = None

    @classmethod
    def of(cls, peaks: Iterable[Peak]) -> MemoryCorrection:
        """Take the median ratio, within bounds: a few odd runs must not make the planner careless."""
        runs = list(peaks)
        return cls(
            ram=_correction((peak.ram, peak.predicted.ram) for peak in runs),
            vram=_correction((peak.vram, peak.predicted.vram) for peak in runs),
        )

    def apply(self, needs: Footprint) -> Footprint:
        """Return the corrected footprint, which names the memories that were measured."""
        ram, vram = self.ram or 1.0, self.vram or 1.0
        measured = {name for name, factor in (("ram", self.ram), ("vram", self.vram)) if factor is not None}
        return replace(
            needs,
            vram=round(vram * needs.vram),
            pinned=round(ram * needs.pinned),
            pageable=round(ram * needs.pageable),
            heap=round(ram * needs.heap),
            measured=frozenset(measured),
        )


def _correction(pairs: Iterable[tuple[int | None, int]]) -> float | None:
    ratios = [measured / predicted for measured, predicted in pairs if measured and predicted]
    lowest, highest = _CORRECTION
    return min(max(median(ratios), lowest), highest) if ratios else None
