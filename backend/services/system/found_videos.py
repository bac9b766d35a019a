"""Adds finished videos to the gallery that the database does not know, from the record inside each file.

Only files that have the name of a task and hold the record of that same task; all others are the user's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import structlog

from backend.core.domain import Output
from backend.core.errors.lookups import OutputFileMissing
from backend.core.files import replacing
from backend.core.paths import Home
from backend.core.record import PRODUCT, RunRecord
from backend.core.requests.forms import GenerationRequest
from backend.store.engine import PAGE_ROWS
from backend.store.upkeep.adoption import VideoRegister
from backend.store.upkeep.opening import videos_on_disk

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """The result of one scan."""

    added: tuple[str, ...] = ()  #: ids
    unreadable: tuple[str, ...] = ()  #: ids of files whose record is missing, damaged or of something else


class FoundVideos:
    """Scans the outputs folder; remembers what it could not read, so that it is read only once."""

    def __init__(self, home: Home, register: VideoRegister) -> None:
        self._home = home
        self._register = register
        self._unreadable: dict[str, int] = {}  # id -> modification time, in nanoseconds
        self.added = 0  #: since the start

    def adopt(self, stopping: Callable[[], bool] = lambda: False) -> Found:
        """Add every unknown video.

        Raises:
            StoreFailed: the database is not usable now.
        """
        added: list[str] = []
        for video in self._unknown():
            if stopping():
                break
            task_id = video.stem
            try:
                age = video.stat().st_mtime_ns
                if self._unreadable.get(task_id) == age:
                    continue
                read = _read(video, task_id)
            except OSError as error:
                log.warning("video.not_read", task_id=task_id, error=error.strerror)
                continue
            if read is None:
                self._unreadable[task_id] = age
                log.warning("video.not_adopted", file=video.name, reason="it holds no record of its task")
            elif self._register.add(*read):
                self._draw(video, read[1])
                added.append(task_id)
        self.added += len(added)
        if added:
            log.warning("video.adopted", videos=len(added), first=added[0])
        return Found(tuple(added), tuple(self._unreadable))

    def _unknown(self) -> Iterator[Path]:
        """Yield the videos that the database does not know; a page at a time, since there may be a million others."""
        videos = videos_on_disk(self._home)
        while page := {path.stem: path for path in islice(videos, PAGE_ROWS)}:
            yield from (page[task_id] for task_id in sorted(self._register.unknown(set(page))))

    def faults(self) -> list[str]:
        """Return a sentence about the files that look like videos of tasks and could not be added."""
        count = len(self._unreadable)
        return [f"{count} videos in `outputs` are in no list: they hold no record of their task"] if count else []

    def _draw(self, video: Path, output: Output) -> None:
        """Write the still picture, from the middle of the clip as ever, where there is none."""
        from backend.services.media.poster import thumbnail
        from backend.services.media.video_encoder import read_frames

        path = self._home.thumbnail_of(output.task_id)
        if path.exists():
            return
        try:
            picture = thumbnail(
                next(islice(read_frames(video), output.num_frames // 2, None)), RunRecord.from_json(output.metadata)
            )
            with replacing(path, durable=False) as part:
                part.write_bytes(picture)
        except (OutputFileMissing, OSError, StopIteration) as error:
            log.warning("video.without_thumbnail", task_id=output.task_id, error=str(error))


def _read(path: Path, task_id: str) -> tuple[GenerationRequest, Output] | None:
    """Return request and output as a worker would have recorded them; None for a file that is not this task's."""
    from backend.services.media.video_encoder import read_metadata  # takes PyAV and NumPy

    metadata = read_metadata(path)
    record = None if metadata is None else RunRecord.from_json(metadata)
    if record is None or record.product != PRODUCT or record.task_id != task_id or record.result is None:
        return None
    request, result = record.requested, record.result
    if request is None or metadata is None or not result.frames:
        return None
    stat = path.stat()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return request, Output(
        task_id=task_id,
        filename=path.name,
        size_bytes=stat.st_size,
        sha256=digest,
        width=request.width,
        height=request.height,
        num_frames=result.frames,
        fps=request.fps,
        generation_seconds=sum((result.seconds or {}).values()),
        warnings=result.warnings,
        metadata=metadata,
        created_at=datetime.fromtimestamp(stat.st_mtime, UTC),
        model=request.model,
        mock=result.mock,
    )
