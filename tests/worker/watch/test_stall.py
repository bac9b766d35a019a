"""When an attempt counts as stalled: only steps, layers and bytes prove that it moves, and only running time counts."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from backend.core.domain import DownloadPhase, DownloadProgress, Progress, Stage
from backend.worker.stall import OWN_SECONDS, SignsOfLife, StallAlarm, innermost_calls
from tests.store.samples import at_step

INTERVAL = 5.0
LEAST = 120.0
FACTOR = 20.0


class Watched:
    """The signs of life of one attempt and their alarm, on a clock moved by hand."""

    def __init__(self, least: float = LEAST) -> None:
        self.now = 1000.0
        self.signs = SignsOfLife(lambda: self.now)
        self.alarm = StallAlarm(least, FACTOR, INTERVAL, lambda: self.now)

    def passes(self, seconds: float) -> bool:
        """Look at the interval for a while; return whether that found a stall."""
        stalls = []
        for _ in range(round(seconds / INTERVAL)):
            self.now += INTERVAL
            stalls.append(self.alarm.look(self.signs))
        return any(stalls)


def fetched(done: int, phase: DownloadPhase = DownloadPhase.DOWNLOADING) -> Progress:
    return Progress(Stage.DOWNLOADING_MODEL, 0.1, "", fetch=DownloadProgress(phase, None, done, 1000, None, None))


@pytest.mark.parametrize(("unit", "allowed"), [(0.1, LEAST), (30.0, FACTOR * 30.0)])
def test_a_step_may_take_many_times_its_usual_duration_and_no_more(unit: float, allowed: float) -> None:
    watched = Watched()
    watched.passes(INTERVAL)
    watched.signs.report(replace(at_step(3), unit_seconds=unit))
    assert not watched.passes(allowed - INTERVAL)
    assert watched.passes(INTERVAL)
    stall = watched.alarm.look(watched.signs)
    assert stall is not None
    assert (stall.stage, stall.step, stall.seconds, stall.allowed_seconds) == ("generating", 3, allowed, allowed)
    assert f"for {allowed:.0f} s" in stall.reason


def test_layers_are_signs_of_life() -> None:
    watched = Watched()
    watched.signs.report(replace(at_step(3), unit_seconds=1.0))
    for _ in range(10):
        assert not watched.passes(LEAST - INTERVAL)
        watched.signs.layer()
    assert watched.passes(LEAST)


@pytest.mark.parametrize("stage", list(OWN_SECONDS))
def test_what_was_not_measured_has_a_long_bound_of_its_own(stage: Stage) -> None:
    watched = Watched()
    watched.passes(INTERVAL)
    watched.signs.report(Progress(stage, 0.0, ""))
    assert not watched.passes(OWN_SECONDS[stage] - INTERVAL)
    assert watched.passes(INTERVAL)


def test_a_download_moves_with_its_bytes_and_waits_for_that_of_another_process() -> None:
    watched = Watched()
    own = OWN_SECONDS[Stage.DOWNLOADING_MODEL]
    for done in (1, 2):
        for _ in range(round(own / INTERVAL) - 1):
            watched.signs.report(fetched(done))
            assert not watched.passes(INTERVAL)
    watched.signs.report(fetched(2))
    assert watched.passes(2 * INTERVAL)
    watched.signs.report(fetched(2, DownloadPhase.WAITING))
    assert not watched.passes(3 * own)


def test_waiting_for_the_database_is_no_stall() -> None:
    watched = Watched()
    watched.signs.report(replace(at_step(3), unit_seconds=1.0))
    watched.passes(LEAST / 2)
    with watched.signs.waiting():
        assert not watched.passes(10 * LEAST)
    assert not watched.passes(LEAST / 2 - INTERVAL), "the wait does not count"
    assert watched.passes(INTERVAL), "what came before it does"


def test_time_in_which_the_whole_process_was_suspended_does_not_count() -> None:
    watched = Watched()
    watched.passes(INTERVAL)
    watched.signs.report(replace(at_step(3), unit_seconds=1.0))
    watched.now += 8 * 3600.0
    assert not watched.passes(LEAST)
    assert watched.passes(INTERVAL)


def test_the_alarm_can_be_switched_off_and_is_silent_without_an_attempt() -> None:
    off = Watched(least=0.0)
    off.signs.report(at_step(3))
    assert not off.passes(100 * LEAST)
    idle = Watched()
    idle.now += 100 * LEAST
    assert idle.alarm.look(None) is None


def test_the_place_of_a_hang_is_named_without_values() -> None:
    leaving = threading.Event()

    def hang_here() -> None:
        leaving.wait()

    thread = threading.Thread(target=hang_here)
    assert innermost_calls(thread) is None
    thread.start()
    try:
        calls = innermost_calls(thread)
    finally:
        leaving.set()
        thread.join()
    assert calls is not None
    assert "hang_here (test_stall.py:" in calls
