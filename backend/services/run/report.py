"""What one attempt says about itself while it runs: stage, progress, time to the end, newest preview.

Puts the clock's numbers and the run's words together; does not decide who hears them.
"""

from __future__ import annotations

from collections.abc import Callable

from backend.core.domain import DownloadProgress, Progress, Stage
from backend.services.run.clock import Phase, PhaseClock

Report = Callable[[Progress], None]
_PHASE_STAGE = {
    Phase.DOWNLOAD: Stage.DOWNLOADING_MODEL,
    Phase.LOAD: Stage.LOADING_MODEL,
    Phase.ENCODE: Stage.PREPARING_INPUTS,
    Phase.DENOISE_HIGH: Stage.GENERATING,
    Phase.DENOISE_LOW: Stage.GENERATING,
    Phase.DECODE: Stage.POST_PROCESSING,
    Phase.MUX: Stage.SAVING,
}


class RunReport:
    """Tells `report` how far the run is; what `report` raises stops the run."""

    def __init__(self, clock: PhaseClock, report: Report, total_steps: int) -> None:
        self.clock = clock
        self._report = report
        self._total_steps = total_steps
        self.step: int | None = None  #: steps done
        self.preview_step: int | None = None  #: step of the newest preview

    def begin(self, phase: Phase, message: str) -> None:
        """Enter a phase and say so."""
        self.clock.begin(phase)
        self.update(_PHASE_STAGE[phase], message)

    def fell_back(self, stage: Stage, message: str) -> None:
        """Say that memory ran out and how the run goes on; what it takes from now on teaches nothing."""
        self.clock.disturb()
        self.update(stage, message)

    def update(self, stage: Stage, message: str, fetch: DownloadProgress | None = None) -> None:
        """Say how far the run is, and how far the model that it waits for."""
        self._report(
            Progress(
                stage=stage,
                fraction=self.clock.fraction,
                message=message,
                step=self.step,
                total_steps=self._total_steps,
                eta_seconds=self.clock.eta_seconds,
                preview_step=self.preview_step,
                fetch=fetch,
            )
        )
