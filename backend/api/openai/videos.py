"""Videos as OpenAI's client libraries make, follow, list, fetch and delete them.

Translates to the same services as our own API; docs/openai.md says where the two differ.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Path, Query
from fastapi import Response as Answer
from fastapi.responses import Response

from backend.api.http.deps import ServicesDep
from backend.api.http.media import MediaFile
from backend.api.http.routing import Routes
from backend.api.openai.body import Sent, SentDep, body_docs, video_of
from backend.api.openai.shapes import DeletedVideo, Video, VideoPage, poll_headers, shown_video
from backend.api.tasks.body import ExtendBody, SubmitBody
from backend.api.tasks.webhook import choice_of
from backend.core.domain import TERMINAL, Task, TaskStatus
from backend.core.errors.lookups import (
    OutputNotFound,
    StateConflict,
    TaskNotFound,
    VideoBeingCancelled,
    VideoNotFound,
    VideoNotReady,
)
from backend.core.errors.requests import NotOffered
from backend.services.media.spritesheet import spritesheet
from backend.services.submission import Submission
from backend.services.system.container import Services

router = Routes(prefix="/v1/videos", tags=["openai"])
#: Clients of OpenAI's API read the nulls of a video.
_NULLS: Final[dict[str, Any]] = {"response_model_exclude_none": False}

_FILES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"video/mp4": {}, "image/jpeg": {}}, "description": "The whole file"},
    206: {"content": {"video/mp4": {}}, "description": "The part asked for with `Range`"},
}
DEFAULT_LIMIT = 20
MAX_LIMIT = 100


class Variant(StrEnum):
    """What is fetched of a video."""

    VIDEO = "video"
    THUMBNAIL = "thumbnail"
    SPRITESHEET = "spritesheet"


async def video_in_path(video_id: Annotated[str, Path(description="Id of the video", max_length=200)]) -> str:
    """Return the id in a path; whether there is such a video is for the handler to find out."""
    return video_id


VideoId = Annotated[str, Depends(video_in_path)]


@router.post(
    "",
    summary="Make a video, as OpenAI's clients ask for it",
    openapi_extra=body_docs("prompt", "input_reference", "model", "seconds", "size", "seed", "loras", "webhook"),
    **_NULLS,
)
def create(sent: SentDep, services: ServicesDep, answer: Answer) -> Video:
    """Check the request by the rules of its model and queue it; the task is on disk when this answers.

    Takes a form or JSON. Fields of SGLang, vLLM-Omni and LightX2V are understood as well; one that is not understood is
    refused by name.
    """
    body = sent.body(SubmitBody, sent.values())
    return _queued(services.generation.submit(body.draft(services.inputs), repeated=sent.repeated), answer)


@router.get("", summary="The videos, as OpenAI lists them", **_NULLS)
def list_videos(
    services: ServicesDep,
    after: Annotated[str | None, Query(max_length=200, description="Id of the last video of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most videos in the answer")] = DEFAULT_LIMIT,
    order: Annotated[Literal["asc", "desc"], Query(description="Oldest or newest first")] = "desc",
) -> VideoPage:
    """List the videos in every state, a page at a time."""
    found = services.tasks.videos(limit + 1, after=after or None, oldest_first=order == "asc")
    videos = _shown(found[:limit], services)
    ids = [video.id for video in videos]
    return VideoPage(
        data=videos, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=len(found) > limit
    )


@router.post(
    "/extensions",
    summary="Go on from a video, as OpenAI's clients ask for it",
    openapi_extra=body_docs("prompt", "seconds", "video", "webhook"),
    **_NULLS,
)
def extend(sent: SentDep, services: ServicesDep, answer: Answer) -> Video:
    """Queue a clip that starts from the last frame of a video of this server; what is left out is as in that video."""
    values = sent.values()
    source = _source(sent, values, services)
    body = sent.body(ExtendBody, values)
    draft = replace(body.draft(services.inputs), extends=source)
    return _queued(services.generation.submit(draft, repeated=sent.repeated), answer)


@router.post(
    "/edits",
    summary="Edit a video, as OpenAI's clients ask for it",
    openapi_extra=body_docs("prompt", "video", "webhook"),
    **_NULLS,
)
def edit(sent: SentDep, services: ServicesDep, answer: Answer) -> Video:
    """Make a video of this server again with another prompt and the same seed: the same as a remix."""
    values = sent.values()
    return _remixed(_source(sent, values, services), sent, values, services, answer)


@router.post("/characters", summary="Characters, which are not offered")
def create_character() -> Response:
    """Refuse: Wan2.2 keeps no characters from one video to the next."""
    raise NotOffered(
        "Characters are not offered: Wan2.2 keeps none from one video to the next",
        suggestions=("Start each video from an image of the character, with `input_reference`.",),
    )


@router.get("/{video_id}", summary="One video, as OpenAI shows it", **_NULLS)
def retrieve(video_id: VideoId, services: ServicesDep, answer: Answer) -> Video:
    """Show a video. One that failed is an answer like any other, with `status` and `error`."""
    task = services.tasks.video(video_id)
    answer.headers.update(poll_headers(task))
    return _shown([task], services)[0]


@router.delete("/{video_id}", summary="Delete a video, as OpenAI's clients ask for it")
def delete(video_id: VideoId, services: ServicesDep) -> DeletedVideo:
    """Delete a video with everything that was kept for it. One that waits is cancelled first.

    One that is being made is cancelled, too, and the answer is 409 until its worker has stopped, within one step:
    client libraries repeat the call by themselves.
    """
    task = services.tasks.video(video_id)
    if task.status not in TERMINAL:
        with suppress(StateConflict):  # it has ended by itself meanwhile
            services.tasks.request_cancel(video_id)
        task = services.tasks.video(video_id)
    if task.status not in TERMINAL:
        raise VideoBeingCancelled
    with suppress(OutputNotFound):
        services.deletion.delete(video_id, permanent=True)
    with suppress(TaskNotFound):
        services.generation.delete(video_id)
    return DeletedVideo(id=video_id)


@router.get("/{video_id}/content", summary="The file of a video", response_class=Response, responses=_FILES)
def content(
    video_id: VideoId,
    services: ServicesDep,
    variant: Annotated[Variant, Query(description="The video, its still picture, or its frames in one picture")] = (
        Variant.VIDEO
    ),
) -> Response:
    """Send the video as MP4, whole or in the parts that are asked for, or a picture of it as JPEG."""
    task = services.tasks.video(video_id)
    if task.status is not TaskStatus.COMPLETED:
        ended = "The video failed, so there is no file" if task.status in TERMINAL else "The video is not finished yet"
        raise VideoNotReady(ended, details={"field": "video_id"})
    output, path = services.outputs.get(video_id), services.outputs.video_path(video_id)
    if variant is Variant.THUMBNAIL:
        return MediaFile(services.outputs.thumbnail_path(video_id), "image/jpeg")
    if variant is Variant.SPRITESHEET:
        return MediaFile(spritesheet(path, output.num_frames, services.home.spritesheet_of(video_id)), "image/jpeg")
    return MediaFile(path, "video/mp4", etag=output.sha256, download_as=f"{video_id}.mp4")


@router.post(
    "/{video_id}/remix",
    summary="Make a video again with another prompt",
    openapi_extra=body_docs("prompt", "webhook"),
    **_NULLS,
)
def remix(video_id: VideoId, sent: SentDep, services: ServicesDep, answer: Answer) -> Video:
    """Queue the request of a finished video with another prompt; everything else is the same, also the seed."""
    return _remixed(video_id, sent, sent.values(), services, answer)


def _remixed(video_id: str, sent: Sent, values: dict[str, Any], services: Services, answer: Answer) -> Video:
    body = sent.body(SubmitBody, values)
    others = sorted(body.model_fields_set - {"prompt", "client_request_id", "webhook"})
    if others:
        raise NotOffered("A remix changes the prompt alone", details={"field": others[0]})
    webhook, key = choice_of(body.webhook), body.client_request_id
    queued = services.generation.remix(video_id, body.prompt, webhook, repeated=sent.repeated, key=key)
    return _queued(queued, answer)


def _source(sent: Sent, values: dict[str, Any], services: Services) -> str:
    """Return the id of the finished video that a request builds on.

    Raises:
        VideoNotFound: there is none with this id.
        VideoNotReady: it is not finished.
        NotOffered: a file was sent that is no video of this server.
    """
    named = video_of(sent, values)
    if named is None:
        output = services.outputs.with_content(sent.video or "")
        if output is None:
            raise NotOffered(
                "This file is not a video of this server, as it was downloaded from it",
                suggestions=('Name a video of this server: {"id": "…"}.',),
                details={"field": "video"},
            )
        return output.task_id
    try:
        task = services.tasks.video(named)
    except VideoNotFound:
        raise VideoNotFound(details={"field": "video"}) from None
    if task.status is not TaskStatus.COMPLETED:
        raise VideoNotReady(details={"field": "video"})
    return named


def _queued(queued: Submission, answer: Answer) -> Video:
    answer.headers.update(poll_headers(queued.task))
    return shown_video(queued.task)


def _shown(tasks: list[Task], services: Services) -> list[Video]:
    differing = services.outputs.not_as_asked([task.id for task in tasks if task.status is TaskStatus.COMPLETED])
    return [shown_video(task, differing.get(task.id)) for task in tasks]
