"""The memory plan that a run starts with: the planner's, lowered by what earlier runs of this worker needed.

A lesson is forgotten when the model's files change or when others have freed memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from backend.core.errors.surroundings import StoreFailed
from backend.core.planning.cost_model import Seconds
from backend.core.planning.hardware import GIB
from backend.core.planning.memory_ladder import Fallback, MemoryUse
from backend.core.planning.memory_plan import PLANS, MemoryPlan
from backend.core.requests.forms import GenerationRequest
from backend.services.planning.forecast import Forecast

#: With this much more free memory than when a run had to step down, the lesson no longer holds; less is fluctuation.
_SIGNIFICANT = GIB

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StartPlan:
    """The plan that a run starts with."""

    plan: MemoryPlan
    reason: str  #: why it is this one, in a sentence
    seconds: Seconds | None = None  #: forecast for the request; None = no forecast


@dataclass(frozen=True, slots=True)
class _Lesson:
    """A plan that worked where the one before did not; holds for clips that are at least as large."""

    plan: MemoryPlan
    at: str
    area: int  #: pixels of the picture; 0 = the size does not matter
    volume: int  #: pixels of the clip
    files: str  #: the state of the model's files
    free: int | None  #: bytes of the device that were available to this process then


class StartPlans:
    """Chooses the start plan in one worker process; remembers the rungs that its runs ended on."""

    def __init__(
        self,
        planned: Callable[[GenerationRequest], StartPlan] | None = None,
        free: Callable[[], int | None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            planned: returns the planner's choice for a request; None = everything on the device.
            free: returns the bytes of the device that are free or in use by this process; None = unknown.
        """
        self.planned = planned or _resident  #: the planner's choice, before any lesson
        self._free = free or _unknown
        self._lessons: dict[str, list[_Lesson]] = {}

    @classmethod
    def of(cls, forecast: Forecast, free: Callable[[], int | None]) -> StartPlans:
        """Follow the forecast, for the memory that is free at that moment."""

        def planned(request: GenerationRequest) -> StartPlan:
            try:
                decision = forecast.decide(request, free_vram=free())
            except StoreFailed as error:
                log.warning("planner.no_measured_rates", error=error.code)
                decision = forecast.decide(request, free_vram=free(), measured=False)
            return StartPlan(decision.start.plan, decision.reason, decision.start.seconds)

        return cls(planned, free)

    def choose(self, request: GenerationRequest, files: str, planned: StartPlan | None = None) -> StartPlan:
        """Return the plan to start with.

        Args:
            request: what is generated.
            files: the fingerprint of the model's files now.
            planned: the planner's choice where it is known already; None = ask for it.
        """
        start = planned or self.planned(request)
        for lesson in self._valid(request.model, files):
            area, volume = _size(request)
            if area >= lesson.area and volume >= lesson.volume:
                lower = start.plan.lowered_to(lesson.plan)
                if lower != start.plan:
                    start = StartPlan(lower, f"{lower.words}: memory ran out at {lesson.at} before", start.seconds)
        return start

    def learn(self, request: GenerationRequest, files: str, plan: MemoryPlan, taken: list[Fallback]) -> None:
        """Remember the plan with which a run succeeded after taking these rungs."""
        if not taken:
            return
        # The size of weights and prompts does not depend on the clip; everything else grows with it.
        fixed = all(rung.use in (MemoryUse.LOAD, MemoryUse.TEXT) for rung in taken)
        area, volume = (0, 0) if fixed else _size(request)
        kept = self._valid(request.model, files)
        kept.append(_Lesson(plan, taken[-1].at, area, volume, files, self._free()))
        self._lessons[request.model] = kept

    def _valid(self, model: str, files: str) -> list[_Lesson]:
        """Return the lessons that still hold, and forget the rest."""
        free = self._free()
        kept = [
            lesson
            for lesson in self._lessons.get(model, [])
            if lesson.files == files and (free is None or lesson.free is None or free < lesson.free + _SIGNIFICANT)
        ]
        self._lessons[model] = kept
        return kept


def _size(request: GenerationRequest) -> tuple[int, int]:
    area = request.width * request.height
    return area, area * request.num_frames


def _resident(request: GenerationRequest) -> StartPlan:
    return StartPlan(PLANS[0], f"{PLANS[0].words}: the default where there is no planner")


def _unknown() -> int | None:
    return None
