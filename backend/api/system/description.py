"""The description of the API (OpenAPI) with the refusals that no single route knows: of the gate, the body, the store.

A route documents what only it answers; what follows from the form of an operation is added here, so that none is
forgotten. Under `/v1` errors have the shape of OpenAI's API, and what does not fit a request is 400, not 422.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from pydantic import BaseModel, Field

from backend.api.http.shapes import ErrorBody

_OPENAI: Final = "/v1/"
_SCHEMAS: Final = "#/components/schemas/"
_MEANINGS: Final = {
    400: "The request cannot be read",
    401: "The API key is missing or wrong",
    403: "The key has not the scope that this needs, or the page or the host is a foreign one",
    404: "There is no such thing, or it belongs to another key",
    409: "The state does not allow it, or the idempotency key belongs to another request",
    410: "The task's request is damaged",
    413: "The body is too large",
    415: "The body is compressed",
    422: "The request does not fit; nothing was done",
    429: "The key has sent too many requests, or has used up its quota",
    502: "What the model hub offers cannot be used",
    503: "The database or the model hub cannot be reached now",
    507: "The disk is full",
}


class OpenAIProblem(BaseModel):
    """What is wrong, as client libraries of OpenAI read it."""

    message: str
    type: str
    param: str | None = Field(description="The field that it is about, in the client's own spelling")
    code: str = Field(description="Stable machine-readable code")


class OpenAIErrorBody(BaseModel):
    """Every error answer under `/v1`."""

    error: OpenAIProblem


def complete_description(app: FastAPI) -> None:
    """Let the app describe, for each of its operations, every refusal that it can answer."""
    own = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(own())
        return own()

    app.openapi = described  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    components = document["components"]
    schemas, shared = components["schemas"], components.setdefault("responses", {})
    for shape in (ErrorBody, OpenAIProblem, OpenAIErrorBody):
        schema = shape.model_json_schema(ref_template=_SCHEMAS + "{model}")
        schema.pop("$defs", None)
        schemas.setdefault(shape.__name__, schema)
    for path, operations in document["paths"].items():
        of_openai = path.startswith(_OPENAI)
        for method, operation in operations.items():
            answers = operation["responses"]
            if of_openai:
                answers.pop("422", None)
                _reshape(answers)
            for status in _refusals(path, method, operation, of_openai=of_openai):
                name = f"{'OpenAI' if of_openai else ''}Refusal{status}"
                shared.setdefault(name, _answer(status, OpenAIErrorBody if of_openai else ErrorBody))
                answers.setdefault(str(status), {"$ref": f"#/components/responses/{name}"})
            operation["responses"] = dict(sorted(answers.items()))


def _refusals(path: str, method: str, operation: dict[str, Any], *, of_openai: bool) -> Iterator[int]:
    """Yield the statuses that follow from the form of an operation."""
    yield from (401, 403, 429, 503)
    if of_openai or "requestBody" in operation:
        yield 400
    if "requestBody" in operation:
        yield from (413, 415)
    if "{" in path or "requestBody" in operation or of_openai:  # bodies and cursors name images and videos
        yield 404
    if "{task_id}" in path or "{video_id}" in path:
        yield 410
    if method != "get":
        yield from (409, 507)


def _answer(status: int, shape: type[BaseModel]) -> dict[str, Any]:
    schema = {"$ref": _SCHEMAS + shape.__name__}
    return {"description": _MEANINGS[status], "content": {"application/json": {"schema": schema}}}


def _reshape(answers: dict[str, Any]) -> None:
    """Give the refusals that a route documents itself the shape of OpenAI's API."""
    for status, answer in answers.items():
        if int(status) >= 400 and "content" in answer:
            answer["content"] = _answer(400, OpenAIErrorBody)["content"]
