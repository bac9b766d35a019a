"""With which memory plan a run begins: what the planner says, lowered by what earlier runs of this process learned.

A lesson is forgotten when the model's files have changed or when others have given memory back. Knows no engine.

Makes a part of a run again, on a lower rung each time that memory runs out, until it is done or no rung is left.

Decides nothing: the rungs are the ladder's, how a plan is carried out is the engine's matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from backend.core.domain import Stage
from backend.core.errors import OutOfMemory, StoreFailed
from backend.core.planning.hardware import GIB
from backend.core.planning.memory_ladder import Fallback, MemoryLadder, MemoryUse
from backend.core.planning.memory_plan import PLANS, MemoryPlan
from backend.core.requests import GenerationRequest
from backend.engine.loading.pipeline_loader import WanComponents
from backend.services.planning.forecast import Forecast
from backend.services.run.report import RunReport

#: So much more free memory than when a run had to step down is another machine; less comes and goes by itself.
_SIGNIFICANT = GIB

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StartPlan:
    """The plan of a run's beginning."""

    plan: MemoryPlan
    reason: str  #: why it is this one, in a sentence


@dataclass(frozen=True, slots=True)
class _Lesson:
    """A plan that worked where the one before did not, for clips that are at least as large."""

    plan: MemoryPlan
    at: str
    area: int  #: pixels of the picture; 0 = the size had no part in it
    volume: int  #: pixels of the clip
    files: str  #: the state of the model's files
    free: int | None  #: bytes that the device had for this process then


class StartPlans:
    """Chooses for one worker process; remembers the rungs that its runs ended on."""

    def __init__(
        self,
        planned: Callable[[GenerationRequest], StartPlan] | None = None,
        free: Callable[[], int | None] | None = None,
    ) -> None:
        """Prepare.

        Args:
            planned: what the planner says for a request; None = everything on the device.
            free: bytes of the device that are free or this process's own already; None = unknown.
        """
        self._planned = planned or _resident
        self._free = free or _unknown
        self._lessons: dict[str, list[_Lesson]] = {}

    @classmethod
    def of(cls, forecast: Forecast, free: Callable[[], int | None]) -> StartPlans:
        """Choose as the forecast decides, for the memory that is free at that moment."""

        def planned(request: GenerationRequest) -> StartPlan:
            try:
                decision = forecast.decide(request, free_vram=free())
            except StoreFailed as error:
                log.warning("planner.knows_no_rates", error=error.code)
                decision = forecast.decide(request, free_vram=free(), measured=False)
            return StartPlan(decision.start.plan, decision.reason)

        return cls(planned, free)

    def choose(self, request: GenerationRequest, files: str) -> StartPlan:
        """Return the plan to begin with; `files` is the mark of the state of the model's files now."""
        start = self._planned(request)
        for lesson in self._valid(request.model, files):
            area, volume = _size(request)
            if area >= lesson.area and volume >= lesson.volume:
                lower = start.plan.lowered_to(lesson.plan)
                if lower != start.plan:
                    start = StartPlan(lower, f"{lower.words}: memory ran out at {lesson.at} before")
        return start

    def learn(self, request: GenerationRequest, files: str, plan: MemoryPlan, taken: list[Fallback]) -> None:
        """Remember the plan on which a run ended well after the rungs that it took."""
        if not taken:
            return
        # Weights and prompts have their size whatever the clip's is; all else grows with it.
        fixed = all(rung.use in (MemoryUse.LOAD, MemoryUse.TEXT) for rung in taken)
        area, volume = (0, 0) if fixed else _size(request)
        kept = self._valid(request.model, files)
        kept.append(_Lesson(plan, taken[-1].at, area, volume, files, self._free()))
        self._lessons[request.model] = kept

    def _valid(self, model: str, files: str) -> list[_Lesson]:
        """Return what still holds, and forget the rest."""
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
    return StartPlan(PLANS[0], f"{PLANS[0].words}: nothing is moved where nobody plans")


def _unknown() -> int | None:
    return None


class Rungs:
    """The way down of one attempt on a loaded model."""

    def __init__(self, components: WanComponents, ladder: MemoryLadder, report: RunReport) -> None:
        self._components = components
        self._ladder = ladder
        self._report = report

    def until_done(self, part: Callable[[], T], use: MemoryUse, stage: Stage, at: str | None = None) -> T:
        """Return what a part of the run returns; each time that it fails for memory, it is made again lower down.

        Args:
            part: may be called again after it failed for memory, and then begins where it began.
            use: what it wants memory for, where the error does not say it.
            stage: in which stage of the task the rungs are told.
            at: what is done, in words, for the receipt.

        Raises:
            OutOfMemory: there is no rung left.
            Interrupted: the report asked to stop.
        """
        while True:
            try:
                return part()
            except OutOfMemory as error:
                plan = self._ladder.down(self._components.plan, error, use, at)
            # Not before the error is forgotten: its traceback holds what did not fit.
            self._components.arrange(plan)
            rung = self._ladder.taken[-1]
            log.warning("memory.fallback", at=rung.at, plan=rung.after)
            self._report.fell_back(stage, rung.sentence)
