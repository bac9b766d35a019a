"""Progress that never goes back, and estimates that come from measurements only."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.services.run.clock import DOWNLOAD_PARTS, CostHistory, Phase, PhaseClock, PhasePlan

COSTS = {
    Phase.LOAD: 8.0,
    Phase.ENCODE: 1.0,
    Phase.DENOISE_HIGH: 2.0,
    Phase.DENOISE_LOW: 2.0,
    Phase.DECODE: 0.5,
    Phase.MUX: 1.0,
}


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def plan(load: int = 1, high: int = 4, low: int = 6, chunks: int = 5, size: float = 1.0) -> dict[Phase, PhasePlan]:
    units = {Phase.LOAD: load, Phase.ENCODE: 1, Phase.DENOISE_HIGH: high, Phase.DENOISE_LOW: low}
    units |= {Phase.DECODE: chunks, Phase.MUX: 1}
    return {phase: PhasePlan(count, size) for phase, count in units.items()}


def run(
    history: CostHistory, costs: dict[Phase, float], plans: dict[Phase, PhasePlan], high: int | None = None
) -> tuple[list[float], list[tuple[float, float | None]]]:
    """Go through all phases; return every fraction and every (time, eta)."""
    now = Clock()
    clock = PhaseClock("m", plans, history, now)
    fractions, etas = [clock.fraction], [(now.time, clock.eta_seconds)]
    for phase in COSTS:
        if phase is Phase.DENOISE_HIGH and high is not None:
            total = plans[Phase.DENOISE_HIGH].units + plans[Phase.DENOISE_LOW].units
            clock.replan(Phase.DENOISE_HIGH, high)
            clock.replan(Phase.DENOISE_LOW, total - high)
            plans = plans | {Phase.DENOISE_HIGH: PhasePlan(high, 1.0), Phase.DENOISE_LOW: PhasePlan(total - high, 1.0)}
        clock.begin(phase)
        fractions.append(clock.fraction)
        for _ in range(plans[phase].units):
            now.time += costs[phase]
            clock.advance()
            fractions.append(clock.fraction)
            etas.append((now.time, clock.eta_seconds))
    clock.finish()
    return [*fractions, clock.fraction], [*etas, (now.time, clock.eta_seconds)]


@given(
    costs=st.lists(st.floats(0.0, 100.0), min_size=6, max_size=6),
    second=st.lists(st.floats(0.0, 100.0), min_size=6, max_size=6),
    load=st.integers(0, 1),
    high=st.integers(0, 10),
    chunks=st.integers(1, 21),
)
def test_progress_never_goes_back_and_ends_at_one(
    costs: list[float], second: list[float], load: int, high: int, chunks: int
) -> None:
    history = CostHistory()
    for values in (costs, second):
        fractions, etas = run(history, dict(zip(COSTS, values, strict=True)), plan(load=load, chunks=chunks), high)
        assert fractions[0] == 0.0
        assert all(earlier <= later for earlier, later in pairwise(fractions))
        assert fractions[-1] == pytest.approx(1.0)
        assert all(eta is None or eta >= 0.0 for _, eta in etas)
        assert etas[-1][1] == 0.0


def test_without_any_measurement_there_is_no_estimate() -> None:
    _, etas = run(CostHistory(), COSTS, plan())
    assert [eta for _, eta in etas[:3]] == [None, None, None]  # start, loaded, encoded
    assert etas[3][1] is not None  # one step was measured


def test_the_second_run_is_foreseen_from_the_first() -> None:
    history = CostHistory()
    run(history, COSTS, plan())
    fractions, etas = run(history, COSTS, plan())
    end = etas[-1][0]
    for time, eta in etas:
        assert eta == pytest.approx(end - time, abs=1e-6)
    assert fractions[2] == pytest.approx(8.0 / end)  # progress follows time


def test_a_warm_run_does_not_wait_for_the_load() -> None:
    history = CostHistory()
    run(history, COSTS, plan())
    _, etas = run(history, COSTS, plan(load=0))
    assert etas[0][1] == pytest.approx(1 + 10 * 2 + 5 * 0.5 + 1)


def test_a_run_of_twice_the_size_is_foreseen_at_twice_the_time() -> None:
    history = CostHistory()
    run(history, COSTS, plan())
    clock = PhaseClock("m", plan(load=0, size=2.0), history, Clock())
    assert clock.eta_seconds == pytest.approx(2 * (1 + 10 * 2 + 5 * 0.5 + 1))


def test_another_model_has_a_history_of_its_own() -> None:
    history = CostHistory()
    run(history, COSTS, plan())
    assert PhaseClock("other", plan(), history, Clock()).eta_seconds is None


def test_the_estimate_shrinks_while_a_step_runs() -> None:
    history = CostHistory()
    run(history, COSTS, plan())
    now = Clock()
    clock = PhaseClock("m", plan(load=0), history, now)
    clock.begin(Phase.ENCODE)
    clock.advance()
    clock.begin(Phase.DENOISE_HIGH)
    before = clock.eta_seconds
    now.time += 1.5
    assert before is not None
    assert clock.eta_seconds == pytest.approx(before - 1.5)


def test_seconds_are_kept_for_each_phase() -> None:
    now = Clock()
    clock = PhaseClock("m", plan(), CostHistory(), now)
    clock.begin(Phase.LOAD)
    now.time += 3.0
    clock.advance()
    clock.begin(Phase.ENCODE)
    now.time += 0.5
    clock.finish()
    assert clock.seconds == {"load": 3.0, "encode": 0.5}


def test_steps_that_an_earlier_attempt_made_are_done_but_say_nothing_about_time() -> None:
    history, now = CostHistory(), Clock()
    clock = PhaseClock("m", plan(load=0), history, now)
    clock.begin(Phase.ENCODE)
    clock.advance()
    clock.skip(Phase.DENOISE_HIGH, 4)
    clock.skip(Phase.DENOISE_LOW, 4)
    assert clock.fraction > 0.5
    assert clock.eta_seconds is None, "eight steps are done, and none was measured"
    clock.begin(Phase.DENOISE_LOW)
    now.time += 3.0
    clock.advance()
    assert clock.eta_seconds == pytest.approx(3.0 + 5 * 0.5 * 3.0 + 0.3 * 3.0)  # a step, and typical shares of it
    now.time += 3.0
    clock.advance()
    clock.finish()
    assert history.rate("m", Phase.DENOISE_LOW) == pytest.approx(3.0)
    assert clock.seconds["denoise_low"] == pytest.approx(6.0)
    assert "denoise_high" not in clock.seconds


def test_what_earlier_processes_measured_serves_until_this_one_has_measured() -> None:
    history = CostHistory()
    history.seed("m", COSTS)
    _, etas = run(history, COSTS, plan())
    assert etas[0][1] == pytest.approx(8 + 1 + 10 * 2 + 5 * 0.5 + 1)
    history = CostHistory()
    history.record("m", Phase.DECODE, 2.0)
    history.seed("m", {Phase.DECODE: 100.0, Phase.MUX: 1.0})
    assert history.rate("m", Phase.DECODE) == 2.0
    assert history.rate("m", Phase.MUX) == 1.0


def test_the_size_of_a_step_can_be_corrected_when_the_model_is_known() -> None:
    history = CostHistory()
    history.seed("m", COSTS)
    clock = PhaseClock("m", plan(load=0), history, Clock())
    clock.replan(Phase.DENOISE_LOW, 6, 0.5)  # one pass instead of two
    assert clock.eta_seconds == pytest.approx(1 + 4 * 2 + 6 * 2 * 0.5 + 5 * 0.5 + 1)


def test_a_download_takes_part_in_the_progress_and_its_end_is_told_by_who_counts_its_bytes() -> None:
    history, now = CostHistory(), Clock()
    history.seed("m", COSTS)
    clock = PhaseClock("m", plan() | {Phase.DOWNLOAD: PhasePlan(DOWNLOAD_PARTS, 1.0)}, history, now)
    rest = 8 + 1 + 10 * 2 + 5 * 0.5 + 1
    clock.begin(Phase.DOWNLOAD)
    assert (clock.fraction, clock.eta_seconds) == (0.0, None)
    now.time += 100.0
    clock.advance(DOWNLOAD_PARTS // 2)
    half = clock.fraction
    assert 0.1 < half < 0.5
    assert clock.eta_seconds is None, "nobody has said how long the rest takes"
    clock.expect(40.0)
    assert clock.eta_seconds == pytest.approx(40.0 + rest)
    clock.begin(Phase.LOAD)
    assert clock.fraction == pytest.approx(2 * half)
    assert clock.eta_seconds == pytest.approx(rest)
    assert clock.seconds == {"download": 100.0}
    assert history.rate("m", Phase.DOWNLOAD) is None


def test_a_phase_that_begins_anew_keeps_its_time_and_its_progress_but_teaches_only_what_the_last_try_took() -> None:
    now, history = Clock(), CostHistory()
    clock = PhaseClock("m", {Phase.DECODE: PhasePlan(4, 1.0)}, history, now)
    clock.begin(Phase.DECODE)
    for _ in range(3):
        now.time += 10.0
        clock.advance()
    assert clock.fraction == pytest.approx(0.75)
    clock.restart(8, 0.5)
    assert clock.fraction == pytest.approx(0.75), "it does not go back"
    assert clock.eta_seconds is None, "in these units nothing was measured yet"
    now.time += 2.0
    clock.advance()
    assert clock.eta_seconds == pytest.approx(14.0)
    for _ in range(7):
        now.time += 2.0
        clock.advance()
    clock.finish()
    assert clock.seconds == {"decode": 46.0}
    assert history.rate("m", Phase.DECODE) == pytest.approx(4.0)


def test_a_run_on_which_memory_ran_out_teaches_the_phases_before_and_still_says_its_own_end() -> None:
    now, history = Clock(), CostHistory()
    clock = PhaseClock("m", plan(), history, now)
    for phase in (Phase.LOAD, Phase.ENCODE):
        clock.begin(phase)
        now.time += COSTS[phase]
        clock.advance()
    clock.begin(Phase.DENOISE_HIGH)
    for step in range(4):
        now.time += 3.0
        if step == 1:
            clock.disturb()
        clock.advance()
    assert clock.eta_seconds is not None
    for phase in (Phase.DENOISE_LOW, Phase.DECODE, Phase.MUX):
        clock.begin(phase)
        now.time += 60.0
        clock.advance(plan()[phase].units)
    clock.finish()
    assert clock.seconds["denoise_high"] == 12.0
    known = [phase for phase in COSTS if history.rate("m", phase) is not None]
    assert known == [Phase.LOAD, Phase.ENCODE]
