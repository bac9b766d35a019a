"""How a generation request is read from the wire: JSON or a form, checked for shape before anything else sees it.

Accepts the spellings of older clients (camelCase, numbers as text) and nothing that could be misread:
no NaN, no repeated keys, no object where a file belongs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from backend.api.request_schemas import ExtendBody, SubmitBody
from backend.core.errors import BodyTooLarge, InvalidRequest, LoraNotFound, MalformedBody
from backend.core.frame_size import parse_resolution
from backend.core.requests import ImageRef, RequestDraft
from backend.services.generation_service import LoraWish, Wish
from backend.services.media.images import MAX_IMAGE_BYTES, InputStore

MAX_FORM_FIELDS = 64
MAX_FORM_FILES = 4
MAX_FIELD_BYTES = 64 * 1024
IMAGE_FIELDS = ("image", "end_image")
_KEY = re.compile(r"^[\x21-\x7e]{1,200}$")


_LORA_FILE = re.compile(r"^(?:loras/)?([^/\\]+?)(?:\.safetensors)?$")


@dataclass(frozen=True)
class Submission:
    """A request whose shape is right; whether the model can do it is another question."""

    body: SubmitBody
    images: dict[str, bytes]  #: the files that came with it, by field
    idempotency_key: str | None

    def wish(self, inputs: InputStore) -> Wish:
        """Return what is asked for in the domain's words; images are stored on the way.

        Raises:
            InvalidRequest: the resolution is not WIDTHxHEIGHT, or an image came twice.
            InvalidImage: a file is no image that can be used.
            InputMissing: an image is named that is not here.
        """
        body = self.body
        width, height = (None, None) if body.resolution is None else parse_resolution(body.resolution)
        draft = RequestDraft(
            prompt=body.prompt,
            negative_prompt=body.negative_prompt,
            width=width,
            height=height,
            num_frames=body.num_frames,
            fps=body.fps,
            steps=body.steps,
            guidance_scale=body.guidance_scale,
            guidance_scale_2=body.guidance_scale_2,
            flow_shift=body.flow_shift,
            scheduler=body.scheduler,
            seed=body.seed,
            max_sequence_length=body.max_sequence_length,
            image=self._image("image", body.image_id, inputs),
            end_image=self._image("end_image", body.end_image_id, inputs),
            image_fit=body.image_fit,
            on_lora_failure=body.on_lora_failure,
            guidance_start=body.guidance_start,
            guidance_end=body.guidance_end,
            crf=body.crf,
            keep_latents=body.keep_latents,
        )
        return Wish(
            model=body.model_type,
            draft=draft,
            loras=self._loras(),
            preset=body.preset,
            variations=body.variations,
            priority=body.priority,
            idempotency_key=self.idempotency_key,
        )

    def _image(self, field: str, image_id: str | None, inputs: InputStore) -> ImageRef | None:
        raw = self.images.get(field)
        if raw is not None and image_id is not None:
            raise InvalidRequest(f"Send {field} or {field}_id, not both", details={"field": field})
        if raw is not None:
            return inputs.store(raw, field)
        return None if image_id is None else inputs.find(image_id)

    def _loras(self) -> tuple[LoraWish, ...]:
        body = self.body
        wishes = [LoraWish(one.id, one.strength, one.strength_2, one.expert) for one in body.loras]
        if body.lora_path.strip():
            # Older clients send the `path` of the list; it names a LoRA and is never opened as a path.
            named = _LORA_FILE.match(body.lora_path.strip())
            if named is None:
                raise LoraNotFound("There is no LoRA with this name", details={"field": "lora_path"})
            wishes.append(LoraWish(named[1], body.lora_strength))
        return tuple(wishes)


KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Repeating the key with the same request returns the first task instead of a second one",
    ),
]


async def read_submission(request: Request, idempotency_key: KeyHeader = None) -> Submission:
    """Read the body of a generation request.

    Raises:
        MalformedBody: it is neither JSON nor a form, or cannot be parsed.
        RequestValidationError: a field is missing, unknown or of the wrong type.
        InvalidRequest: an image or a key is not one.
    """
    return await _read(request, SubmitBody, idempotency_key)


async def read_extension(request: Request, idempotency_key: KeyHeader = None) -> Submission:
    """Read the body of a request to go on from a video. Raises like `read_submission`."""
    return await _read(request, ExtendBody, idempotency_key)


async def _read(request: Request, shape: type[SubmitBody], idempotency_key: str | None) -> Submission:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    images: dict[str, bytes] = {}
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        limits = {"max_files": MAX_FORM_FILES, "max_fields": MAX_FORM_FIELDS, "max_part_size": MAX_FIELD_BYTES}
        async with request.form(**limits) as form:
            values, images = await _from_form(form)
    elif kind == "application/json" or kind.endswith("+json"):
        values = _from_json(await request.body())
    else:
        raise MalformedBody("The body must be JSON (application/json) or a form (multipart/form-data)")
    try:
        body = shape.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([fault | {"loc": ("body", *fault["loc"])} for fault in faults]) from None
    return Submission(body, images, _one_key(idempotency_key, body.client_request_id))


def _from_json(raw: bytes) -> dict[str, Any]:
    try:
        values = json.loads(raw, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeats)
    except (ValueError, RecursionError):  # also: not UTF-8, a number of 5,000 digits, 100,000 brackets
        raise MalformedBody("The body is not valid JSON") from None
    if not isinstance(values, dict):
        raise MalformedBody("The body must be a JSON object")
    for field in IMAGE_FIELDS:
        # Some HTTP clients turn a file in a form into `{}` when they send JSON.
        if values.pop(field, None) not in (None, ""):
            raise InvalidRequest(
                f"{field} must be a file in a form (multipart/form-data); in JSON it cannot be read",
                suggestions=(
                    "Send the request as multipart/form-data, or the image to POST /api/v1/inputs and then its id as "
                    f"{field}_id.",
                ),
                details={"field": field},
            )
    return values


async def _from_form(form: FormData) -> tuple[dict[str, Any], dict[str, bytes]]:
    values: dict[str, Any] = {}
    images: dict[str, bytes] = {}
    for name, value in form.multi_items():
        if name in values or name in images:
            raise MalformedBody("A field of the form was sent twice")
        if isinstance(value, UploadFile):
            if name not in IMAGE_FIELDS:
                raise InvalidRequest("Only `image` and `end_image` may be files")
            if (value.size or 0) > MAX_IMAGE_BYTES:
                raise BodyTooLarge("Image file too large. Maximum size is 10MB")
            if value.size:  # browsers send an empty file for an empty input
                images[name] = await value.read()
        elif name in IMAGE_FIELDS:
            if value.strip():
                raise InvalidRequest(f"{name} must be a file", details={"field": name})
        else:
            values[name] = value
    return values, images


def _refuse_constant(_: str) -> object:
    raise ValueError("not JSON")


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("repeated key")
    return values


def _one_key(header: str | None, field: str | None) -> str | None:
    if header is not None and field is not None and header != field:
        raise InvalidRequest("The header Idempotency-Key and the field client_request_id differ")
    key = header if header is not None else field
    if key is not None and not _KEY.match(key):
        raise InvalidRequest("An idempotency key has 1 to 200 visible ASCII characters")
    return key


def request_body_docs(shape: type[SubmitBody] = SubmitBody) -> dict[str, Any]:
    """Return the OpenAPI description of a body that is read by `read_submission` or `read_extension`."""
    schema = shape.model_json_schema()
    definitions = schema.pop("$defs", {})
    fields = {name: _inlined(field, definitions) for name, field in schema["properties"].items()}
    json_schema = schema | {"properties": fields}
    binary = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, BMP or TIFF"}
    form_schema = json_schema | {"properties": fields | dict.fromkeys(IMAGE_FIELDS, binary)}
    content = {"application/json": {"schema": json_schema}, "multipart/form-data": {"schema": form_schema}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return definitions[node["$ref"].rpartition("/")[2]] | rest
        return {key: _inlined(value, definitions) for key, value in node.items()}
    return [_inlined(item, definitions) for item in node] if isinstance(node, list) else node
