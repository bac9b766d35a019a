"""How a generation request is read from the wire: JSON or a form, checked for shape before anything else sees it.

Accepts the spellings of older clients (camelCase, numbers as text) and nothing that could be misread:
no NaN, no repeated keys, no object where a file belongs. Keeps no image bytes, only that one was sent.
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

from backend.api.schemas import SubmitBody
from backend.core.errors import BodyTooLarge, InvalidRequest, MalformedBody
from backend.core.frame_size import parse_resolution
from backend.core.requests import RequestDraft

MAX_IMAGE_BYTES = 10 * 1024**2
MAX_FORM_FIELDS = 64
MAX_FORM_FILES = 4
MAX_FIELD_BYTES = 64 * 1024
IMAGE_FIELDS = ("image", "end_image")
_KEY = re.compile(r"^[\x21-\x7e]{1,200}$")


@dataclass(frozen=True)
class Submission:
    """A request whose shape is right; whether the model can do it is another question."""

    body: SubmitBody
    images: frozenset[str]  #: names of the image fields that carried a file
    idempotency_key: str | None

    def draft(self) -> RequestDraft:
        """Return the wishes in the domain's words.

        Raises:
            InvalidRequest: the resolution is not WIDTHxHEIGHT.
        """
        body = self.body
        width, height = (None, None) if body.resolution is None else parse_resolution(body.resolution)
        return RequestDraft(
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
        )


async def read_submission(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(description="Repeating the key with the same request returns the first task instead of a second one"),
    ] = None,
) -> Submission:
    """Read the body of a generation request.

    Raises:
        MalformedBody: it is neither JSON nor a form, or cannot be parsed.
        RequestValidationError: a field is missing, unknown or of the wrong type.
        InvalidRequest: an image or a key is not one.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        limits = {"max_files": MAX_FORM_FILES, "max_fields": MAX_FORM_FIELDS, "max_part_size": MAX_FIELD_BYTES}
        async with request.form(**limits) as form:
            values, images = _from_form(form)
    elif kind == "application/json" or kind.endswith("+json"):
        values, images = _from_json(await request.body())
    else:
        raise MalformedBody("The body must be JSON (application/json) or a form (multipart/form-data)")
    try:
        body = SubmitBody.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError([fault | {"loc": ("body", *fault["loc"])} for fault in faults]) from None
    return Submission(body, images, _one_key(idempotency_key, body.client_request_id))


def _from_json(raw: bytes) -> tuple[dict[str, Any], frozenset[str]]:
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
                suggestions=("Send the request as multipart/form-data, or without the image.",),
                details={"field": field},
            )
    return values, frozenset()


def _from_form(form: FormData) -> tuple[dict[str, Any], frozenset[str]]:
    values: dict[str, Any] = {}
    images: set[str] = set()
    for name, value in form.multi_items():
        if name in values or name in images:
            raise MalformedBody("A field of the form was sent twice")
        if isinstance(value, UploadFile):
            if name not in IMAGE_FIELDS:
                raise InvalidRequest("Only `image` and `end_image` may be files")
            if (value.size or 0) > MAX_IMAGE_BYTES:
                raise BodyTooLarge("Image file too large. Maximum size is 10MB")
            if value.size:  # browsers send an empty file for an empty input
                images.add(name)
        elif name in IMAGE_FIELDS:
            if value.strip():
                raise InvalidRequest(f"{name} must be a file", details={"field": name})
        else:
            values[name] = value
    return values, frozenset(images)


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


def request_body_docs() -> dict[str, Any]:
    """Return the OpenAPI description of the body, for a route that reads it by `read_submission`."""
    schema = SubmitBody.model_json_schema()
    definitions = schema.pop("$defs", {})
    fields = {name: _inlined(field, definitions) for name, field in schema["properties"].items()}
    json_schema = schema | {"properties": fields}
    binary = {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP; only for models that take one"}
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
