"""Which errors are repeated without anybody asking, how often, and after which pauses."""

from __future__ import annotations

import itertools

import pytest

from backend.core.errors.base import Category, WanError
from backend.core.errors.generation import OutOfMemory, UnexpectedFailure
from backend.core.errors.models import HubUnreachable, ModelDamaged
from backend.core.errors.repeats import LONGEST_SECONDS, REPEATS, pause_before_repeat
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import StorageFull


def pauses(error: WanError, first_seconds: float) -> list[float]:
    found = (pause_before_repeat(error, repeats, first_seconds) for repeats in itertools.count())
    return [pause for pause in itertools.takewhile(lambda pause: pause is not None, found) if pause is not None]


@pytest.mark.parametrize("error", [OutOfMemory(), ModelDamaged(), InvalidRequest("no")])
def test_what_would_fail_again_is_not_repeated(error: WanError) -> None:
    assert pauses(error, 5.0) == []


@pytest.mark.parametrize("error", [UnexpectedFailure(), HubUnreachable(), StorageFull()])
def test_every_category_has_its_limit_and_each_pause_is_longer_than_the_last(error: WanError) -> None:
    policy = REPEATS[error.category]
    found = pauses(error, 5.0)
    assert len(found) == policy.limit
    for repeats, pause in enumerate(found):
        planned = 5.0 * policy.factor * 2**repeats
        assert 0.75 * planned <= pause <= 1.25 * planned
    assert found == sorted(found)


def test_tasks_that_fail_together_do_not_come_back_together() -> None:
    assert len({pause_before_repeat(HubUnreachable(), 0, 5.0) for _ in range(20)}) > 10


def test_no_pause_is_longer_than_the_longest() -> None:
    assert max(pauses(HubUnreachable(), 3600.0)) <= LONGEST_SECONDS


def test_repeats_can_be_turned_off() -> None:
    assert pauses(UnexpectedFailure(), 0.0) == []


def test_only_known_categories_have_a_policy() -> None:
    assert set(REPEATS) < set(Category)
