"""Makes a clip that no model computed, for trying clients and as a last resort: it says so on every frame.

Reports the same stages as a real run. Its file name, record, output and events name it as a mock, with the reason.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from backend.core.domain import Output, Phase, Progress, Stage, utcnow
from backend.core.files import storage_errors
from backend.core.paths import Home
from backend.core.record import RunRecord, RunResult
from backend.core.requests.forms import GenerationRequest
from backend.services.media.poster import thumbnail
from backend.services.media.video_encoder import Pixels, VideoEncoder
from backend.services.run.files import AttemptFiles
from backend.services.run.report import Report

MARK: Final = "MOCK"
#: Shares of the progress, in percent: denoising ends here, and writing the file at 100.
_DENOISED: Final = 70.0
#: Longest time between two calls of `poll`, in seconds.
_POLL_SECONDS: Final = 0.2
_BACKGROUND, _STRIPE, _INK = (36, 36, 40), (52, 52, 58), (250, 204, 21)


@dataclass(frozen=True, slots=True)
class MockClip:
    """Makes the mock clips of one worker."""

    home: Home

    def generate(
        self,
        task_id: str,
        request: GenerationRequest,
        reason: str,
        *,
        report: Report,
        poll: Callable[[], None],
        seconds: float,
    ) -> Output:
        """Write the clip of a task and return its output.

        Args:
            task_id: names the files.
            request: size, length and steps are honoured; the rest is only recorded.
            reason: why no model makes it, as a sentence without a full stop.
            report: called at every stage and step; what it raises stops the run.
            poll: called at every step and while one takes long.
            seconds: how long the steps take together.

        Raises:
            Interrupted: `report` or `poll` asked to stop.
            EncodingFailed, StorageFull: the file could not be written.
        """
        warnings = (f"{MARK}: no model made this clip: {reason}",)
        with AttemptFiles(self.home, task_id, mock=True) as files:
            report(_progress(Stage.INITIALIZING, 0.0, f"{MARK}: {reason}"))
            for step in range(1, request.steps + 1):
                _wait(seconds / request.steps, poll)
                done, left = step / request.steps, seconds * (1 - step / request.steps)
                report(_progress(Stage.GENERATING, _DENOISED * done, f"{MARK}: step {step}", step, request.steps, left))
            frames = [_frame(request, index) for index in range(request.num_frames)]
            report(_progress(Stage.POST_PROCESSING, _DENOISED, f"{MARK}: writing {len(frames)} frames"))
            content = hashlib.sha256()
            encoder = VideoEncoder(files.part, request.width, request.height, request.fps, crf=request.crf)
            with storage_errors(), encoder:
                for frame in frames:
                    encoder.write(frame[None])
                    content.update(frame.data)
                result = RunResult(
                    frames=len(frames),
                    frames_sha256=content.hexdigest(),
                    seconds=dict[Phase, float](),
                    warnings=warnings,
                    mock=reason,
                )
                record = RunRecord.of(task_id, request, result, device=MARK, weights_sha256=None, libraries={})
                encoder.finish(record.to_json())
            with storage_errors(), files.part.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = files.part.stat().st_size
            report(_progress(Stage.SAVING, 99.0, f"{MARK}: putting the clip in place"))
            files.write_thumbnail(thumbnail(frames[len(frames) // 2], record))
            files.publish()
        return Output(
            task_id=task_id,
            filename=files.video.name,
            size_bytes=size_bytes,
            sha256=sha256,
            width=request.width,
            height=request.height,
            num_frames=len(frames),
            fps=request.fps,
            generation_seconds=0.0,
            warnings=warnings,
            metadata=record.to_json(),
            created_at=utcnow(),
            mock=reason,
            placeholder=files.placeholder,
        )


def _wait(seconds: float, poll: Callable[[], None]) -> None:
    """Let time pass; what `poll` raises ends it."""
    end = time.monotonic() + seconds
    poll()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _POLL_SECONDS))
        poll()


def _progress(
    stage: Stage, percent: float, message: str, step: int | None = None, steps: int | None = None, left: float = 0.0
) -> Progress:
    return Progress(stage, percent / 100, message, step=step, total_steps=steps, eta_seconds=left)


def _frame(request: GenerationRequest, index: int) -> Pixels:
    """Return one frame: the mark in the middle, and a bar that moves with time."""
    width, height = request.width, request.height
    picture = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(picture)
    bar = max(2, width // 8)
    start = round((width + bar) * index / max(1, request.num_frames - 1)) - bar
    draw.rectangle((start, 0, start + bar, height), fill=_STRIPE)
    size = max(8, min(height // 3, width // 4))
    draw.text((width / 2, height / 2), MARK, font=ImageFont.load_default(size), fill=_INK, anchor="mm")
    return np.asarray(picture)
