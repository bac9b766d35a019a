"""Costs are recovered from noisy times, are never negative, and neither one run nor one outlier distorts them."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.core.catalogue.architecture import ARCHITECTURES
from backend.core.catalogue.table import MODELS, find_model
from backend.core.planning.calibration import MemoryCorrection, Observation, Peak, fit_costs, refine, refine_load
from backend.core.planning.cost_model import Basis, Rates, Workload, rates_of, seconds, weight_bytes
from backend.core.planning.footprint import Footprint
from backend.core.planning.memory_plan import PLANS

TINY = [name for name, spec in MODELS.items() if spec.embedded]
#: width, height, frames, steps: ten to learn from, and others to predict.
LEARNT = [
    (64, 64, 9, 4),
    (96, 96, 17, 20),
    (128, 96, 5, 8),
    (160, 160, 9, 6),
    (96, 128, 33, 10),
    (192, 192, 5, 4),
    (64, 96, 25, 30),
    (224, 256, 9, 5),
    (128, 128, 17, 12),
    (256, 256, 5, 4),
]
FORETOLD = [(96, 64, 13, 15), (160, 128, 17, 8), (256, 192, 9, 10), (192, 256, 9, 6), (256, 256, 17, 20)]


def tiny(model: str, width: int, height: int, frames: int, steps: int) -> Workload:
    multiple = find_model(model).size_multiple
    return Workload.native(
        find_model(model), (width // multiple * multiple, height // multiple * multiple), frames, steps
    )


def machine(by: float, overhead: float) -> Rates:
    """A processor faster than the initial one by a factor, with its fixed costs multiplied by another."""
    known = rates_of(None, 2)
    assert known.unfolding is not None
    return replace(
        known,
        transformer=by * known.transformer,
        decode=by * known.decode,
        unfolding=2 * by * known.unfolding,
        forward=overhead * known.forward,
        chunk=overhead * known.chunk,
        begin=overhead * known.begin,
        finish=overhead * known.finish,
        finish_pixels=known.finish_pixels / by,
        image=1.4,
    )


def observed(work: Workload, rates: Rates, noise: float = 1.0) -> Observation:
    """The times of a task on a machine with these rates."""
    took = seconds(work, PLANS[0], rates, cpu=True)
    return Observation(work, noise * took.denoise, noise * took.decode, noise * took.encode, noise * took.finish)


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize(("by", "overhead"), [(1.0, 1.0), (0.3, 4.0), (5.0, 0.3), (0.2, 0.1)])
def test_ten_noisy_runs_predict_others_within_a_quarter(model: str, by: float, overhead: float) -> None:
    dice = random.Random(7)
    truth = machine(by, overhead)
    runs = [observed(tiny(model, *size), truth, dice.uniform(0.9, 1.1)) for size in LEARNT]
    runs[4] = observed(runs[4].workload, truth, 6.0)  # an outlier: the machine was busy
    rates = refine(rates_of(None, 2), runs)
    for size in FORETOLD:
        work = tiny(model, *size)
        said, is_so = (seconds(work, PLANS[0], one, cpu=True) for one in (rates, truth))
        assert said.basis is Basis.MEASURED
        assert said.warm == pytest.approx(is_so.warm, rel=0.25)


@pytest.mark.parametrize("name", [None, "NVIDIA H100 80GB HBM3"])
@pytest.mark.parametrize("model", [name for name, spec in MODELS.items() if not spec.embedded])
def test_a_single_run_of_a_large_model_is_reproduced_and_others_scale_with_it(model: str, name: str | None) -> None:
    work = Workload.native(find_model(model))
    begin = rates_of(name, 16)
    before = seconds(work, PLANS[0], begin, cpu=name is None)
    once = Observation(work, 1.7 * before.denoise, 0.6 * before.decode)
    rates = refine(begin, [once])
    after = seconds(work, PLANS[0], rates, cpu=name is None)
    assert after.denoise == pytest.approx(1.7 * before.denoise, rel=1e-3)
    assert after.decode == pytest.approx(0.6 * before.decode, rel=1e-3)
    longer = replace(work, steps=work.steps * 2, passes=work.passes * 2)
    twice = seconds(longer, PLANS[0], rates, cpu=name is None)
    assert twice.denoise == pytest.approx(after.denoise * 2, rel=1e-3)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_costs_are_never_negative_and_more_work_never_takes_less_time(data: st.DataObject) -> None:
    width, amounts = data.draw(st.integers(1, 3)), st.just(0.0) | st.floats(1e-6, 1e4)
    rows = data.draw(st.lists(st.lists(amounts, min_size=width, max_size=width), min_size=1, max_size=20))
    times = data.draw(st.lists(st.floats(1e-3, 1e5), min_size=len(rows), max_size=len(rows)))
    expected = data.draw(st.lists(st.floats(1e-6, 1e3), min_size=width, max_size=width))
    costs = fit_costs(rows, times, expected)
    assert all(cost >= 0 for cost in costs)
    for index, cost in enumerate(costs):
        if not any(row[index] for row in rows):
            assert cost == expected[index]


def test_more_steps_and_frames_are_never_predicted_to_take_less() -> None:
    dice = random.Random(3)
    runs = [observed(tiny(TINY[0], *size), machine(1.0, 1.0), dice.uniform(0.2, 5.0)) for size in LEARNT]
    rates = refine(rates_of(None, 2), runs)
    for grown in (
        [tiny(TINY[0], 96, 96, 17, steps) for steps in range(1, 40)],
        [tiny(TINY[0], 96, 96, frames, 8) for frames in range(5, 66, 4)],
        [tiny(TINY[0], width, 96, 17, 8) for width in range(64, 257, 16)],
    ):
        times = [seconds(work, PLANS[0], rates, cpu=True).warm for work in grown]
        assert all(before <= after for before, after in pairwise(times))


def test_the_load_time_is_unknown_until_a_model_was_loaded_from_disk() -> None:
    work = Workload.native(find_model("TI2V-5B"))
    begin = rates_of("NVIDIA H100", 8)
    assert seconds(work, PLANS[0], begin).load is None
    assert refine_load(begin, [(work, 0.0), (work, 0.01)]) == begin  # the model was already loaded
    rates = refine_load(begin, [(work, 20.0), (work, 0.0), (work, 30.0), (work, 400.0)])
    assert "load" in rates.measured
    assert seconds(work, PLANS[0], rates).load == pytest.approx(30.0)
    tiny_load = seconds(Workload.native(find_model(TINY[0])), PLANS[0], rates).load
    assert tiny_load == pytest.approx(30.0 * weight_bytes(ARCHITECTURES[TINY[0]]) / weight_bytes(work.architecture))


def test_the_memory_correction_follows_measured_runs_within_bounds() -> None:
    said = Footprint(vram=1000, pinned=100, pageable=900, disk=7, heap=50)
    assert MemoryCorrection.of([]).apply(said) == said
    learnt = MemoryCorrection.of([Peak(said, ram=1200, vram=None), Peak(said, ram=1100, vram=None)])
    needs = learnt.apply(said)
    assert (needs.ram, needs.vram, needs.disk) == (1150, 1000, 7)
    assert needs.measured == {"ram"}
    both = MemoryCorrection.of([Peak(said, ram=10, vram=90_000)])
    assert (both.ram, both.vram) == (0.75, 2.0)
    assert both.apply(said).measured == {"ram", "vram"}


@pytest.mark.parametrize("model", TINY)
@pytest.mark.parametrize("load", [2.0, 12.0])
def test_one_quick_run_after_a_loaded_hour_restores_the_estimate(model: str, load: float) -> None:
    true = machine(1.0, 1.0)
    work = tiny(model, 96, 96, 17, 20)
    usual = refine(rates_of(None, 2), [observed(work, true)] * 5)
    slowed = [observed(work, true, load)] * 15
    recovered = refine(rates_of(None, 2), [observed(work, true), *slowed])  # newest first
    plan = PLANS[0]
    expected = seconds(work, plan, usual, cpu=True).warm
    assert seconds(work, plan, recovered, cpu=True).warm == pytest.approx(expected, rel=0.05)


def test_a_machine_that_is_slower_for_good_is_believed() -> None:
    true = machine(1.0, 1.0)
    work = tiny(TINY[0], 64, 64, 9, 4)
    slower = refine(rates_of(None, 2), [*[observed(work, true, 3.0)] * 5, *[observed(work, true)] * 3])
    usual = refine(rates_of(None, 2), [observed(work, true)] * 8)
    plan = PLANS[0]
    assert seconds(work, plan, slower, cpu=True).warm > 1.4 * seconds(work, plan, usual, cpu=True).warm
