"""What one attempt reports while it runs: stage, progress, time left, newest preview.

Combines the clock's numbers with the run's messages; does not decide who receives them.
"""

from __future__ import annotations

from collections.abc import Callable

from backend.core.domain import DownloadProgress, Phase, Progress, Stage
from backend.services.run.clock import PhaseClock

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
    """Sends the state of the run to `report`; what `report` raises stops the run."""

    def __init__(self, clock: PhaseClock, report: Report, total_steps: int) -> None:
        self.clock = clock
        self._report = report
        self._total_steps = total_steps
        self.step: int | None = None  #: steps done
        self.preview_step: int | None = None  #: step of the newest preview
        self.saved_step: int | None = None  #: what this run has on disk, as in `Progress`; told with the next report

    def saved(self, step: int) -> None:
        """Report at once which step would outlive this process, as in `Progress.saved_step`."""
        self.saved_step = step
        self.update(Stage.GENERATING, f"Saved after step {step} of {self._total_steps}")

    def begin(self, phase: Phase, message: str) -> None:
        """Enter a phase and report it."""
        self.clock.begin(phase)
        self.update(_PHASE_STAGE[phase], message)

    def update(self, stage: Stage, message: str, fetch: DownloadProgress | None = None) -> None:
        """Report the progress of the run and, while it waits for its model, of the download."""
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
                saved_step=self.saved_step,
                unit_seconds=self.clock.unit_seconds,
            )
        )
