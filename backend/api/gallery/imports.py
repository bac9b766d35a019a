"""Routes for files that users bring: what settings are in them, and clips for the gallery.

The settings come as the body of a submit, so that a client can fill its form with them, or send them again.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import Depends
from pydantic import BaseModel, Field, ValidationError

from backend.api.gallery.shapes import VideoMetadata, video_metadata
from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes
from backend.api.loras.bodies import LoraUpload, read_upload
from backend.api.tasks.body import SubmitBody
from backend.core.errors.lookups import OutputNotFound
from backend.services.foreign.gallery_import import MAX_CLIP_BYTES, ReadFile
from backend.services.foreign.settings import FoundSettings, Origin

router = Routes(prefix="/outputs", tags=["outputs"])

UploadDep = Annotated[LoraUpload, Depends(read_upload)]
_FORM: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": f"An MP4 (H.264, H.265, AV1, VP9), at most {MAX_CLIP_BYTES // 2**20} MiB",
                        }
                    },
                    "required": ["file"],
                }
            }
        },
    }
}


class MissingHere(BaseModel):
    """Something that the settings need and this server does not have."""

    field: str = Field(description="Field of the settings")
    id: str
    message: str


class FileSettings(BaseModel):
    """What a file says about how its clip was made. Anybody can write anything into a file: nothing of it is proven."""

    kind: Literal["clip", "picture"]
    origin: Origin = Field(description="Whose notes were found in the file")
    exact: bool = Field(description="Whether the settings make the same clip again, on such a machine")
    settings: dict[str, Any] | None = Field(
        None, description="Body for `POST /api/v1/generation/submit`; absent where the file says nothing"
    )
    missing: list[MissingHere] = Field([], description="What has to be sent or installed first")
    notes: list[str] = Field([], description="One sentence for each thing to know about it")
    video_id: str | None = Field(None, description="The video of the gallery that has the same content")
    task_id: str | None = Field(None, description="Id of the task that the record in the file names")
    version: str | None = Field(None, description="Version of wan22 that wrote the record")
    codec: str | None = None
    resolution: str | None = None
    num_frames: int | None = None
    fps: float | None = None


class ImportedClip(BaseModel):
    """A clip that is in the gallery now."""

    video: VideoMetadata
    new: bool = Field(description="False where a video with the same content was there already")
    found: FileSettings


@router.post("/inspect", summary="Read the settings in a file", openapi_extra=_FORM)
def inspect(sent: UploadDep, services: ServicesDep) -> FileSettings:
    """Say with which settings a clip was made, from the file itself; nothing is kept.

    Takes an MP4, or a PNG or JPEG such as our still pictures. Our own record comes back word for word; of ComfyUI,
    WanGP and others what has a counterpart here.
    """
    return _described(services.clips.read(sent.stream))


@router.create("/import", summary="Put a clip into the gallery", openapi_extra=_FORM)
def import_clip(sent: UploadDep, services: ServicesDep) -> ImportedClip:
    """Check an MP4 that was made elsewhere, decode it once in a process without rights, and list it in the gallery.

    The file stays as it is, under a new name, and belongs to the key that sent it. `imported` in the gallery tells
    such clips from others. A clip whose content is in the gallery already is not stored again.
    """
    video_id, held = services.clips.add(sent.stream)
    found = services.gallery.of([video_id])
    if not found:
        raise OutputNotFound
    video = video_metadata(found[0], services, in_full=True)
    return ImportedClip(video=video, new=held.video_id is None, found=_described(held))


def _described(held: ReadFile) -> FileSettings:
    about, found, clip = held.about, held.found, held.about.kind == "clip"
    record = found.record or {}
    settings = _usable(found)
    return FileSettings(
        kind=about.kind,
        origin=found.origin,
        exact=found.exact and not held.missing,
        settings=settings,
        missing=[MissingHere(field=one.field, id=one.id, message=one.message) for one in held.missing],
        notes=found.notes,
        video_id=held.video_id,
        task_id=_text(record.get("task_id")),
        version=_text(record.get("version")),
        codec=about.codec if clip else None,
        resolution=f"{about.width}x{about.height}" if clip else None,
        num_frames=about.frames if clip else None,
        fps=about.fps if clip else None,
    )


def _usable(found: FoundSettings) -> dict[str, Any] | None:
    """Return the settings without what a submit would not understand; a note names it."""
    if found.body is None:
        return None
    settings = {name: value for name, value in found.body.items() if value is not None}
    try:
        SubmitBody.model_validate(settings)
    except ValidationError as error:
        for name in {str(fault["loc"][0]) for fault in error.errors(include_url=False, include_input=False)}:
            settings.pop(name, None)
            found.notes.append(f"{name} was left out: its value in the file cannot be used")
        settings.setdefault("prompt", "")
    return settings


def _text(value: object) -> str | None:
    return value[:64] if isinstance(value, str) else None
