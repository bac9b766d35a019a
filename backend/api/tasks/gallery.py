"""Gallery routes: finished videos, their files and thumbnails, and tasks derived from them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.addressing import current_links
from backend.api.http.deps import OutputId, ServicesDep
from backend.api.http.media import MediaFile
from backend.api.http.repeats import KeyHeader, check_key
from backend.api.http.routing import Routes
from backend.api.http.shapes import Message, Timestamp, iso_or_none, known, shown_model
from backend.api.planning.estimate import Estimated, estimated
from backend.api.tasks.body import ExtendBody, Real, SubmitBody, Whole, read_extension, request_body_docs
from backend.api.tasks.generation import submitted
from backend.api.tasks.shapes import Submitted, video_url
from backend.api.tasks.webhook import WebhookField, choice_of
from backend.core.domain import Output
from backend.core.errors.lookups import OutputFileMissing
from backend.core.paths import Home
from backend.core.record import RunRecord, RunResult
from backend.services.system.host_stats import MIB

router = Routes(prefix="/outputs", tags=["outputs"])
thumbnails = Routes(tags=["outputs"])

ExtensionDep = Annotated[SubmitBody, Depends(read_extension)]
MAX_LIMIT = 1000
_THUMBNAIL_NAME = re.compile(r"^([A-Za-z0-9-]{1,64})_thumb\.jpg$")
_VIDEO: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"video/mp4": {}}, "description": "The whole file"},
    206: {"content": {"video/mp4": {}}, "description": "The part asked for with `Range`"},
    416: {"description": "There is no such part"},
}
_PICTURE: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"image/jpeg": {}}, "description": "A JPEG"}}


def video_metadata(output: Output, home: Home, *, in_full: bool = False) -> VideoMetadata:
    """Describe a finished video; `in_full` adds the complete record that the file also embeds."""
    links = current_links()
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
    metadata: dict[str, Any] | None = Field(None, description="The record inside the file; only for a single video")


class VideoList(BaseModel):
    """The gallery, newest first."""

    videos: list[VideoMetadata]
    total_count: int
    total_size_mb: float


class RedecodeBody(BaseModel):
    """New settings of the encoder for a video whose latents were kept."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    fps: Real = Field(None, description="Frames per second of the file; as before when left out")
    crf: Whole = Field(None, description="Quality of the file: 1 is best, 51 is worst; as before when left out")
    webhook: WebhookField = Field(None, description="An address to tell what becomes of the task, as in submit")


@router.get("", summary="The gallery")
def list_outputs(
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most videos in the answer")] = MAX_LIMIT,
    offset: Annotated[int, Query(ge=0, le=2**31, description="How many of the newest to skip")] = 0,
) -> VideoList:
    """List the finished videos, newest first; the totals count all of them."""
    count, size = services.outputs.totals()
    videos = [video_metadata(output, services.home) for output in services.outputs.list(limit=limit, offset=offset)]
    return VideoList(videos=videos, total_count=count, total_size_mb=round(size / MIB, 3))


@router.get("/{output_id}", summary="One video")
def one_output(output_id: OutputId, services: ServicesDep) -> VideoMetadata:
    """Show a finished video with every value that made it."""
    return video_metadata(services.outputs.get(output_id), services.home, in_full=True)


@router.delete("/{output_id}", summary="Delete a video")
def delete_output(output_id: OutputId, services: ServicesDep) -> Message:
    """Delete the video, with everything that was kept for it, from disk and from the gallery."""
    services.generation.delete_output(output_id)
    return Message(message="Video deleted successfully")


@router.post("/{output_id}/extend", summary="Go on from a video", openapi_extra=request_body_docs(ExtendBody))
def extend(output_id: OutputId, body: ExtensionDep, services: ServicesDep) -> Submitted | Estimated:
    """Queue a new clip that starts from the last frame of this one; whatever is left out is as in this one.

    With `dry_run` the answer is an estimate, and nothing is queued.
    """
    draft = replace(body.draft(services.inputs), extends=output_id)
    if body.dry_run:
        return estimated(services.generation.estimate(draft))
    return submitted(services.generation.submit(draft), body)


@router.post("/{output_id}/redecode", summary="Decode a video again")
def redecode(
    output_id: OutputId, body: RedecodeBody, services: ServicesDep, idempotency_key: KeyHeader = None
) -> Submitted:
    """Queue a new file from the kept latents of this video, with other settings of the encoder; no denoising."""
    webhook, key = choice_of(body.webhook), check_key(idempotency_key)
    queued = services.generation.redecode(output_id, body.fps, body.crf, key=key, webhook=webhook)
    return submitted(queued)


@router.get("/{output_id}/video", summary="Play a video", response_class=Response, responses=_VIDEO)
def play(output_id: OutputId, services: ServicesDep) -> Response:
    """Send the video for a player, whole or in the parts it asks for."""
    output = services.outputs.get(output_id)
    return MediaFile(services.outputs.video_path(output_id), "video/mp4", etag=output.sha256)


@router.get("/{output_id}/download", summary="Download a video", response_class=Response, responses=_VIDEO)
def download(output_id: OutputId, services: ServicesDep) -> Response:
    """Send the video as a file to keep."""
    output = services.outputs.get(output_id)
    path = services.outputs.video_path(output_id)
    return MediaFile(path, "video/mp4", etag=output.sha256, download_as=f"wan22_video_{output_id}.mp4")


@router.get("/{output_id}/thumbnail", summary="A video's still picture", response_class=Response, responses=_PICTURE)
def thumbnail(output_id: OutputId, services: ServicesDep) -> Response:
    """Send the still picture of a video."""
    return MediaFile(services.outputs.thumbnail_path(output_id), "image/jpeg")


@thumbnails.get(
    "/thumbnails/{filename}",
    summary="A still picture by its file name",
    response_class=Response,
    responses=_PICTURE,
)
def thumbnail_file(
    filename: Annotated[str, Path(description="Last part of a video's `thumbnail_path`")], services: ServicesDep
) -> Response:
    """Send the still picture that `thumbnail_path` of a video names."""
    match = _THUMBNAIL_NAME.match(filename)
    if match is None:
        raise OutputFileMissing("Thumbnail not found")
    return MediaFile(services.outputs.thumbnail_path(match[1]), "image/jpeg")
