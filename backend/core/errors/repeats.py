"""How often, and after which pauses, a failed attempt is repeated although nobody asked for it.

Only errors that say that trying again can help (`retryable`) are repeated. What waits for the disk, the database or
the hub is not repeated but held up: `worker/runner.py`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from backend.core.errors.base import Category, WanError

#: The longest pause, in seconds.
LONGEST_SECONDS: Final = 900.0
#: Pauses differ by up to this share from their planned length, so that tasks that failed together do not come together.
_JITTER: Final = 0.25


@dataclass(frozen=True, slots=True)
class Repeats:
    """How a kind of error is repeated."""

    limit: int  #: repeats in a row that save nothing new
    factor: float = 1.0  #: of the first pause


#: By category. The others are not repeated: the memory ladder has tried every lower plan already, a damaged model is
#: downloaded again at once, and a wrong request stays wrong.
REPEATS: Final = {
    Category.GENERATION_PIPELINE: Repeats(2),
    Category.UNKNOWN: Repeats(1),
    Category.NETWORK: Repeats(5, 2.0),
    Category.SYSTEM_RESOURCE: Repeats(3, 3.0),
}


def pause_before_repeat(error: WanError, repeats: int, first_seconds: float) -> float | None:
    """Return how long to wait before an attempt that ended in `error` is repeated, None when it is not.

    Args:
        error: what ended the attempt.
        repeats: how often the task was repeated already without saving anything new.
        first_seconds: the pause before the first repeat; it doubles each time. 0 = nothing is repeated.
    """
    policy = REPEATS.get(error.category)
    if policy is None or not error.retryable or not first_seconds or repeats >= policy.limit:
        return None
    pause = min(LONGEST_SECONDS / (1 + _JITTER), first_seconds * policy.factor * 2.0**repeats)
    return pause * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads load, hides nothing
