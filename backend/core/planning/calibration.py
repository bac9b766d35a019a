"""Costs of things that add up to a time, from few and noisy times: never negative, never carried off by one outlier.

Pure calculation; knows neither what the things are nor where the times come from.

What finished tasks say about a machine: its rates and fixed costs instead of constants, and how far off memory is.

Pure calculation over observations; knows no records and no queue.
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

#: How much the costs that were expected weigh against one time that was measured. Small: with several times that tell
#: the costs apart they decide; with one, the costs keep their proportion.
_TRUST: Final = 0.02
#: Relative error from which a time counts less and less, as in a fit of absolute errors.
_NOISE: Final = 0.05
#: How often weights and values are found again at most, and the change from which on nothing changes any more.
_ROUNDS, _SWEEPS, _SETTLED = 30, 200, 1e-6
#: A load that was shorter, in seconds, found the model loaded; it says nothing about loading.
WARM_SECONDS: Final = 0.05

Row = tuple[Sequence[float], float]


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


@dataclass(frozen=True, slots=True)
class Observation:
    """What a finished task took, in seconds; None where it was not measured."""

    workload: Workload
    denoise_seconds: float | None
    decode_seconds: float | None
    encode_seconds: float | None = None
    finish_seconds: float | None = None  #: from the last decoded frame to the end


def refine(rates: Rates, observations: Iterable[Observation]) -> Rates:
    """Replace rates by those that fit what finished tasks of one model took; without any they stay.

    Every phase is a sum of amounts by costs (`fit_costs`): forwards and operations; chunks, operations and bytes that
    are unfolded; the prompt and the image; the run and its pixels. Costs that are 0 to begin with are not looked
    for: on a card, the runs of the large models are too long to show them.
    """
    seen = list(observations)
    forward, transformer = rates.forward, 1 / rates.transformer
    if denoise := _rows((_denoising(one.workload), one.denoise_seconds) for one in seen if one.workload.passes):
        forward, transformer = _fit(denoise, (forward, transformer))
        rates = replace(rates, forward=forward, transformer=1 / transformer, measured=rates.measured | {"transformer"})
    if decode := _rows((decode_amounts(one.workload), one.decode_seconds) for one in seen):
        chunk, operation, unfolded = _fit(decode, vae_costs(rates))
        unfolding = None if rates.unfolding is None else 1 / unfolded
        rates = replace(
            rates, chunk=chunk, decode=1 / operation, unfolding=unfolding, measured=rates.measured | {"decode"}
        )
    images = ((1.0, image_seconds(one.workload, rates)) for one in seen)
    encode = _rows((row, one.encode_seconds) for row, one in zip(images, seen, strict=True) if one.workload.prompts)
    if encode and rates.begin:
        begin, image = _fit(encode, (rates.begin, rates.image))
        rates = replace(rates, begin=begin, image=image)
    if finish := _rows(((1.0, prod(one.workload.size) / 1e6), one.finish_seconds) for one in seen):
        finish_run, pixels = _fit(finish, (rates.finish, rates.finish_pixels))
        rates = replace(rates, finish=finish_run, finish_pixels=pixels)
    return replace(rates, known=True) if denoise and decode else rates


def refine_load(rates: Rates, loads: Iterable[tuple[Workload, float]]) -> Rates:
    """Take the median rate at which models came from disk, given whose they were and the seconds; none stay unknown."""
    found = [weight_bytes(work.architecture) / GIGA / taken for work, taken in loads if taken > WARM_SECONDS]
    return replace(rates, load=median(found), measured=rates.measured | {"load"}) if found else rates


def _denoising(work: Workload) -> tuple[float, float]:
    return work.passes, denoise_flops(work) / TERA


def _rows(pairs: Iterable[tuple[Sequence[float], float | None]]) -> list[Row]:
    return [(amounts, taken) for amounts, taken in pairs if taken]


#: A cost that fits found to be nothing is this share of what was expected, so that its rate is still a number.
_LEAST: Final = 1e-6


def _fit(rows: Sequence[Row], expected: Sequence[float]) -> tuple[float, ...]:
    """Fit the costs that are not 0 to begin with."""
    wanted = [index for index, cost in enumerate(expected) if cost > 0]
    if not wanted:
        return tuple(expected)
    amounts = [[row[index] for index in wanted] for row, _ in rows]
    fitted = fit_costs(amounts, [taken for _, taken in rows], [expected[index] for index in wanted])
    costs = dict(zip(wanted, fitted, strict=True))
    return tuple(max(costs.get(index, 0.0), _LEAST * cost) for index, cost in enumerate(expected))


@dataclass(frozen=True, slots=True)
class Peak:
    """What a run was said to need, and the bytes that it had at its highest; None where it was not measured."""

    said: Footprint
    ram: int | None
    vram: int | None


@dataclass(frozen=True, slots=True)
class MemoryCorrection:
    """By how much one model's runs on one kind of device take more or less than is said; None = never measured."""

    ram: float | None = None
    vram: float | None = None

    @classmethod
    def of(cls, peaks: Iterable[Peak]) -> MemoryCorrection:
        """Take the median of measured to said, within bounds: a few odd runs must not make the planner careless."""
        seen = list(peaks)
        return cls(
            ram=_correction((peak.ram, peak.said.ram) for peak in seen),
            vram=_correction((peak.vram, peak.said.vram) for peak in seen),
        )

    def apply(self, needs: Footprint) -> Footprint:
        """Return what is needed by this correction, with a mark on what was measured."""
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


#: The least and the most that memory is corrected by.
_CORRECTION: Final = (0.75, 2.0)


def _correction(pairs: Iterable[tuple[int | None, int]]) -> float | None:
    ratios = [measured / said for measured, said in pairs if measured and said]
    lowest, highest = _CORRECTION
    return min(max(median(ratios), lowest), highest) if ratios else None
