"""Reads the bodies of requests for videos: JSON, or a form whose files are images or a video.

Reads bytes on the event loop; what they mean is found out in the thread of the handler.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Any, BinaryIO, Final

from fastapi import Depends, Header, Request
from starlette.datastructures import UploadFile
from starlette.types import Scope

from backend.api.http.errors import SPELLINGS_KEY
from backend.api.http.repeats import KeyHeader
from backend.api.openai.spellings import Translated, gathered, translate
from backend.api.tasks.body import MAX_FORM_FILES, BodyT, checked_body
from backend.core.errors.requests import INVALID_JSON, InvalidImage, InvalidRequest, MalformedBody
from backend.core.files import parse_json
from backend.services.media.images import IMAGE_TOO_LARGE, MAX_IMAGE_BYTES

MAX_FORM_FIELDS: Final = 128
#: An image of the largest size as a `data:` URL, and a little more around it.
MAX_FIELD_BYTES: Final = MAX_IMAGE_BYTES * 4 // 3 + 64 * 1024
#: The one field whose file is a video.
VIDEO_FIELD: Final = "video"
_CHUNK: Final = 1024 * 1024

RetryCount = Annotated[
    str | None,
    Header(
        alias="X-Stainless-Retry-Count",
        description="Sent by OpenAI's client libraries: how often the call was repeated because no answer came. From 1 "
        "on, an equal call of the last ten minutes is answered again instead of made a second time",
    ),
]


@dataclass(slots=True)
class Sent:
    """A body as it arrived."""

    scope: Scope
    json: bytes | None  #: of a JSON body
    pairs: list[tuple[str, str]] = field(default_factory=list)  #: the fields of a form
    files: dict[str, bytes] = field(default_factory=dict)  #: its images, by field
    video: str | None = None  #: SHA-256 of its video
    key: str | None = None  #: idempotency key
    repeated: bool = False  #: whether the client library sends it again

    def values(self) -> dict[str, Any]:
        """Return the fields.

        Raises:
            MalformedBody: the body is not a JSON object.
            InvalidRequest: the fields of the form contradict each other.
        """
        if self.json is None:
            return gathered(self.pairs)
        try:
            values = parse_json(self.json)
        except ValueError:
            raise MalformedBody(INVALID_JSON) from None
        if not isinstance(values, dict):
            raise MalformedBody("The body must be a JSON object")
        return values

    def body(self, shape: type[BodyT], values: dict[str, Any]) -> BodyT:
        """Return the fields as a body of our own API. Raises like `translate` and `checked_body`."""
        into = Translated()
        self.scope[SPELLINGS_KEY] = into.spelled  # errors name fields as the client does
        translate(values, self.files, into)
        return checked_body(shape, into.values, into.images, self.key)


async def read_sent(request: Request, idempotency_key: KeyHeader = None, retries: RetryCount = None) -> Sent:
    """Read a body.

    Raises:
        MalformedBody: it is neither JSON nor a form, or a field was sent twice.
        InvalidImage: a file is larger than an image may be.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    repeated = retries is not None and retries.isdecimal() and retries.strip("0") != ""
    if kind == "application/json" or kind.endswith("+json"):
        return Sent(request.scope, await request.body(), key=idempotency_key, repeated=repeated)
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise MalformedBody("The body must be JSON (application/json) or a form (multipart/form-data)")
    sent = Sent(request.scope, None, key=idempotency_key, repeated=repeated)
    limits = {"max_files": MAX_FORM_FILES, "max_fields": MAX_FORM_FIELDS, "max_part_size": MAX_FIELD_BYTES}
    async with request.form(**limits) as form:
        for name, value in form.multi_items():
            if not isinstance(value, UploadFile):
                sent.pairs.append((name, value))
            elif name in sent.files or (name == VIDEO_FIELD and sent.video is not None):
                raise MalformedBody("A file of the form was sent twice")
            elif name == VIDEO_FIELD:
                sent.video = await asyncio.to_thread(_digest, value.file)
            elif (value.size or 0) > MAX_IMAGE_BYTES:
                raise InvalidImage(IMAGE_TOO_LARGE, details={"field": name})
            elif value.size or value.filename:  # browsers send an unnamed empty file for an empty input
                sent.files[name] = await value.read()
    return sent


def _digest(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


SentDep = Annotated[Sent, Depends(read_sent)]


#: The fields that the schema of the API names; the others are in docs/openai.md.
_DOCUMENTED: Final[dict[str, dict[str, Any]]] = {
    "prompt": {"type": "string", "description": "What to show"},
    "input_reference": {
        "description": "The image that the video starts from: in a form a file, in JSON a data: URL or an object with "
        "`image_url` or `file_id`"
    },
    "model": {"type": "string", "description": "A model id, or `auto`, as when left out"},
    "seconds": {"type": ["string", "number"], "description": "Length of the video"},
    "size": {"type": "string", "description": "WIDTHxHEIGHT in pixels"},
    "seed": {"type": ["string", "integer"], "description": "Same seed and request, same frames"},
    "loras": {"type": ["string", "array"], "description": "LoRAs with `id` and `strength`; in a form as JSON text"},
    "webhook": {
        "type": ["string", "object"],
        "description": "Beyond OpenAI's API: an address that is told how the video ended, or `{url, events, secret}`",
    },
    "video": {
        "description": "The video to start from: an object with its `id`, in a form as JSON text or as the file that "
        "was downloaded from this server"
    },
}


def body_docs(*names: str) -> dict[str, Any]:
    """Return the description of a body with these fields, of which a prompt is needed."""
    schema = {
        "type": "object",
        "required": ["prompt"],
        "properties": {name: _DOCUMENTED[name] for name in names},
    }
    kinds = ("multipart/form-data", "application/json")
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema} for kind in kinds}}}


def video_of(sent: Sent, values: dict[str, Any]) -> str | None:
    """Take the reference to a video, `{"id": …}`, out of the fields; None where a file or nothing was sent.

    Raises:
        InvalidRequest: it is no such reference.
    """
    value = values.pop(VIDEO_FIELD, None)
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = parse_json(value)
        except ValueError:
            value = {}
    if isinstance(value, dict):
        value = value.get("id") if value.keys() == {"id"} else {}
    if value is not None and not isinstance(value, str):
        raise InvalidRequest('video must be a file or {"id": "…"}', details={"field": VIDEO_FIELD})
    if (value is None) == (sent.video is None):
        raise InvalidRequest('Send one video, as a file or as {"id": "…"}', details={"field": VIDEO_FIELD})
    return value
