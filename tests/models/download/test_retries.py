"""When a download tries again, and how long it waits before that."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from backend.core.errors.interruptions import DownloadStopped
from backend.core.errors.models import HubUnreachable
from backend.models.download.retries import PATIENT, Retries, RetryPolicy, Transient, retry_after, wait_checking


def _fail(retries: Retries, times: int) -> None:
    for _ in range(times):
        retries.failed(Transient(HubUnreachable()))


def test_pauses_grow_with_jitter_up_to_the_longest_and_start_again_with_progress() -> None:
    waited: list[float] = []
    policy = RetryPolicy(attempts=9, first_seconds=1.0, longest_seconds=8.0)
    retries = Retries(policy, lambda: None, lambda seconds, _check: waited.append(seconds))
    _fail(retries, 6)
    for seconds, mean in zip(waited, [1, 2, 4, 8, 8, 8], strict=True):
        assert mean / 2 <= seconds <= mean * 1.5
    retries.progressed()
    _fail(retries, 1)
    assert waited[-1] <= 1.5


def test_the_patient_wait_for_a_router() -> None:
    waited: list[float] = []
    retries = Retries(PATIENT, lambda: None, lambda seconds, _check: waited.append(seconds))
    _fail(retries, PATIENT.attempts - 1)
    assert 15 * 60 < sum(waited) < 60 * 60
    with pytest.raises(HubUnreachable):
        _fail(retries, 1)


def test_the_last_failure_becomes_the_error() -> None:
    retries = Retries(RetryPolicy(attempts=3), lambda: None, lambda _seconds, _check: None)
    _fail(retries, 2)
    with pytest.raises(HubUnreachable):
        _fail(retries, 1)


def test_waiting_ends_when_somebody_wishes_it() -> None:
    def stop() -> None:
        raise DownloadStopped

    with pytest.raises(DownloadStopped):
        wait_checking(3600, stop)


def test_both_forms_of_the_header_are_read_and_nonsense_is_not() -> None:
    assert retry_after({"Retry-After": "17"}) == 17
    later = retry_after({"Retry-After": format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)})
    assert later == pytest.approx(3600, abs=60)
    assert retry_after({"Retry-After": format_datetime(datetime(2001, 1, 1, tzinfo=UTC), usegmt=True)}) == 0
    for value in ("", "soon", "-5", "1e9", "²"):
        assert retry_after({"Retry-After": value}) is None
    assert retry_after({}) is None
