"""The shape of a video in the gallery: what clients of every age read of it."""

from __future__ import annotations

from base64 import b64encode
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, Field

from backend.api.http.addressing import current_links
from backend.api.http.shapes import Timestamp, iso_or_none, known, shown_model
from backend.api.tasks.shapes import video_url
from backend.core.record import RunRecord, RunResult
from backend.services.system.container import Services
from backend.services.system.host_stats import MIB
from backend.store.gallery.listing import GalleryItem


def video_metadata(item: GalleryItem, services: Services, *, in_full: bool = False) -> VideoMetadata:
    """Describe a finished video; `in_full` adds the complete record that the file also embeds."""
    links, output, home = current_links(), item.output, services.home
    record = RunRecord.from_json(output.metadata)
    request, result = record.request, record.result or RunResult()
    model = str(request.get("model") or output.model or "unknown")
    return VideoMetadata(
        id=output.task_id,
        filename=output.filename,
        file_path=video_url(output.task_id),
        video_url=video_url(output.task_id),
        output_path=video_url(output.task_id),
        download_url=links.to_media(f"/api/v1/outputs/{output.task_id}/download"),
        thumbnail_path=links.to_media(f"/thumbnails/{output.task_id}_thumb.jpg"),
        thumbnail_url=links.to_media(f"/api/v1/outputs/{output.task_id}/thumbnail"),
        prompt=str(request.get("prompt", "")),  # a damaged row has no record; the file still has its own
        model_type=shown_model(model),
        model=model,
        resolution=f"{output.width}x{output.height}",
        num_frames=output.num_frames,
        fps=output.fps,
        duration_seconds=round(output.duration_seconds, 3),
        duration=round(output.duration_seconds, 3),
        file_size_mb=round(output.size_bytes / MIB, 3),
        size_bytes=output.size_bytes,
        sha256=output.sha256,
        created_at=iso_or_none(output.created_at),
        generation_seconds=round(output.generation_seconds, 3),
        generation_time_minutes=round(output.generation_seconds / 60, 3),
        generation_params=known(request),
        warnings=list(output.warnings),
        quality=result.quality,
        mock=output.mock is not None,
        mock_reason=output.mock,
        instead_of=result.instead_of,
        has_latents=home.latents_of(output.task_id).is_file(),
        loras=list(result.loras),
        favourite=item.favourite,
        board_id=item.board,
        tags=list(item.tags),
        imported=item.imported,
        placeholder=None if item.placeholder is None else b64encode(item.placeholder).decode(),
        trashed_at=iso_or_none(item.trashed_at),
        purge_at=None
        if item.trashed_at is None
        else iso_or_none(item.trashed_at + timedelta(days=services.settings.trash_days)),
        metadata=output.metadata if in_full else None,
    )


class VideoMetadata(BaseModel):
    """One finished video; its id is its task's id."""

    id: str
    filename: str
    file_path: str = Field(description="Address of the video for a player")
    video_url: str
    output_path: str
    download_url: str
    thumbnail_path: str
    thumbnail_url: str
    prompt: str
    model_type: str = Field(description="The family of the model, or its exact id for a client that asks for exact ids")
    model: str = Field(description="The exact id of the model that was asked for or chosen")
    resolution: str
    num_frames: int
    fps: float
    duration_seconds: float
    duration: float
    file_size_mb: float
    size_bytes: int
    sha256: str
    created_at: Timestamp | None = None
    generation_seconds: float
    generation_time_minutes: float
    generation_params: dict[str, Any] = Field(description="Every value that decides the frames")
    warnings: list[str] = []
    quality: str | None = Field(None, description="ok, black, flat or frozen, as seen in the frames")
    mock: bool = Field(False, description="Whether it is a mock, which no model made")
    mock_reason: str | None = None
    instead_of: str | None = Field(None, description="The model that was asked for, where another one made the video")
    has_latents: bool = Field(False, description="Whether the latents were kept, for `redecode`")
    loras: list[dict[str, Any]] = Field([], description="What became of each LoRA that was asked for")
    favourite: bool = False
    board_id: str | None = None
    tags: list[str] = []
    imported: bool = Field(False, description="Whether it was made elsewhere and uploaded")
    placeholder: str | None = Field(
        None, description="A picture of a few colours to show at once, a ThumbHash in base64; absent while not made yet"
    )
    trashed_at: Timestamp | None = Field(None, description="When it was moved into the trash")
    purge_at: Timestamp | None = Field(None, description="When it is deleted for good, unless it is restored")
    metadata: dict[str, Any] | None = Field(None, description="The record inside the file; only for a single video")


class VideoList(BaseModel):
    """One page of the gallery."""

    videos: list[VideoMetadata]
    total_count: int
    total_size_mb: float
