"""Response shapes of OpenAI's API: a video, a model, and lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from backend.core.domain import Output, Task, TaskStatus

Status = Literal["queued", "in_progress", "completed", "failed"]
#: The state of a task -> that of a video. What is cancelled has failed, with an error that says so.
STATUSES: Final[Mapping[TaskStatus, Status]] = {
    TaskStatus.PENDING: "queued",
    TaskStatus.PAUSED: "queued",
    TaskStatus.PROCESSING: "in_progress",
    TaskStatus.COMPLETED: "completed",
    TaskStatus.FAILED: "failed",
    TaskStatus.CANCELLED: "failed",
}
#: Shortest, usual and longest pause between two questions about a video, in milliseconds.
_POLL_MS: Final = (500, 2_000, 10_000)
#: A question each time another twentieth of the rest is done.
_ASKED_PER_REST: Final = 20


class VideoError(BaseModel):
    """Why a video failed."""

    code: str = Field(description="Stable machine-readable code; `cancelled` where somebody stopped it")
    message: str


class Video(BaseModel):
    """A video, finished or not; its id is its task's id."""

    id: str
    object: Literal["video"] = "video"
    model: str = Field(description="The exact id of the model")
    status: Status
    progress: int = Field(description="Per cent")
    created_at: int = Field(description="Seconds since 1970")
    completed_at: int | None = Field(None, description="When it was completed; null before and for a failed one")
    expires_at: int | None = Field(None, description="Always null: videos are kept until somebody deletes them")
    error: VideoError | None = None
    prompt: str | None = None
    remixed_from_video_id: str | None = None
    seconds: str | None = Field(description="From the first frame to the last: 81 frames at 16 a second are 5")
    size: str | None = Field(description="WIDTHxHEIGHT in pixels")
    num_frames: int | None = Field(None, description="Beyond OpenAI's API")
    fps: float | None = Field(None, description="Beyond OpenAI's API: frames per second")
    seed: int | None = Field(None, description="Beyond OpenAI's API: the same seed and request give the same frames")
    adjustments: list[str] = Field([], description="Beyond OpenAI's API: what was changed to fit the model")
    mock: bool = Field(False, description="Beyond OpenAI's API: whether no model made it")


class VideoPage(BaseModel):
    """A page of videos; the next one begins `after` the `last_id` of this one."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedVideo(BaseModel):
    """A video that is gone."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class Model(BaseModel):
    """A model that requests can name."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="When its files came to this machine, in seconds since 1970; 0 while they are not")
    owned_by: str = Field(description="Where its files come from")


class ModelPage(BaseModel):
    """All models that requests can name."""

    object: Literal["list"] = "list"
    data: list[Model]


def shown_video(task: Task, differing: Output | None = None) -> Video:
    """Describe a task as a video; `differing` is its output where another model than the asked one made it, or none."""
    request = task.request
    frames, fps = request.get("num_frames"), request.get("fps")
    sides = request.get("width"), request.get("height")
    completed = task.status is TaskStatus.COMPLETED
    return Video(
        id=task.id,
        model=(differing and differing.model) or task.model,
        status=STATUSES[task.status],
        progress=100 if completed else min(99, int(task.progress * 100)),
        created_at=int(task.created_at.timestamp()),
        completed_at=int(task.completed_at.timestamp()) if completed and task.completed_at else None,
        expires_at=None,
        error=_error(task),
        prompt=task.prompt or None,
        remixed_from_video_id=request.get("remix_of"),
        seconds=None if not frames or not fps else f"{round((frames - 1) / fps, 3):g}",
        size=None if None in sides else f"{sides[0]}x{sides[1]}",
        num_frames=frames,
        fps=fps,
        seed=request.get("seed"),
        adjustments=list(task.adjustments),
        mock=differing is not None and differing.mock is not None,
    )


def _error(task: Task) -> VideoError | None:
    if task.status is TaskStatus.CANCELLED:
        return VideoError(code="cancelled", message="The video was cancelled")
    if task.status is not TaskStatus.FAILED:
        return None
    return VideoError(code=task.error_code or "internal_error", message=task.error_message or "The video failed")


def poll_headers(task: Task) -> dict[str, Any]:
    """Return the header that tells client libraries when to ask again; none for a video that has ended."""
    if STATUSES[task.status] in ("completed", "failed"):
        return {}
    shortest, usual, longest = _POLL_MS
    left = task.eta_seconds if task.status is TaskStatus.PROCESSING else None
    wait = usual if left is None else left * 1000 / _ASKED_PER_REST
    return {"OpenAI-Poll-After-Ms": str(round(min(longest, max(shortest, wait))))}
