"""From final latents to the finished file: decode, check, encode, and put everything in place.

Frames pass through in chunks, so memory does not grow with the clip. Knows nothing about denoising.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from backend.core.domain import Output, Phase, Stage, utcnow
from backend.core.faults import fault_point
from backend.core.files import storage_errors
from backend.core.planning.memory_ladder import MemoryUse
from backend.core.planning.memory_plan import in_precision
from backend.core.record import RunRecord, RunResult
from backend.core.requests.forms import GenerationRequest
from backend.engine.frames.decode import Frames, Latents, count_chunks, stream_frames, tile_grid
from backend.engine.frames.sentinel import ClipSentinel
from backend.engine.loading.pipeline_loader import WanComponents, library_versions
from backend.engine.state.kept_latents import KeptLatents, write_latents
from backend.models.folder.vocabulary import unknown_words
from backend.services.media.poster import thumbnail
from backend.services.media.video_encoder import VideoEncoder
from backend.services.run.files import AttemptFiles
from backend.services.run.memory_watch import RunMemory
from backend.services.run.out_of_memory import Rungs
from backend.services.run.report import RunReport
from backend.services.run.weights_check import changed_files, in_words

#: How tiles change a picture, for the warning.
TILES = "pixels differ slightly from those decoded in one piece"


#: The model that was asked for, and why another one makes the clip.
Substitution = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Clip:
    """Final latents and how they were produced."""

    latents: Latents  #: [1, C, T, h, w]
    components: WanComponents  #: the model, or its decoder alone
    weights_sha256: str | None  #: over all weights that produced the latents; None = those of `components`
    expert_steps: dict[str, int]  #: steps run by each expert
    loras: tuple[dict[str, Any], ...]  #: receipts, as plain JSON values
    resumed_from_step: int | None
    rungs: Rungs  #: what happened when memory ran out, so far
    plan_reason: str  #: why the run started with the plan that it started with


@dataclass(frozen=True, slots=True)
class _Decoded:
    frames: int
    sha256: str
    still: Frames  #: one frame for the thumbnail, uint8 RGB [height, width, 3]


@dataclass(frozen=True, slots=True)
class _Written:
    decoded: _Decoded
    warnings: tuple[str, ...]
    weights_sha256: str
    record: RunRecord


class ClipWriter:
    """Writes the video, the thumbnail and, if requested, the latents of one clip."""

    def __init__(
        self,
        files: AttemptFiles,
        task_id: str,
        request: GenerationRequest,
        report: RunReport,
        memory: RunMemory,
        instead_of: Substitution | None = None,
    ) -> None:
        """`instead_of`: the model that was asked for, where another one makes the clip, and the sentence about it."""
        self._instead_of = instead_of
        self._files = files
        self._task_id = task_id
        self._request = request
        self._report = report
        self._memory = memory

    def write(self, clip: Clip) -> Output:
        """Write the files and return the output; the time of the whole run is still 0 in it.

        Raises:
            Interrupted: the report asked to stop.
            NonFiniteLatents, OutOfMemory, EncodingFailed, StorageFull: as they say.
        """
        request = self._request
        self._report.begin(Phase.DECODE, f"Decoding {request.num_frames} frames")
        write = partial(self._write, clip)
        written = clip.rungs.until_done(write, clip.components, MemoryUse.DECODE, Stage.POST_PROCESSING)
        size_bytes, sha256 = _measure(self._files.part)
        kept = KeptLatents(clip.latents, written.weights_sha256, clip.loras)
        self._put_in_place(kept, clip.components, written)
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
            metadata=written.record.to_json(),
            created_at=utcnow(),
            placeholder=self._files.placeholder,
        )

    def _write(self, clip: Clip) -> _Written:
        """Decode from the first frame and write the unfinished video, replacing an earlier one."""
        request, plan = self._request, clip.components.plan
        sentinel = ClipSentinel()
        encoder = VideoEncoder(self._files.part, request.width, request.height, request.fps, crf=request.crf)
        with encoder:
            decoded = self._decode(clip, sentinel, encoder)
            self._report.begin(Phase.MUX, "Saving the video")
            float32 = clip.components.precision == "float32"
            fallbacks = clip.rungs.taken
            warnings = sentinel.warnings() + _left_out(clip.loras) + tuple(one.sentence for one in fallbacks)
            if tile_grid(clip.components, clip.latents) is not None:
                warnings += (f"Decoded in tiles of {plan.tile_size} px; {TILES}",)
            unknown = unknown_words(clip.components.folder, clip.components.spec.id, request.prompt)
            warnings += (*self._memory.warnings, *(() if unknown is None else (unknown,)))
            if self._instead_of is not None:
                warnings = (self._instead_of[1], *warnings)
            if changed := changed_files(clip.components):
                warnings += (in_words(clip.components, list(changed)),)
            peaks = self._memory.peaks
            weights = clip.weights_sha256 or clip.components.weights_digest  # may wait for it
            result = RunResult(
                frames=decoded.frames,
                frames_sha256=decoded.sha256,
                quality=sentinel.quality,
                seconds=self._report.clock.seconds,
                expert_steps=clip.expert_steps,
                warnings=warnings,
                loras=clip.loras,
                resumed_from_step=clip.resumed_from_step,
                kept_latents=request.keep_latents,
                attention=clip.components.attention,
                convolution=clip.components.convolution,
                precision=clip.components.precision,
                peak_vram_bytes=peaks.vram,
                peak_ram_bytes=peaks.ram,
                plan=in_precision(plan.words, float32=float32),
                plan_reason=in_precision(clip.plan_reason, float32=float32),
                instead_of=None if self._instead_of is None else self._instead_of[0],
                fallbacks=tuple(one.to_json() for one in fallbacks),
            )
            record = RunRecord.of(
                self._task_id,
                request,
                result,
                device=clip.components.device_name,
                weights_sha256=weights,
                libraries=library_versions(),
            )
            encoder.finish(record.to_json())
        return _Written(decoded, warnings, weights, record)

    def _decode(self, clip: Clip, sentinel: ClipSentinel, encoder: VideoEncoder) -> _Decoded:
        """Send the clip through sentinel and encoder."""
        total, clock = self._request.num_frames, self._report.clock
        grid = tile_grid(clip.components, clip.latents)
        units = count_chunks(total) * (1 if grid is None else len(grid))
        clock.restart(units)
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

    def _put_in_place(self, kept: KeptLatents, components: WanComponents, written: _Written) -> None:
        # The last moment at which the run can be stopped.
        self._report.update(Stage.SAVING, "Putting the video in place")
        self._files.write_thumbnail(thumbnail(written.decoded.still, written.record))
        if self._request.keep_latents:
            self._files.write_latents(lambda part: write_latents(part, kept, components, self._request))
        fault_point("output.before_rename")
        self._files.publish()
        fault_point("output.after_rename")
        self._report.clock.finish()


def _left_out(loras: tuple[dict[str, Any], ...]) -> tuple[str, ...]:
    """Return a sentence about each LoRA that was not applied, or not all of it."""
    skipped = [f"The LoRA {one['id']} was not applied: {one['reason']}" for one in loras if one["reason"]]
    partial_ones = [f"The LoRA {one['id']}: {warning}" for one in loras for warning in one.get("warnings", ())]
    return (*skipped, *partial_ones)


def _measure(path: Path) -> tuple[int, str]:
    """Return size and SHA-256 of a file."""
    with storage_errors(), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.stat().st_size, digest
