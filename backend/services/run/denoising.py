"""From a request to final latents: inputs, LoRAs, steps; saved on the way and resumed from a saved state.

Reports at every step. Knows saved states by their owner, not by their file names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog

from backend.core.domain import Phase, Stage
from backend.core.errors.generation import OutOfMemory, StateMismatch
from backend.core.errors.interruptions import Interrupted, LeaseLost
from backend.core.errors.surroundings import StorageFull
from backend.core.planning.memory_ladder import MemoryUse
from backend.core.requests.forms import GenerationRequest, LoraFileRef
from backend.engine.frames.preview import PreviewMap, render_preview
from backend.engine.loading.pipeline_loader import WanComponents
from backend.engine.lora.stack import LoraStack, build_stack
from backend.engine.sampling.conditioning import Picture
from backend.engine.sampling.denoise import DenoiseJob
from backend.engine.state.job import restore_state, write_state
from backend.services.media.images import InputStore
from backend.services.media.pictures import fit_image
from backend.services.run.clock import EXPERT_PHASE
from backend.services.run.files import AttemptFiles
from backend.services.run.out_of_memory import Rungs
from backend.services.run.report import RunReport

OpenLora = Callable[[LoraFileRef], Path]
#: Shortest time between two preview pictures.
PREVIEW_SECONDS = 0.25

log = structlog.get_logger(__name__)


class DenoisingRun:
    """The denoising of one attempt."""

    def __init__(
        self,
        components: WanComponents,
        request: GenerationRequest,
        files: AttemptFiles,
        report: RunReport,
        rungs: Rungs,
        *,
        open_lora: OpenLora,
        state_seconds: float,
    ) -> None:
        self._components = components
        self._request = request
        self._files = files
        self._states = files.states
        self._report = report
        self._rungs = rungs
        self._open_lora = open_lora
        self._state_seconds = state_seconds
        self._preview_map = PreviewMap.read(components.folder)
        self._saved_at = time.monotonic()
        self._preview_time = float("-inf")
        self.resumed_from: int | None = None  #: steps completed by earlier attempts
        self.loras: LoraStack | None = None

    def run(self) -> DenoiseJob:
        """Run the remaining steps and return the finished job.

        Raises:
            Interrupted: the report asked to stop. The state is saved, unless the task belongs to another attempt.
            InputMissing: an image was deleted.
            LoraNotApplied: a LoRA was not applied, and the request or its preset does not allow skipping it.
            NonFiniteLatents, OutOfMemory: as they say.
        """
        job = self._start()
        self._saved_at = time.monotonic()
        try:
            self._steps(job)
        except Interrupted as stop:
            if not isinstance(stop, LeaseLost) and 0 < job.index < job.total_steps:
                self._save(job)  # which nobody is told: the attempt ends in order, and is no strike
            raise
        return job

    def _start(self) -> DenoiseJob:
        request, report = self._request, self._report
        report.begin(Phase.ENCODE, "Encoding the prompt" if request.image is None else "Encoding prompt and image")
        image, end_image = (self._picture(one) for one in (request.image, request.end_image))
        # Also without LoRAs: an empty stack removes what another job left on the experts.
        self.loras = build_stack(
            self._components, request.loras, self._open_lora, request.on_lora_failure, preset=request.preset
        )
        for receipt in self.loras.receipts:
            if not receipt.applied:
                log.warning("lora.skipped", lora=receipt.id, reason=receipt.reason)
                report.update(Stage.PREPARING_INPUTS, f"Continuing without the LoRA {receipt.id}: {receipt.reason}")
        start = partial(DenoiseJob.start, self._components, request, image=image, end_image=end_image, loras=self.loras)
        job = self._rungs.until_done(start, self._components, MemoryUse.TEXT, Stage.PREPARING_INPUTS)
        self._resume(job)
        report.clock.advance()
        report.clock.split_steps(job.forwards)
        for expert, phase in EXPERT_PHASE.items():
            report.clock.skip(phase, job.plan[: job.index].count(expert))
        return job

    def _picture(self, image_id: str | None) -> Picture | None:
        if image_id is None:
            return None
        request = self._request
        return fit_image(InputStore(self._files.home).load(image_id), request.width, request.height, request.image_fit)

    def _resume(self, job: DenoiseJob) -> None:
        """Restore the newest state that fits the job; set aside those that do not."""
        for step, path in self._states.newest_first():
            try:
                restore_state(job, path)
            except StateMismatch as error:
                log.warning("state.set_aside", step=step, reason=error.message)
                self._states.set_aside(path)
                continue
            log.info("state.resumed", step=step)
            self.resumed_from = job.index
            return

    def _steps(self, job: DenoiseJob) -> None:
        report = self._report
        if self.resumed_from is not None:
            report.step = job.index
            report.update(Stage.GENERATING, f"Resumed at step {job.index} of {job.total_steps}")
        phase: Phase | None = None
        while not job.done:
            expert, by = job.expert, job.by_expert(job.index)
            if EXPERT_PHASE[expert] is not phase:
                phase = EXPERT_PHASE[expert]
                report.step = job.index
                report.begin(phase, f"Denoising{by}")
            self._step(job)
            report.step = job.index
            report.clock.advance()
            self._preview(job)
            # Report first: it finds out whether the task, and so its states, still belong to this attempt.
            report.update(Stage.GENERATING, f"Step {job.index} of {job.total_steps}{by}")
            due = time.monotonic() - self._saved_at >= self._state_seconds
            if (due or job.done or job.expert != expert) and self._save(job):
                report.saved(job.index)

    def _step(self, job: DenoiseJob) -> None:
        """Run one step; when memory runs out, save the state and repeat it under a plan that needs less."""

        def attempt() -> None:
            try:
                job.step()
            except OutOfMemory:
                if job.index and self._save(job):
                    self._report.saved(job.index)
                raise

        at = f"step {job.index + 1}{job.by_expert(job.index)}"
        self._rungs.until_done(attempt, self._components, MemoryUse.STEP, Stage.GENERATING, at)

    def _save(self, job: DenoiseJob) -> bool:
        """Save the state of the job; return whether that succeeded."""
        self._saved_at = time.monotonic()
        try:
            self._states.save(job.index, lambda path: write_state(job, path))
        except (StorageFull, OSError) as error:
            # A state only saves time after a crash; there may still be room for the video of this run.
            log.warning("state.not_saved", step=job.index, reason=str(error))
            return False
        return True

    def _preview(self, job: DenoiseJob) -> None:
        now = time.monotonic()
        if now - self._preview_time < PREVIEW_SECONDS:
            return
        size = (self._request.width, self._request.height)
        self._preview_time = now
        try:
            self._files.write_preview(render_preview(job.estimate, self._preview_map, size))
        except (StorageFull, OSError) as error:
            log.warning("preview.not_written", step=job.index, reason=str(error))
            return
        self._report.preview_step = job.index
