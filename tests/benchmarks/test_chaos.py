"""A short campaign of kills against a real server, and what the campaign's figures rest on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chaos.__main__ import main
from benchmarks.chaos.kills import AIMS, TARGETS, draw_kills
from benchmarks.chaos.requests import MODES, draw_requests
from benchmarks.chaos.steps import StepCount, count_steps


@pytest.mark.timeout(900)  # several process starts, on a busy machine
def test_a_short_campaign_keeps_every_promise(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    status = main(["--kills", "6", "--tasks", "6", "--seed", "381", "--json", str(file), "--folder", str(tmp_path)])
    found = json.loads(file.read_text())
    assert found["broken"] == []
    assert status == 0
    assert found["kills"] == 6
    assert found["kills_by_target"]["worker"] > 0
    assert found["kills_by_target"]["server"] > 0
    assert found["steps"]["needed"] > 0


def test_a_seed_gives_the_same_requests_and_the_same_kills() -> None:
    assert draw_requests(20, 5) == draw_requests(20, 5)
    assert draw_requests(20, 5) != draw_requests(20, 6)
    assert draw_kills(50, 5) == draw_kills(50, 5)
    assert draw_kills(50, 5) != draw_kills(50, 6)


def test_a_campaign_covers_every_mode_and_aims_at_everything() -> None:
    requests, kills = draw_requests(60, 22), draw_kills(200, 22)
    assert {request.mode for request in requests} == set(MODES)
    assert all(one.extends is None or one.extends < number for number, one in enumerate(requests))
    assert {kill.target for kill in kills} == set(TARGETS)
    assert {kill.aim for kill in kills} == set(AIMS)
    assert min(Counter(kill.aim for kill in kills).values()) > 3


def _denoised(step: int, of: int = 8) -> dict[str, Any]:
    return {"type": "progress", "data": {"stage": "generating", "current_step": step, "total_steps": of}}


def _event(kind: str) -> dict[str, Any]:
    return {"type": kind, "data": {}}


def test_steps_that_run_again_are_counted_and_those_that_were_cut_short_apart() -> None:
    first = [_event("started"), _denoised(0), _denoised(3), _event("alert"), _denoised(5), _event("attempt_lost")]
    unlucky = [_event("started"), _event("attempt_lost")]  # before it denoised
    second = [_event("started"), _denoised(4), _denoised(8), _event("attempt_lost")]  # while it decoded
    third = [_event("started"), _denoised(8), _event("completed")]
    assert count_steps(first + unlucky + second + third) == StepCount(needed=8, repeated=1, interrupted=1)
    assert count_steps([]).share == 0.0
