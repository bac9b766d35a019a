"""What a run does when memory runs out: it repeats what failed under the next lower memory plan, in any phase.

Which plan is next is the ladder's decision (`core.planning.memory_ladder`); carrying it out is the engine's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from backend.core.domain import Stage
from backend.core.errors.generation import OutOfMemory
from backend.core.planning.memory_ladder import Fallback, MemoryLadder, MemoryUse, OomPolicy
from backend.core.planning.memory_plan import MemoryPlan
from backend.core.requests.forms import GenerationRequest
from backend.engine.loading.pipeline_loader import WanComponents
from backend.services.run.report import RunReport

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Rungs:
    """The way down the ladder of one attempt; shared by loading, denoising and decoding."""

    def __init__(
        self, policy: OomPolicy, request: GenerationRequest, report: RunReport | None = None, *, float32: bool = False
    ) -> None:
        """`float32` is whether the model computes in it, so that the plans are named accordingly."""
        self._ladder = MemoryLadder(policy, max(request.width, request.height))
        self._report = report
        self._float32 = float32

    @property
    def taken(self) -> list[Fallback]:
        """The steps down so far, in order."""
        return [one.in_precision(float32=self._float32) for one in self._ladder.taken]

    def load(self, load: Callable[[MemoryPlan], WanComponents], plan: MemoryPlan) -> WanComponents:
        """Load a model under the first plan that fits, from `plan` down.

        Raises:
            OutOfMemory: there is no rung left.
            Interrupted: the report asked to stop.
        """
        while True:
            try:
                return load(plan)
            except OutOfMemory as error:
                plan = self._ladder.down(plan, error, MemoryUse.LOAD)
            self._note(Stage.LOADING_MODEL)

    def until_done(
        self, part: Callable[[], T], components: WanComponents, use: MemoryUse, stage: Stage, at: str | None = None
    ) -> T:
        """Run a part of the run; each time that it runs out of memory, run it again one rung lower.

        Args:
            part: starts over when it is called again after it ran out of memory.
            components: the loaded model, arranged under the lower plan.
            use: what the memory is for, unless the error names it.
            stage: the stage of the task under which rungs are reported.
            at: the activity in words, for the record.

        Raises:
            OutOfMemory: there is no rung left.
            Interrupted: the report asked to stop.
        """
        while True:
            try:
                return part()
            except OutOfMemory as error:
                plan = self._ladder.down(components.plan, error, use, at)
            # Only after the error is gone: its traceback keeps alive what did not fit.
            components.arrange(plan)
            self._note(stage)

    def _note(self, stage: Stage) -> None:
        rung = self.taken[-1]
        log.warning("memory.fallback", at=rung.at, plan=rung.after)
        if self._report is not None:
            self._report.update(stage, rung.sentence)
