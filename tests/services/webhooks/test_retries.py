"""When a message is sent again: for about a day, with pauses that grow and differ."""

from __future__ import annotations

from itertools import pairwise

import pytest

from backend.services.outbound.exchange import Answer
from backend.services.webhooks.retries import Meaning, RetrySchedule, judge
from backend.store.clients.deliveries import LONGEST_PAUSE

HOURS = 3600.0


def test_pauses_grow_for_about_a_day_and_differ() -> None:
    schedule = RetrySchedule()
    attempts = range(len(schedule.pauses))
    for _ in range(50):
        pauses = [schedule.pause(attempt, None) for attempt in attempts]
        assert all(pause is not None for pause in pauses)
        known = [pause or 0.0 for pause in pauses]
        assert known[0] < 10
        assert all(later > 1.1 * earlier or later > 4 * HOURS for earlier, later in pairwise(known))
        assert 17 * HOURS < sum(known) < 27 * HOURS
        assert max(known) < LONGEST_PAUSE
    assert len({schedule.pause(0, None) for _ in range(50)}) > 40
    assert schedule.pause(len(schedule.pauses), None) is None


@pytest.mark.parametrize(
    ("status", "asked", "least", "most"),
    [(503, 60.0, 60, 60), (429, 60.0, 60, 60), (503, 999_999.0, HOURS, HOURS), (500, 60.0, 0, 10), (503, 0.0, 1, 10)],
)
def test_a_busy_receiver_is_given_the_time_it_asks_for(status: int, asked: float, least: float, most: float) -> None:
    pause = RetrySchedule().pause(0, Answer(status, asked))
    assert pause is not None
    assert least <= pause <= most


def test_what_an_answer_means() -> None:
    assert {judge(Answer(status))[0] for status in (200, 201, 202, 204, 299)} == {Meaning.DELIVERED}
    assert {judge(Answer(status))[0] for status in (301, 302, 307, 400, 401, 404, 500, 503)} == {Meaning.REFUSED}
    assert judge(Answer(410))[0] is Meaning.GONE
