"""Builds every error response of the API, all in one shape.

Knows codes and statuses, not causes. Responses never echo the input: NaN and lone surrogates cannot be
encoded, and anything else ends up in logs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Scope

from backend.core.errors.access import TooMuch
from backend.core.errors.base import Action, WanError
from backend.core.errors.lookups import NotFound
from backend.core.errors.requests import BodyTooLarge, InvalidRequest, MalformedBody
from backend.core.errors.surroundings import StoreUnavailable, Unauthorized
from backend.core.plain_words import about, in_plain_words

log = structlog.get_logger(__name__)

REQUEST_ID_KEY = "wan22.request_id"
#: Client-chosen names that may appear in a response.
_PLAIN_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]{0,39}$")
_RETRY_SECONDS = "2"
#: Messages that clients of the earlier application expect, by field and kind of fault.
_OLDER_WORDS = {
    ("prompt", "missing"): "Prompt is required",
    ("model_type", "missing"): "Model type is required",
    ("lora_strength", "greater_than_equal"): "LoRA strength must be between 0.0 and 2.0",
    ("lora_strength", "less_than_equal"): "LoRA strength must be between 0.0 and 2.0",
}


def request_id_of(scope: Scope) -> str:
    """Return the id that the request context assigned to this request."""
    return str(scope.get(REQUEST_ID_KEY, ""))


def error_answer(
    status: int,
    code: str,
    message: str,
    *,
    request_id: str,
    suggestions: Sequence[str] = (),
    details: dict[str, Any] | list[Any] | None = None,
    actions: Sequence[Action] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build an error response; `detail` is always a sentence, and `actions` is there only when there are any."""
    body: dict[str, Any] = {
        "detail": message,
        "error": code,
        "message": message,
        "details": details,
        "suggestions": list(suggestions),
        "request_id": request_id,
    }
    if actions:  # clients compare the bodies of the other errors key by key
        body["actions"] = list(actions)
    # ASCII only, so that no character of a message can break the response.
    content = json.dumps(body, ensure_ascii=True, allow_nan=False, default=str)
    return Response(content, status, headers, media_type="application/json")


def answer_to(error: WanError, scope: Scope, *, status: int | None = None) -> Response:
    """Render a WanError; `status` overrides the error's own where a route must differ."""
    headers = {}
    if isinstance(error, StoreUnavailable):
        headers["Retry-After"] = _RETRY_SECONDS
    if isinstance(error, TooMuch):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return error_answer(
        status or error.status,
        error.code,
        error.message,
        request_id=request_id_of(scope),
        suggestions=error.next_steps,
        details=error.details,
        actions=error.actions,
        headers=headers,
    )


def install_error_handlers(app: FastAPI) -> None:
    """Make the app return every error in the common shape."""

    async def on_wan_error(request: Request, error: Exception) -> Response:
        if not isinstance(error, WanError):
            raise error
        if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("http.error", code=error.code, exc_info=error)
        return answer_to(error, request.scope)

    async def on_bad_shape(request: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError):
            raise error
        return _shape_answer(error.errors(), request.scope)

    async def on_http_error(request: Request, error: Exception) -> Response:
        if not isinstance(error, HTTPException):
            raise error
        return _http_answer(error, request.scope)

    app.add_exception_handler(WanError, on_wan_error)
    app.add_exception_handler(RequestValidationError, on_bad_shape)
    app.add_exception_handler(HTTPException, on_http_error)


def _shape_answer(faults: Sequence[Any], scope: Scope) -> Response:
    """Return 422 with a sentence for people and a list of faults for programs; never the input."""
    details = [_fault(fault) for fault in faults]
    sentences = [_OLDER_WORDS.get((_field(f["loc"]), f["type"]), "") for f in details]
    message = next(filter(None, sentences), "") or "; ".join(_sentence(f) for f in details[:3])
    return error_answer(
        InvalidRequest.status,
        InvalidRequest.code,
        message,
        request_id=request_id_of(scope),
        suggestions=InvalidRequest.suggestions,
        details=details,
    )


def _fault(fault: Mapping[str, Any]) -> dict[str, Any]:
    loc = [part if isinstance(part, int) or _PLAIN_NAME.match(part) else "(unnamed)" for part in fault["loc"]]
    # Clients of the earlier application compare the sentence about a missing field.
    words = str(fault["msg"]) if fault["type"] == "missing" else in_plain_words(fault)
    return {"loc": loc, "msg": words, "type": fault["type"]}


def _sentence(fault: Mapping[str, Any]) -> str:
    return about(_field(fault["loc"]), str(fault["msg"]))


def _field(loc: Sequence[int | str]) -> str:
    names = [str(part) for part in loc if part not in ("body", "query", "path", "header")]
    return ".".join(names) or "request"


def _http_answer(error: HTTPException, scope: Scope) -> Response:
    """Render the framework's own errors: unknown paths, wrong methods, unreadable or oversized bodies."""
    known: dict[int, type[WanError]] = {400: MalformedBody, 404: NotFound, 413: BodyTooLarge}
    kind = known.get(error.status_code)
    if kind is not None:
        return answer_to(kind(), scope)
    phrase = HTTPStatus(error.status_code).phrase
    allowed = (error.headers or {}).get("Allow")
    return error_answer(
        error.status_code,
        phrase.lower().replace(" ", "_"),
        phrase,
        request_id=request_id_of(scope),
        suggestions=(f"Use {allowed}.",) if allowed else NotFound.suggestions,
        headers=error.headers,
    )
