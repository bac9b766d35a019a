"""How often somebody may do something: buckets that fill again with time. In memory, for one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: Names that are remembered; a longer list is cut by those whose buckets are full again.
MOST_NAMES: Final = 10_000


class Buckets:
    """A bucket of tokens for each name. Not thread-safe: all calls come from one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._state: dict[str, tuple[float, float]] = {}  # tokens, when counted

    def wait(self, name: str, per_minute: float) -> float:
        """Take a token; return 0, or the seconds until there is one. A full bucket is worth one minute."""
        now = self._clock()
        tokens = self._level(name, per_minute, now)
        if tokens < 1.0:
            self._state[name] = tokens, now
            return (1.0 - tokens) * 60.0 / per_minute
        self._state[name] = tokens - 1.0, now
        if len(self._state) > MOST_NAMES:
            self._state = {one: state for one, state in self._state.items() if now - state[1] < 60.0}
        return 0.0

    def empty(self, name: str, per_minute: float) -> float:
        """Return the seconds until there is a token, and take none."""
        tokens = self._level(name, per_minute, self._clock())
        return 0.0 if tokens >= 1.0 else (1.0 - tokens) * 60.0 / per_minute

    def _level(self, name: str, per_minute: float, now: float) -> float:
        tokens, counted = self._state.get(name, (per_minute, now))
        return min(per_minute, tokens + (now - counted) * per_minute / 60.0)
