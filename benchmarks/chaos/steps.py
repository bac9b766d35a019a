"""How much work was repeated, as the event log of a task tells it.

A worker that saves a state after every step (`WAN22_STATE_SECONDS=0`) reports each of them at once, so every finished
step is in the log. A step that a kill interrupts has no result: it is begun again, not repeated, and counted apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.chaos.kills import STAGES

_DENOISING: Final = STAGES[3]
#: Events after which another attempt begins, or none.
_ENDS_OF_ATTEMPTS: Final = {
    "attempt_lost",
    "released",
    "held_up",
    "retry_scheduled",
    "paused",
    "completed",
    "failed",
    "cancelled",
}


@dataclass(frozen=True, slots=True)
class StepCount:
    """Denoising steps of one or more tasks."""

    needed: int = 0  #: of an undisturbed run
    repeated: int = 0  #: finished steps that ran again
    interrupted: int = 0  #: attempts that were lost while they denoised, each with at most one step unfinished

    def __add__(self, other: StepCount) -> StepCount:
        return StepCount(
            self.needed + other.needed, self.repeated + other.repeated, self.interrupted + other.interrupted
        )

    @property
    def share(self) -> float:
        """Repeated steps as a share of those that were needed."""
        return self.repeated / self.needed if self.needed else 0.0


def count_steps(events: Iterable[dict[str, Any]]) -> StepCount:
    """Count the steps of one task from its events, oldest first."""
    needed = repeated = interrupted = done = 0
    denoises = False
    for event in events:
        kind, data = event["type"], event["data"]
        if kind == "progress" and data.get("stage") == _DENOISING and data.get("current_step") is not None:
            step, needed = int(data["current_step"]), int(data["total_steps"])
            repeated += max(0, done - step)
            done, denoises = step, True
        elif kind in _ENDS_OF_ATTEMPTS:
            interrupted += kind == "attempt_lost" and denoises and done < needed
            denoises = False
    return StepCount(needed, repeated, interrupted)
