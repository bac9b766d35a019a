"""What a soak concludes from its samples: only real growth counts, and a new process is no growth."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.soak.chart import draw
from benchmarks.soak.sampler import Sample
from benchmarks.soak.slopes import fit, warm

HALF_AN_HOUR = np.arange(0.0, 0.5, 3 / 3600)


def _series(per_hour: float, *, level: float = 200.0, life: int = 1, seed: int = 1) -> list[Sample]:
    """Samples that grow by this much, with noise whose neighbours resemble each other."""
    noise = np.random.default_rng(seed).normal(0.0, 1.0, len(HALF_AN_HOUR))
    slow = np.convolve(noise, np.ones(10) / 10, mode="same")
    return [
        Sample(float(hours), int(hours * 4000), life, float(level + per_hour * hours + one))
        for hours, one in zip(HALF_AN_HOUR, slow, strict=True)
    ]


def test_growth_is_found_per_hour_and_per_thousand_tasks() -> None:
    by_time, by_tasks = fit(_series(40.0), "hour"), fit(_series(40.0), "1,000 tasks")
    assert by_time is not None
    assert by_tasks is not None
    assert by_time.low < 40.0 < by_time.high
    assert by_tasks.value == pytest.approx(by_time.value / 4, rel=0.01)
    assert by_time.exceeds(20.0)
    assert not by_time.exceeds(45.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_level_with_slow_noise_does_not_grow(seed: int) -> None:
    slope = fit(warm(_series(0.0, seed=seed)), "hour")
    assert slope is not None
    assert not slope.exceeds(1.0)


def test_a_process_that_takes_anothers_place_is_no_growth() -> None:
    first, second = _series(0.0, level=200.0), _series(0.0, level=400.0, life=2, seed=2)
    later = [Sample(one.hours + 0.5, one.tasks + 2000, one.life, one.value) for one in second]
    slope = fit(warm(first + later), "hour")
    assert slope is not None
    assert abs(slope.value) < 5.0


def test_the_warm_up_and_processes_that_hardly_outlive_it_do_not_count() -> None:
    short = [Sample(1.0 + number / 1200, 0, 9, 1000.0) for number in range(62)]
    kept = warm(_series(0.0) + short)
    assert {sample.life for sample in kept} == {1}
    assert min(sample.hours for sample in kept) >= 0.05
    assert fit(kept[:3], "hour") is None


def test_counts_are_whole_numbers() -> None:
    slope = fit([Sample(number / 100, number, 1, 5 + number) for number in range(40)], "hour")
    assert slope is not None
    assert slope.value == pytest.approx(100.0)


def test_the_chart_is_an_svg_with_a_part_for_each_series() -> None:
    drawing = ElementTree.fromstring(
        draw({"web threads": _series(0.0), "a <b>": _series(9.0)}, {"web threads": "flat"})
    )
    groups = drawing.findall("{http://www.w3.org/2000/svg}g")
    texts = [text.text for group in groups for text in group.iter("{http://www.w3.org/2000/svg}text")]
    assert len(groups) == 2
    assert {"web threads", "a <b>", "flat", "30 min"} <= set(texts)
