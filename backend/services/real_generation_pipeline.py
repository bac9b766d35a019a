"""One attempt at a task, from request to finished video file.

Puts the engine's parts in order, reports progress, and leaves nothing behind when it is stopped. Does not
know the database: `report` is how the outside sees it and stops it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

from backend.core.domain import Output, Progress, Stage, utcnow
from backend.core.faults import fault_point
from backend.core.model_integration_bridge import ModelIntegrationBridge, RunFacts
from backend.core.paths import Home
from backend.core.requests import GenerationRequest
from backend.engine.decode import Frames, count_chunks, stream_frames
from backend.engine.denoise import DenoiseJob
from backend.engine.guidance import HIGH, LOW
from backend.engine.pipeline_loader import WanComponents, library_versions
from backend.engine.preview import PreviewMap, render_preview
from backend.engine.sentinel import ClipSentinel
from backend.services.attempt_files import AttemptFiles, storage_errors
from backend.services.phase_clock import CostHistory, Phase, PhaseClock, PhasePlan
from backend.services.video_encoder import VideoEncoder, thumbnail

Report = Callable[[Progress], None]
#: Shortest time between two preview pictures.
PREVIEW_SECONDS = 0.25
_EXPERT_PHASE = {HIGH: Phase.DENOISE_HIGH, LOW: Phase.DENOISE_LOW}
_PHASE_STAGE = {
    Phase.LOAD: Stage.LOADING_MODEL,
    Phase.ENCODE: Stage.PREPARING_INPUTS,
    Phase.DENOISE_HIGH: Stage.GENERATING,
    Phase.DENOISE_LOW: Stage.GENERATING,
    Phase.DECODE: Stage.POST_PROCESSING,
    Phase.MUX: Stage.SAVING,
}


class RealGenerationPipeline:
    """Runs requests on real models, one at a time; remembers how long phases take on this machine."""

    def __init__(self, bridge: ModelIntegrationBridge[WanComponents], home: Home) -> None:
        self._bridge = bridge
        self._home = home
        self._history = CostHistory()

    def generate_t2v(self, task_id: str, request: GenerationRequest, *, report: Report) -> Output:
        """Make the video of a task and return its record.

        Args:
            task_id: names the files.
            request: every value that decides the pixels.
            report: called at every phase, step and chunk; what it raises stops the run (`Interrupted`).

        Raises:
            Interrupted: `report` asked to stop; nothing is left on disk.
            ModelUnavailable, ModelDamaged: the model cannot be used.
            GenerationFailed: non-finite values, no memory, or the encoder failed.
            StorageFull: the disk is full.
        """
        with AttemptFiles(self._home, task_id) as files:
            return _Run(self._bridge, self._history, files, task_id, request, report).make()


class _Run:
    """The state of one attempt while it lasts."""

    def __init__(
        self,
        bridge: ModelIntegrationBridge[WanComponents],
        history: CostHistory,
        files: AttemptFiles,
        task_id: str,
        request: GenerationRequest,
        report: Report,
    ) -> None:
        self._bridge = bridge
        self._files = files
        self._task_id = task_id
        self._request = request
        self._report = report
        self._step: int | None = None
        self._preview_step: int | None = None
        self._preview_time = float("-inf")
        self._clock = PhaseClock(request.model, self._plan(), history)

    def _plan(self) -> dict[Phase, PhasePlan]:
        request = self._request
        pixels = float(request.width * request.height * request.num_frames)
        passes = 2 if request.guidance_scale > 1.0 else 1
        chunks = count_chunks(request.num_frames)
        high = request.steps // 2  # how the experts share the steps is known when the model is loaded
        return {
            Phase.LOAD: PhasePlan(0 if self._bridge.is_warm(request.model) else 1, 1.0),
            Phase.ENCODE: PhasePlan(1, float(passes)),
            Phase.DENOISE_HIGH: PhasePlan(high, pixels * passes),
            Phase.DENOISE_LOW: PhasePlan(request.steps - high, pixels * passes),
            Phase.DECODE: PhasePlan(chunks, pixels / chunks),
            Phase.MUX: PhasePlan(1, pixels),
        }

    def make(self) -> Output:
        started = time.monotonic()
        self._tell(Stage.INITIALIZING, "Starting")
        components = self._load()
        job = self._denoise(components)
        output = self._write(components, job, started)
        self._clock.finish()
        return output

    def _load(self) -> WanComponents:
        self._begin(Phase.LOAD, f"Loading {self._request.model}")
        components = self._bridge.prepare(self._request)
        self._clock.advance()
        return components

    def _denoise(self, components: WanComponents) -> DenoiseJob:
        self._begin(Phase.ENCODE, "Encoding the prompt")
        job = DenoiseJob.start(components, self._request)
        self._clock.advance()
        self._clock.replan(Phase.DENOISE_HIGH, job.steps_of(HIGH))
        self._clock.replan(Phase.DENOISE_LOW, job.steps_of(LOW))
        preview_map = PreviewMap.read(components.folder)
        phase: Phase | None = None
        while not job.done:
            expert = job.expert
            if _EXPERT_PHASE[expert] is not phase:
                phase = _EXPERT_PHASE[expert]
                self._step = job.index
                self._begin(phase, f"Denoising, {expert}-noise expert")
            job.step()
            self._step = job.index
            self._clock.advance()
            self._preview(job, preview_map)
            self._tell(Stage.GENERATING, f"Step {job.index} of {job.total_steps} ({expert}-noise expert)")
        return job

    def _preview(self, job: DenoiseJob, preview_map: PreviewMap | None) -> None:
        now = time.monotonic()
        if now - self._preview_time < PREVIEW_SECONDS:
            return
        size = (self._request.width, self._request.height)
        self._files.write_preview(render_preview(job.estimate, preview_map, size))
        self._preview_time = now
        self._preview_step = job.index

    def _write(self, components: WanComponents, job: DenoiseJob, started: float) -> Output:
        request = self._request
        self._begin(Phase.DECODE, f"Decoding {request.num_frames} frames")
        sentinel = ClipSentinel()
        with VideoEncoder(self._files.part, request.width, request.height, request.fps) as encoder:
            still, frames = self._decode(components, job, sentinel, encoder)
            self._begin(Phase.MUX, "Saving the video")
            warnings = sentinel.warnings()
            metadata = self._bridge.metadata(
                self._task_id,
                request,
                components,
                RunFacts(
                    frames=frames,
                    seconds=self._clock.seconds,
                    expert_steps={expert: job.steps_of(expert) for expert in _EXPERT_PHASE},
                    warnings=warnings,
                    libraries=library_versions(),
                ),
            )
            encoder.finish(metadata)
        size_bytes, sha256 = _measure(self._files.part)
        self._tell(Stage.SAVING, "Putting the video in place")  # the last moment at which the run can be stopped
        self._files.write_thumbnail(thumbnail(still))
        fault_point("output.before_rename")
        self._files.publish()
        fault_point("output.after_rename")
        self._clock.advance()
        return Output(
            task_id=self._task_id,
            filename=self._files.video.name,
            size_bytes=size_bytes,
            sha256=sha256,
            width=request.width,
            height=request.height,
            num_frames=frames,
            fps=request.fps,
            generation_seconds=time.monotonic() - started,
            warnings=warnings,
            metadata=metadata,
            created_at=utcnow(),
        )

    def _decode(
        self, components: WanComponents, job: DenoiseJob, sentinel: ClipSentinel, encoder: VideoEncoder
    ) -> tuple[Frames, int]:
        """Send the clip through sentinel and encoder; return the frame for the thumbnail and the number of frames."""
        middle = self._request.num_frames // 2
        still: Frames | None = None
        count = 0
        for chunk in stream_frames(components, job.latents):
            fault_point("decode.chunk")
            sentinel.see(chunk)
            encoder.write(chunk)
            if still is None or count <= middle < count + len(chunk):
                still = chunk[min(max(0, middle - count), len(chunk) - 1)]
            count += len(chunk)
            self._clock.advance()
            self._tell(Stage.POST_PROCESSING, f"Decoded {count} of {self._request.num_frames} frames")
        if still is None:
            raise ValueError("the decoder yields at least one chunk")
        return still, count

    def _begin(self, phase: Phase, message: str) -> None:
        self._clock.begin(phase)
        self._tell(_PHASE_STAGE[phase], message)

    def _tell(self, stage: Stage, message: str) -> None:
        self._report(
            Progress(
                stage=stage,
                fraction=self._clock.fraction,
                message=message,
                step=self._step,
                total_steps=self._request.steps,
                eta_seconds=self._clock.eta_seconds,
                preview_step=self._preview_step,
            )
        )


def _measure(path: Path) -> tuple[int, str]:
    """Return size and SHA-256 of a file."""
    with storage_errors(), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, digest
