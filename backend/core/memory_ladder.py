"""What a run does when memory runs out: the next memory plan that needs less, within what the operator allows.

Decides and keeps the receipt; how a plan is carried out is the engine's matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from backend.core.errors import OutOfMemory
from backend.core.memory_plan import MemoryPlan, Placement, Storage

_PLACEMENTS = tuple(Placement)  # from the one that needs most to the one that needs least


class OomPolicy(StrEnum):
    """What may be given up."""

    NONE = "none"  #: nothing: the task fails
    QUALITY = "quality"  #: time; the clip stays the same to the bit
    SPEED = "speed"  #: time first, then the precision of the weights


@dataclass(frozen=True, slots=True)
class Fallback:
    """One rung that was taken."""

    at: str  #: what was being done
    before: str  #: the plan that did not fit
    after: str  #: the plan that was taken instead
    reason: str

    def to_json(self) -> dict[str, str]:
        """As the record of a video holds it."""
        return {"at": self.at, "from": self.before, "to": self.after, "reason": self.reason}

    @property
    def sentence(self) -> str:
        """As a task's warnings say it."""
        return f"Memory ran out at {self.at}; went on with the plan {self.after} instead of {self.before}"


@dataclass(slots=True)
class MemoryLadder:
    """The rungs of one attempt."""

    policy: OomPolicy
    taken: list[Fallback] = field(default_factory=list)

    def down(self, at: str, plan: MemoryPlan, error: OutOfMemory, *, experts: bool = True) -> MemoryPlan:
        """Return the plan to go on with, and note it.

        Args:
            at: what was being done, in words.
            plan: the one that did not fit.
            error: raised again when there is no rung left.
            experts: whether the experts' weights were in use; if not, their precision is no help.
        """
        lower = self._lower(plan, experts)
        if lower is None:
            raise error
        self.taken.append(Fallback(at, plan.name, lower.name, error.message))
        return lower

    def _lower(self, plan: MemoryPlan, experts: bool) -> MemoryPlan | None:
        if self.policy is OomPolicy.NONE:
            return None
        rung = _PLACEMENTS.index(plan.placement)
        if rung + 1 < len(_PLACEMENTS):
            return replace(plan, placement=_PLACEMENTS[rung + 1])
        if experts and self.policy is OomPolicy.SPEED and plan.storage is Storage.BF16:
            return replace(plan, storage=Storage.FP8)
        return None
