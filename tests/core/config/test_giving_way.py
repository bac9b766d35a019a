"""Giving way to other programs: patience before and after, and no flutter at the limit."""

from __future__ import annotations

import pytest

from backend.core.config.giving_way import GiveWayRule, GivingWay
from backend.core.errors.requests import InvalidRequest

RULE = GivingWay(when_others_leave_gb=10.0, after_seconds=5.0, back_after_seconds=60.0)


def decisions(rule: GiveWayRule, *readings: tuple[float, float]) -> list[bool]:
    """What the rule decides at these seconds, with this many GiB left by others, where 10 are enough and 11 plenty."""
    return [rule.decide(RULE, pressed=left < 10, relaxed=left >= 11, now=now) for now, left in readings]


def test_a_worker_gives_way_once_memory_has_been_short_for_long_enough() -> None:
    assert decisions(GiveWayRule(), (0, 9.9), (4.9, 9.9), (5.0, 9.9), (6, 9.9)) == [False, False, True, True]


def test_a_short_peak_changes_nothing() -> None:
    assert decisions(GiveWayRule(), (0, 1), (4, 1), (5, 12), (6, 1), (10, 1)) == [False] * 5


def test_it_returns_only_when_clearly_more_is_left_and_stays_so() -> None:
    rule = GiveWayRule()
    assert decisions(rule, (0, 1), (5, 1)) == [False, True]
    assert decisions(rule, (6, 10.5), (100, 10.5)) == [True, True], "above the limit, but not clearly"
    assert decisions(rule, (101, 11.1), (150, 11.1), (151, 9), (152, 11.1), (211, 11.1)) == [True] * 5
    assert decisions(rule, (212, 11.1)) == [False]


def test_values_out_of_range_are_refused() -> None:
    assert GivingWay.from_json({"when_others_leave_gb": 12}) == GivingWay(12.0)
    assert GivingWay.from_json({"when_others_use_percent": 50}) == GivingWay(None, 50.0)
    assert GivingWay.from_json(RULE.to_json()) == RULE
    for wrong in (
        {"when_others_leave_gb": 0},
        {"when_others_use_percent": 101},
        {"after_seconds": -1},
        {"back_after_seconds": "soon"},
        {"gpu": 1},
    ):
        with pytest.raises(InvalidRequest):
            GivingWay.from_json(wrong)
