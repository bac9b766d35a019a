"""Retries of a download: growing pauses with jitter, or as long as the server asks for.

Knows no network: callers report each failure, and whether any bytes arrived in between.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from backend.core.domain import DownloadRetry
from backend.core.errors.base import WanError
from backend.core.errors.models import HubRateLimited

_CHECK_SECONDS = 0.2  # longest delay before a request to stop is noticed while waiting


class Transient(Exception):
    """A failure that may pass; `final` is the error when it does not."""

    def __init__(self, final: WanError, retry_after: float | None = None) -> None:
        self.final = final
        self.retry_after = retry_after
        super().__init__(final.message)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to give up."""

    attempts: int = 7  #: consecutive failures without a single byte in between
    first_seconds: float = 1.0  #: mean of the first pause; it doubles
    longest_seconds: float = 60.0
    longest_asked_seconds: float = 600.0  #: a server that asks for a longer pause is given up


#: For downloads that resume automatically after a power cut: about half an hour, more than a router takes to restart.
PATIENT = RetryPolicy(attempts=40)


class Retries:
    """The consecutive failures of one download."""

    def __init__(
        self,
        policy: RetryPolicy,
        check: Callable[[], None],
        pause: Callable[[float, Callable[[], None]], None] | None = None,
    ) -> None:
        """`check` is called while waiting and may raise; `pause` waits, and can be replaced in tests."""
        self._policy = policy
        self._check = check
        self._pause = pause or wait_checking
        self._failures = 0
        #: Receives each failure that is followed by another try, before the pause.
        self.on_failure: Callable[[DownloadRetry], None] = lambda _retry: None

    def progressed(self) -> None:
        """Reset the count: bytes arrived."""
        self._failures = 0

    def failed(self, error: Transient) -> None:
        """Wait before the next try.

        Raises:
            WanError: the final form of `error`, after the last try.
        """
        self._failures += 1
        if self._failures >= self._policy.attempts:
            raise error.final from error
        seconds = self._seconds_after(error)
        self.on_failure(DownloadRetry(self._failures, self._policy.attempts, error.final.message, seconds))
        self._pause(seconds, self._check)

    def _seconds_after(self, error: Transient) -> float:
        """Return the length of the pause; raise where the server asks for too long a one."""
        if error.retry_after is not None:
            if error.retry_after > self._policy.longest_asked_seconds:
                raise HubRateLimited(
                    f"The model hub asks to wait {error.retry_after:.0f} s before the next request"
                ) from error
            return error.retry_after
        longest = min(self._policy.longest_seconds, self._policy.first_seconds * 2 ** (self._failures - 1))
        # Half of the pause is random, so that many machines do not return at the same moment.
        return float(longest * (0.5 + random.random()))  # noqa: S311 - spreads load, guards nothing


def wait_checking(seconds: float, check: Callable[[], None]) -> None:
    """Wait, and call `check` several times a second; it raises to stop."""
    until = time.monotonic() + seconds
    check()
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, _CHECK_SECONDS))
        check()


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After` (RFC 9110, 10.2.3: seconds or a date) as seconds from now; None when absent."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal() and value.isascii():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
