"""Gallery routes: finished videos, their files and thumbnails, and tasks derived from them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from backend.api.gallery.selection import SelectionDep
from backend.api.gallery.shapes import VideoList, VideoMetadata, video_metadata
from backend.api.http.deps import OutputId, ServicesDep
from backend.api.http.media import MediaFile
from backend.api.http.repeats import KeyHeader, check_key
from backend.api.http.routing import Routes
from backend.api.http.shapes import Message
from backend.api.planning.estimate import Estimated, estimated
from backend.api.tasks.body import ExtendBody, Real, SubmitBody, Whole, read_extension, request_body_docs
from backend.api.tasks.generation import submitted
from backend.api.tasks.shapes import Submitted
from backend.api.tasks.webhook import WebhookField, choice_of
from backend.core.errors.lookups import OutputFileMissing, OutputNotFound
from backend.services.system.host_stats import MIB

router = Routes(prefix="/outputs", tags=["outputs"])
thumbnails = Routes(tags=["outputs"])

ExtensionDep = Annotated[SubmitBody, Depends(read_extension)]
TrashQuery = Annotated[bool, Query(description="Also where it is in the trash")]
MAX_LIMIT = 1000
_THUMBNAIL_NAME = re.compile(r"^([A-Za-z0-9-]{1,64})_thumb\.jpg$")
_VIDEO: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"video/mp4": {}}, "description": "The whole file"},
    206: {"content": {"video/mp4": {}}, "description": "The part asked for with `Range`"},
    416: {"description": "There is no such part"},
}
_PICTURE: Final[dict[int | str, dict[str, Any]]] = {200: {"content": {"image/jpeg": {}}, "description": "A JPEG"}}


class RedecodeBody(BaseModel):
    """New settings of the encoder for a video whose latents were kept."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    fps: Real = Field(None, description="Frames per second of the file; as before when left out")
    crf: Whole = Field(None, description="Quality of the file: 1 is best, 51 is worst; as before when left out")
    webhook: WebhookField = Field(None, description="An address to tell what becomes of the task, as in submit")


@router.get("", summary="The gallery")
def list_outputs(
    services: ServicesDep,
    selected: SelectionDep,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most videos in the answer")] = MAX_LIMIT,
    offset: Annotated[int, Query(ge=0, le=2**31, description="How many of them to skip")] = 0,
) -> VideoList:
    """List the finished videos that fit the filters, newest first; the totals count all that fit."""
    count, size = services.gallery.totals(selected.which)
    page = services.gallery.page(selected.which, selected.sort, limit=limit, offset=offset)
    videos = [video_metadata(item, services) for item in page]
    return VideoList(videos=videos, total_count=count, total_size_mb=round(size / MIB, 3))


@router.get("/{output_id}", summary="One video")
def one_output(output_id: OutputId, services: ServicesDep, trash: TrashQuery = False) -> VideoMetadata:
    """Show a finished video with every value that made it."""
    found = services.gallery.of([output_id])
    if not found or (found[0].trashed_at is not None and not trash):
        raise OutputNotFound
    return video_metadata(found[0], services, in_full=True)


@router.delete("/{output_id}", summary="Delete a video")
def delete_output(
    output_id: OutputId,
    services: ServicesDep,
    permanent: Annotated[bool, Query(description="Delete it for good, also from the trash")] = False,
) -> Message:
    """Move the video into the trash, from where it can be restored for some days.

    It is deleted for good, with everything that was kept for it, when these days are over, with `permanent`, and where
    the server keeps no trash.
    """
    services.deletion.delete(output_id, permanent=permanent)
    return Message(message="Video deleted successfully")


@router.post("/{output_id}/restore", summary="Take a video out of the trash")
def restore_output(output_id: OutputId, services: ServicesDep) -> VideoMetadata:
    """Put a deleted video back into the gallery; one that is there already stays."""
    services.marks.restore([output_id])
    found = services.gallery.of([output_id])
    if not found:
        raise OutputNotFound
    return video_metadata(found[0], services)


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
def play(output_id: OutputId, services: ServicesDep, trash: TrashQuery = False) -> Response:
    """Send the video for a player, whole or in the parts it asks for."""
    output = services.outputs.get(output_id, trashed=trash)
    return MediaFile(services.outputs.video_path(output_id, trashed=trash), "video/mp4", etag=output.sha256)


@router.get("/{output_id}/download", summary="Download a video", response_class=Response, responses=_VIDEO)
def download(
    output_id: OutputId,
    services: ServicesDep,
    metadata: Annotated[
        bool, Query(description="Whether the file keeps the record of how it was made; without it, it comes whole")
    ] = True,
) -> Response:
    """Send the video as a file to keep.

    With `metadata=false` it is packed again without its tags: the same frames, not encoded anew, and no prompt.
    """
    output = services.outputs.get(output_id)
    path, name = services.outputs.video_path(output_id), f"wan22_video_{output_id}.mp4"
    if metadata:
        return MediaFile(path, "video/mp4", etag=output.sha256, download_as=name)
    from backend.services.media.untagged import untagged  # loads FFmpeg only when needed

    size, content = untagged(path)
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Content-Length": str(size),
        "Cache-Control": "private, no-cache",
    }
    return StreamingResponse(content, media_type="video/mp4", headers=headers)


@router.get("/{output_id}/thumbnail", summary="A video's still picture", response_class=Response, responses=_PICTURE)
def thumbnail(output_id: OutputId, services: ServicesDep, trash: TrashQuery = False) -> Response:
    """Send the still picture of a video."""
    return MediaFile(services.outputs.thumbnail_path(output_id, trashed=trash), "image/jpeg")


@thumbnails.get(
    "/thumbnails/{filename}",
    summary="A still picture by its file name",
    response_class=Response,
    responses=_PICTURE,
)
def thumbnail_file(
    filename: Annotated[str, Path(description="Last part of a video's `thumbnail_path`")],
    services: ServicesDep,
    trash: TrashQuery = False,
) -> Response:
    """Send the still picture that `thumbnail_path` of a video names."""
    match = _THUMBNAIL_NAME.match(filename)
    if match is None:
        raise OutputFileMissing("Thumbnail not found")
    return MediaFile(services.outputs.thumbnail_path(match[1], trashed=trash), "image/jpeg")
