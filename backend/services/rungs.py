"""Makes a part of a run again, on a lower rung each time that memory runs out, until it is done or no rung is left.

Decides nothing: the rungs are the ladder's, how a plan is carried out is the engine's matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from backend.core.domain import Stage
from backend.core.errors import OutOfMemory
from backend.core.planning.memory_ladder import MemoryLadder, MemoryUse
from backend.engine.loading.pipeline_loader import WanComponents
from backend.services.run_report import RunReport

T = TypeVar("T")

log = structlog.get_logger(__name__)


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
