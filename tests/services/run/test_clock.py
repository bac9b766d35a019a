"""Progress that never decreases, and time left based on measurements only."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.catalogue.table import MODELS
from backend.core.domain import Phase
from backend.core.planning.cost_model import Basis, Seconds
from backend.core.requests.forms import RequestDraft
from backend.core.requests.rules import resolve_request
from backend.services.run.clock import DOWNLOAD_PARTS, PhaseClock, PhasePlan, plan_phases

COSTS = {
    Phase.LOAD: 8.0,
    Phase.ENCODE: 1.0,
    Phase.DENOISE_HIGH: 2.0,
    Phase.DENOISE_LOW: 2.0,
    Phase.DECODE: 0.5,
    Phase.MUX: 1.0,
}
#: Expected cost of each phase before anything was measured, in steps.
SHARES = {**dict.fromkeys(COSTS, 1.0), Phase.LOAD: 3.0, Phase.ENCODE: 0.3, Phase.DECODE: 0.5, Phase.MUX: 0.3}


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def plan(
    load: int = 1, high: int = 4, low: int = 6, chunks: int = 5, known: dict[Phase, float] | None = None
) -> dict[Phase, PhasePlan]:
    units = {Phase.LOAD: load, Phase.ENCODE: 1, Phase.DENOISE_HIGH: high, Phase.DENOISE_LOW: low}
    units |= {Phase.DECODE: chunks, Phase.MUX: 1}
    return {phase: PhasePlan(count, (known or SHARES)[phase], known is not None) for phase, count in units.items()}


def run(
    costs: dict[Phase, float], plans: dict[Phase, PhasePlan], high: int | None = None
) -> tuple[list[float], list[tuple[float, float | None]]]:
    """Go through all phases; return every fraction and every (time, eta)."""
    now = Clock()
    clock = PhaseClock(plans, now)
    units = {phase: one.units for phase, one in plans.items()}
    fractions, etas = [clock.fraction], [(now.time, clock.eta_seconds)]
    for phase in COSTS:
        if phase is Phase.DENOISE_HIGH and high is not None:
            low = units[Phase.DENOISE_HIGH] + units[Phase.DENOISE_LOW] - high
            clock.split_steps([(HIGH, 2)] * high + [(LOW, 1)] * low)
            units |= {Phase.DENOISE_HIGH: high, Phase.DENOISE_LOW: low}
        clock.begin(phase)
        fractions.append(clock.fraction)
        for _ in range(units[phase]):
            now.time += costs[phase]
            clock.advance()
            fractions.append(clock.fraction)
            etas.append((now.time, clock.eta_seconds))
    clock.finish()
    return [*fractions, clock.fraction], [*etas, (now.time, clock.eta_seconds)]


@given(
    costs=st.lists(st.floats(0.0, 100.0), min_size=6, max_size=6),
    expected=st.lists(st.floats(0.0, 100.0), min_size=6, max_size=6),
    load=st.integers(0, 1),
    high=st.integers(0, 10),
    chunks=st.integers(1, 21),
)
def test_progress_never_goes_back_and_ends_at_one(
    costs: list[float], expected: list[float], load: int, high: int, chunks: int
) -> None:
    for known in (None, dict(zip(COSTS, expected, strict=True))):
        plans = plan(load=load, chunks=chunks, known=known)
        fractions, etas = run(dict(zip(COSTS, costs, strict=True)), plans, high)
        assert fractions[0] == 0.0
        assert all(earlier <= later for earlier, later in pairwise(fractions))
        assert fractions[-1] == pytest.approx(1.0)
        assert all(eta is None or eta >= 0.0 for _, eta in etas)
        assert etas[-1][1] == 0.0


def test_without_any_measurement_there_is_no_estimate() -> None:
    _, etas = run(COSTS, plan())
    assert [eta for _, eta in etas[:3]] == [None, None, None]  # start, loaded, encoded
    assert etas[3][1] is not None  # one step was measured


def test_a_run_is_forecast_from_finished_ones() -> None:
    fractions, etas = run(COSTS, plan(known=COSTS))
    end = etas[-1][0]
    for time, eta in etas:
        assert eta == pytest.approx(end - time, abs=1e-6)
    assert fractions[2] == pytest.approx(8.0 / end)  # progress follows time


def test_a_warm_run_does_not_wait_for_the_load() -> None:
    _, etas = run(COSTS, plan(load=0, known=COSTS))
    assert etas[0][1] == pytest.approx(1 + 10 * 2 + 5 * 0.5 + 1)


def test_a_measured_step_corrects_the_forecast_of_both_experts() -> None:
    _, etas = run(COSTS | {Phase.DENOISE_HIGH: 3.0, Phase.DENOISE_LOW: 3.0}, plan(load=0, known=COSTS))
    assert etas[2][1] == pytest.approx(9 * 3 + 1.5 * (5 * 0.5 + 1)), (
        "and of what follows: the machine is that much slower"
    )


SPEC = MODELS["tiny-t2v-a14b"]
REQUEST = resolve_request(SPEC, RequestDraft("a", steps=10, num_frames=17, seed=1))[0]
FORECAST = Seconds(8.0, 1.0, 18.0, 2.0, 2.5, 1.0, Basis.MEASURED)


def test_the_planners_seconds_are_the_first_estimate_of_a_run() -> None:
    assert PhaseClock(plan_phases(SPEC, REQUEST, FORECAST, warm=False)).eta_seconds == pytest.approx(
        8.0 + FORECAST.warm
    )
    assert PhaseClock(plan_phases(SPEC, REQUEST, FORECAST, warm=True)).eta_seconds == pytest.approx(FORECAST.warm)


@pytest.mark.parametrize(
    "forecast",
    [
        None,
        Seconds(8.0, 1.0, 18.0, 2.0, 2.5, 1.0, Basis.ESTIMATED),
        Seconds(None, 1.0, 18.0, 2.0, 2.5, 1.0, Basis.MEASURED),
    ],
    ids=["no forecast", "published rates", "no load was measured"],
)
def test_a_forecast_without_measurements_gives_shares_but_no_time(forecast: Seconds | None) -> None:
    now = Clock()
    clock = PhaseClock(plan_phases(SPEC, REQUEST, forecast, warm=False), now)
    assert clock.eta_seconds is None
    clock.begin(Phase.LOAD)
    now.time += 8.0
    clock.advance()
    assert 0.1 < clock.fraction < 0.5


def test_a_request_that_only_decodes_does_not_wait_for_the_whole_model() -> None:
    plans = plan_phases(
        SPEC, replace(REQUEST, latents_of="one"), replace(FORECAST, denoise=0.0, transfer=0.0), warm=False
    )
    assert [phase for phase, one in plans.items() if one.units] == [Phase.LOAD, Phase.DECODE, Phase.MUX]
    assert not plans[Phase.LOAD].known
    assert plans[Phase.DECODE].known


def test_an_unguided_step_is_half_a_guided_one() -> None:
    clock = PhaseClock(plan(load=0, known=COSTS), Clock())
    clock.split_steps([(HIGH, 2)] * 4 + [(LOW, 1)] * 6)
    assert clock.eta_seconds == pytest.approx(1 + 10 * 2 + 5 * 0.5 + 1), "the whole takes as long"
    clock.skip(Phase.DENOISE_HIGH, 4)
    assert clock.eta_seconds == pytest.approx(1 + 20 * 6 / 14 + 5 * 0.5 + 1)


def test_the_estimate_shrinks_while_a_step_runs_and_waits_for_one_that_takes_longer() -> None:
    now = Clock()
    clock = PhaseClock(plan(load=0, known=COSTS), now)
    clock.begin(Phase.ENCODE)
    clock.advance()
    clock.begin(Phase.DENOISE_HIGH)
    before = clock.eta_seconds
    now.time += 1.5
    assert before is not None
    assert clock.eta_seconds == pytest.approx(before - 1.5)
    now.time += 10.0
    assert clock.eta_seconds == pytest.approx(before - 2.0), "an overdue step takes nothing from those that follow"


def test_seconds_are_recorded_for_each_phase() -> None:
    now = Clock()
    clock = PhaseClock(plan(), now)
    clock.begin(Phase.LOAD)
    now.time += 3.0
    clock.advance()
    clock.begin(Phase.ENCODE)
    now.time += 0.5
    clock.finish()
    assert clock.seconds == {"load": 3.0, "encode": 0.5}


def test_steps_of_an_earlier_attempt_count_as_done_but_not_as_measured() -> None:
    now = Clock()
    clock = PhaseClock(plan(load=0), now)
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
    assert clock.seconds[Phase.DENOISE_LOW] == pytest.approx(6.0)
    assert Phase.DENOISE_HIGH not in clock.seconds


def test_a_download_counts_towards_progress_and_provides_its_own_time_left() -> None:
    now = Clock()
    download = {Phase.DOWNLOAD: PhasePlan(DOWNLOAD_PARTS, 0.05 * COSTS[Phase.DENOISE_HIGH])}
    clock = PhaseClock(plan(known=COSTS) | download, now)
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


def test_a_restarted_phase_keeps_its_time_and_progress() -> None:
    now = Clock()
    clock = PhaseClock({Phase.DECODE: PhasePlan(4, 1.0)}, now)
    clock.begin(Phase.DECODE)
    for _ in range(3):
        now.time += 10.0
        clock.advance()
    assert clock.fraction == pytest.approx(0.75)
    clock.restart(8)
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


@pytest.mark.parametrize("slower", [0.25, 3.0, 10.0])
def test_how_fast_this_run_computes_counts_before_history(slower: float) -> None:
    now = Clock()
    clock = PhaseClock(plan(load=0, known=COSTS), now)
    clock.begin(Phase.ENCODE)
    now.time += 1.0
    clock.begin(Phase.DENOISE_HIGH)
    for _ in range(2):
        now.time += 2.0 * slower
        clock.advance()
    rest = 8 * 2.0 + 5 * 0.5 + 1.0
    assert clock.eta_seconds == pytest.approx(rest * slower)


def test_a_slow_disk_says_nothing_about_the_steps() -> None:
    now = Clock()
    clock = PhaseClock(plan(known=COSTS), now)
    clock.begin(Phase.LOAD)
    now.time += 80.0
    clock.begin(Phase.ENCODE)
    assert clock.eta_seconds == pytest.approx(1.0 + 10 * 2.0 + 5 * 0.5 + 1.0)
