"""Reads the bodies of the LoRA routes: a file in a form, and a prompt in JSON or a form.

Accepts what older clients send and refuses the rest with a clear message.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from fastapi import Request
from starlette.datastructures import UploadFile

from backend.core.errors.requests import INVALID_JSON, InvalidRequest, MalformedBody
from backend.core.requests.prompts import MAX_PROMPT_CHARS

_MAX_FIELD_BYTES = 64 * 1024
_PROMPT_FIELDS = ("prompt", "base_prompt")


@dataclass(frozen=True, slots=True)
class LoraUpload:
    """An uploaded file; it is closed when the request ends."""

    stream: BinaryIO
    filename: str
    name: str | None  #: the requested name


async def read_upload(request: Request) -> AsyncIterator[LoraUpload]:
    """Read the form of an upload: the file in `file`, and optionally a new `name`.

    Raises:
        InvalidRequest: there is no file in it, or several.
        MalformedBody: it is no form.
    """
    if _kind(request) != "multipart/form-data":
        # Some HTTP clients turn a file in a form into `{}` when they send JSON.
        raise InvalidRequest(
            "The file must be sent in a form (multipart/form-data), in the field `file`",
            suggestions=("Send it as multipart/form-data.",),
            details={"field": "file"},
        )
    async with request.form(max_files=1, max_fields=8, max_part_size=_MAX_FIELD_BYTES) as form:
        file, name = form.get("file"), form.get("name")
        if not isinstance(file, UploadFile) or not file.filename:
            raise InvalidRequest("`file` must be a file", details={"field": "file"})
        if isinstance(name, UploadFile):
            raise InvalidRequest("`name` must be a text", details={"field": "name"})
        yield LoraUpload(file.file, file.filename, name)


async def read_prompt(request: Request) -> str:
    """Read a prompt, from `prompt` or `base_prompt`.

    Raises:
        InvalidRequest: there is none, or it is too long.
        MalformedBody: the body is neither JSON nor a form.
    """
    kind = _kind(request)
    values: dict[str, Any]
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        async with request.form(max_files=0, max_fields=8, max_part_size=_MAX_FIELD_BYTES) as form:
            values = dict(form)
    elif kind == "application/json":
        values = _object(await request.body())
    else:
        raise MalformedBody("The body must be JSON (application/json) or a form (multipart/form-data)")
    prompt = next((values[field] for field in _PROMPT_FIELDS if field in values), "")
    if not isinstance(prompt, str) or not prompt.strip():
        raise InvalidRequest("Prompt cannot be empty", details={"field": "prompt"})
    if len(prompt) > MAX_PROMPT_CHARS:
        raise InvalidRequest(f"prompt may have at most {MAX_PROMPT_CHARS} characters", details={"field": "prompt"})
    if any(0xD800 <= ord(c) <= 0xDFFF for c in prompt):
        raise InvalidRequest("prompt contains half a character", details={"field": "prompt"})
    return prompt.strip()


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _object(raw: bytes) -> dict[str, Any]:
    try:
        values = json.loads(raw)
    except (ValueError, RecursionError):
        raise MalformedBody(INVALID_JSON) from None
    if not isinstance(values, dict):
        raise MalformedBody("The body must be a JSON object")
    return values


def _form_docs(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"schema": {"type": "object", "properties": properties, "required": required}}


_PROMPT_SCHEMA: Final = {"type": "string", "maxLength": MAX_PROMPT_CHARS, "description": "The prompt"}
UPLOAD_DOCS: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": _form_docs(
                {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "A .safetensors file, at most 500 MiB",
                    },
                    "name": {"type": "string", "maxLength": 100, "description": "The name to keep it under"},
                },
                ["file"],
            )
        },
    }
}
PROMPT_DOCS: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": _form_docs({"prompt": _PROMPT_SCHEMA}, ["prompt"]),
            "multipart/form-data": _form_docs({"base_prompt": _PROMPT_SCHEMA}, ["base_prompt"]),
        },
    }
}
