"""Which models this worker would have to fetch, for the claim that passes over tasks whose download is paused.

The queue is asked many times a second and the disk is not: an answer counts for a second. Knows no pauses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog

from backend.core.errors import WanError

#: How long an answer counts; a model that has come in another way is seen so much later at most.
LOOK_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class AbsentModels:
    """Remembers what the disk said a moment ago."""

    def __init__(self, look: Callable[[str], bool], now: Callable[[], float] = time.monotonic) -> None:
        """Take who says of a model whether a task for it would fetch it first, and a clock in seconds."""
        self._look = look
        self._now = now
        self._seen: dict[str, tuple[float, bool]] = {}

    def would_fetch(self, model: str) -> bool:
        """Whether a task for this model would fetch it first; False where its attempt would say what is wrong."""
        seen = self._seen.get(model)
        if seen is not None and self._now() < seen[0]:
            return seen[1]
        try:
            answer = self._look(model)
        except (WanError, OSError) as error:
            log.warning("worker.model_not_seen", model=model, error=str(error))
            answer = False
        self._seen[model] = self._now() + LOOK_SECONDS, answer
        return answer
