"""From final latents to the finished file: decode, look, encode, and put everything in place.

Frames pass through in chunks, so memory does not grow with the clip. Knows nothing about denoising.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from backend.core.domain import Output, Stage, utcnow
from backend.core.faults import fault_point
from backend.core.files import storage_errors
from backend.core.model_integration_bridge import ModelIntegrationBridge, RunFacts
from backend.core.planning.memory_ladder import MemoryLadder, MemoryUse
from backend.core.requests import GenerationRequest
from backend.engine.frames.decode import Frames, Latents, count_chunks, stream_frames, tile_grid
from backend.engine.frames.sentinel import ClipSentinel
from backend.engine.loading.pipeline_loader import WanComponents, library_versions
from backend.engine.state.kept_latents import KeptLatents, write_latents
from backend.services.media.video_encoder import VideoEncoder, thumbnail
from backend.services.run.clock import Phase
from backend.services.run.files import AttemptFiles
from backend.services.run.memory_plans import Rungs
from backend.services.run.memory_watch import RunMemory
from backend.services.run.report import RunReport

#: What tiles do to a picture, for people.
TILES = "pixels differ a little from a decode in one piece"


@dataclass(frozen=True, slots=True)
class Clip:
    """Final latents and what is known about their making."""

    latents: Latents  #: [1, C, T, h, w]
    components: WanComponents  #: the model, or its decoder alone
    weights_sha256: str | None  #: over all weights that made the latents; None = those of `components`
    expert_steps: dict[str, int]  #: steps that each expert made
    loras: tuple[dict[str, Any], ...]  #: receipts, as plain JSON values
    resumed_from_step: int | None
    ladder: MemoryLadder  #: what happened when memory ran out, so far
    plan_reason: str  #: why the run began with the plan with which it began


@dataclass(frozen=True, slots=True)
class _Decoded:
    frames: int
    sha256: str
    still: Frames  #: one frame for the thumbnail, uint8 RGB [height, width, 3]


@dataclass(frozen=True, slots=True)
class _Written:
    decoded: _Decoded
    warnings: tuple[str, ...]
    metadata: dict[str, Any]


class ClipWriter:
    """Writes one clip's video, thumbnail and, where they are wanted, latents."""

    def __init__(
        self,
        bridge: ModelIntegrationBridge[WanComponents],
        files: AttemptFiles,
        task_id: str,
        request: GenerationRequest,
        report: RunReport,
        memory: RunMemory,
    ) -> None:
        self._bridge = bridge
        self._files = files
        self._task_id = task_id
        self._request = request
        self._report = report
        self._memory = memory

    def write(self, clip: Clip) -> Output:
        """Make the files and return the video's record, in which only the time of the whole run is still 0.

        Raises:
            Interrupted: the report asked to stop.
            NonFiniteLatents, OutOfMemory, EncodingFailed, StorageFull: as they say.
        """
        request = self._request
        self._report.begin(Phase.DECODE, f"Decoding {request.num_frames} frames")
        rungs = Rungs(clip.components, clip.ladder, self._report)
        written = rungs.until_done(partial(self._write, clip), MemoryUse.DECODE, Stage.POST_PROCESSING)
        size_bytes, sha256 = _measure(self._files.part)
        kept = KeptLatents(clip.latents, written.metadata["model"]["weights_sha256"], clip.loras)
        self._put_in_place(kept, clip.components, written.decoded.still)
        return Output(
            task_id=self._task_id,
            filename=self._files.video.name,
            size_bytes=size_bytes,
            sha256=sha256,
            width=request.width,
            height=request.height,
            num_frames=written.decoded.frames,
            fps=request.fps,
            generation_seconds=0.0,
            warnings=written.warnings,
            metadata=written.metadata,
            created_at=utcnow(),
        )

    def _write(self, clip: Clip) -> _Written:
        """Decode and write the unfinished video from its first frame; the file begins anew too."""
        request, plan = self._request, clip.components.plan
        sentinel = ClipSentinel()
        encoder = VideoEncoder(self._files.part, request.width, request.height, request.fps, crf=request.crf)
        with encoder:
            decoded = self._decode(clip, sentinel, encoder)
            self._report.begin(Phase.MUX, "Saving the video")
            fallbacks = clip.ladder.taken
            warnings = sentinel.warnings() + _left_out(clip.loras) + tuple(one.sentence for one in fallbacks)
            if tile_grid(clip.components, clip.latents) is not None:
                warnings += (f"Decoded in tiles of {plan.tile_size} px; {TILES}",)
            warnings += tuple(self._memory.warnings)
            peaks = self._memory.peaks
            weights = clip.weights_sha256 or clip.components.weights_digest  # waits for it, if need be
            metadata = self._bridge.metadata(
                self._task_id,
                request,
                clip.components,
                RunFacts(
                    frames=decoded.frames,
                    frames_sha256=decoded.sha256,
                    quality=sentinel.quality,
                    seconds=self._report.clock.seconds,
                    expert_steps=clip.expert_steps,
                    warnings=warnings,
                    libraries=library_versions(),
                    weights_sha256=weights,
                    loras=clip.loras,
                    resumed_from_step=clip.resumed_from_step,
                    kept_latents=request.keep_latents,
                    attention=clip.components.attention,
                    precision=clip.components.precision,
                    plan=plan.words,
                    plan_reason=clip.plan_reason,
                    peak_vram_bytes=peaks.vram,
                    peak_ram_bytes=peaks.ram,
                    fallbacks=tuple(one.to_json() for one in fallbacks),
                ),
            )
            encoder.finish(metadata)
        return _Written(decoded, warnings, metadata)

    def _decode(self, clip: Clip, sentinel: ClipSentinel, encoder: VideoEncoder) -> _Decoded:
        """Send the clip through sentinel and encoder."""
        total, clock = self._request.num_frames, self._report.clock
        pixels = float(self._request.width * self._request.height * total)
        grid = tile_grid(clip.components, clip.latents)
        units = count_chunks(total) * (1 if grid is None else len(grid))
        clock.restart(units, pixels / units)
        done = count()

        def tile_done() -> None:
            clock.advance()
            self._report.update(Stage.POST_PROCESSING, f"Decoded part {next(done) + 1} of {units}")

        content = hashlib.sha256()
        still: Frames | None = None
        frames = 0
        with storage_errors():
            for chunk in stream_frames(
                clip.components, clip.latents, scratch=self._files.work_folder(), tile_done=tile_done
            ):
                sentinel.see(chunk)
                encoder.write(chunk)
                content.update(chunk.data)
                if still is None or frames <= total // 2 < frames + len(chunk):
                    still = chunk[min(max(0, total // 2 - frames), len(chunk) - 1)]
                frames += len(chunk)
                if grid is None:
                    clock.advance()
                self._report.update(Stage.POST_PROCESSING, f"Decoded {frames} of {total} frames")
        if still is None:
            raise ValueError("the decoder yields at least one chunk")
        return _Decoded(frames, content.hexdigest(), still)

    def _put_in_place(self, kept: KeptLatents, components: WanComponents, still: Frames) -> None:
        self._report.update(
            Stage.SAVING, "Putting the video in place"
        )  # the last moment at which the run can be stopped
        self._files.write_thumbnail(thumbnail(still))
        if self._request.keep_latents:
            self._files.write_latents(lambda part: write_latents(part, kept, components, self._request))
        fault_point("output.before_rename")
        self._files.publish()
        fault_point("output.after_rename")
        self._report.clock.advance()


def _left_out(loras: tuple[dict[str, Any], ...]) -> tuple[str, ...]:
    return tuple(
        f"The LoRA {receipt['id']} was not applied: {receipt['reason']}" for receipt in loras if receipt["reason"]
    )


def _measure(path: Path) -> tuple[int, str]:
    """Return size and SHA-256 of a file."""
    with storage_errors(), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, digest
