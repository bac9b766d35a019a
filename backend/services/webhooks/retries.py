"""What the answer to a message means, and the pauses after which it is sent again, before it is given up.

Counted in attempts, not in hours: time for which this server was off, or by which its clock was set, costs none.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from backend.services.outbound.exchange import Answer

#: Pauses between attempts, in seconds; together 22 hours.
PAUSES: Final = (5.0, 30.0, 120.0, 600.0, 1_800.0, 3_600.0, 7_200.0, 14_400.0, 21_600.0, 28_800.0)
#: Pauses differ by up to this share, so that messages that failed together do not come together.
_JITTER: Final = 0.2
#: The longest pause that a receiver can ask for, in seconds.
_LONGEST_ASKED: Final = 3_600.0
_BUSY: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


class Meaning(StrEnum):
    """What an answer means for a message."""

    DELIVERED = "delivered"
    REFUSED = "refused"  # for now; it is sent again
    GONE = "gone"  # the receiver wants no more messages


def judge(answer: Answer) -> tuple[Meaning, str]:
    """Say what an answer means, and why."""
    if 200 <= answer.status < 300:
        return Meaning.DELIVERED, ""
    if answer.status == HTTPStatus.GONE:
        return Meaning.GONE, "the receiver answered 410: it wants no more messages"
    if 300 <= answer.status < 400:
        return Meaning.REFUSED, f"the receiver answered {answer.status}: redirects are not followed"
    return Meaning.REFUSED, f"the receiver answered {answer.status}"


@dataclass(frozen=True, slots=True)
class RetrySchedule:
    """When a message is sent again."""

    pauses: tuple[float, ...] = PAUSES

    def pause(self, attempts: int, answer: Answer | None) -> float | None:
        """Return the seconds to wait after an attempt that failed, `attempts` before it; None = give up."""
        if attempts >= len(self.pauses):
            return None
        seconds = self.pauses[attempts] * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
        if answer is not None and answer.status in _BUSY and answer.retry_after is not None:
            seconds = max(seconds, min(answer.retry_after, _LONGEST_ASKED))
        return seconds
