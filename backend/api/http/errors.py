"""Builds every error response of the API, all in one shape; under `/v1` in that of OpenAI's API.

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
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.routing import compile_path
from starlette.types import Scope

from backend.core.errors.access import TooMuch
from backend.core.errors.base import Action, WanError
from backend.core.errors.lookups import NotFound, VideoBeingCancelled
from backend.core.errors.requests import (
    INVALID_JSON,
    BodyTooLarge,
    ImageNotAccepted,
    ImageRequired,
    InvalidRequest,
    LoraNotFound,
    MalformedBody,
    UnknownModel,
)
from backend.core.errors.surroundings import StorageFull, StoreUnavailable, Unauthorized
from backend.core.plain_words import about, in_plain_words

log = structlog.get_logger(__name__)

REQUEST_ID_KEY = "wan22.request_id"
#: In the scope of a request under `/v1`: our names of fields -> the names that its client used.
SPELLINGS_KEY = "wan22.spellings"
#: Client-chosen names that may appear in a response.
_PLAIN_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_.-]{0,39}$")
_RETRY_SECONDS = "2"
#: Client libraries of OpenAI follow a `Retry-After` up to this many seconds; beyond it they repeat at once.
_LONGEST_FOLLOWED = 60
_REPEATED = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)
_OPENAI_PATH = re.compile(r"(?!.*/api/).*/v1(?:/|$)")
#: The word of OpenAI's API for a kind of error; `invalid_request_error` for the rest below 500.
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
#: The fields that errors are about whose details do not name one.
_FIELDS: dict[type[WanError], str] = {
    UnknownModel: "model_type",
    ImageRequired: "image",
    ImageNotAccepted: "image",
    LoraNotFound: "loras",
}
#: Messages that clients of the earlier application expect, by field and kind of fault.
_OLDER_WORDS = {
    ("prompt", "missing"): "Prompt is required",
    ("model_type", "missing"): "Model type is required",
    ("lora_strength", "greater_than_equal"): "LoRA strength must be between 0.0 and 2.0",
    ("lora_strength", "less_than_equal"): "LoRA strength must be between 0.0 and 2.0",
    ("lora_strength", "finite_number"): "LoRA strength must be between 0.0 and 2.0",
}


def request_id_of(scope: Scope) -> str:
    """Return the id that the request context assigned to this request."""
    return str(scope.get(REQUEST_ID_KEY, ""))


def speaks_openai(scope: Scope) -> bool:
    """Whether a request came to the OpenAI-compatible routes; behind a proxy also with its prefix."""
    return _OPENAI_PATH.match(scope["path"]) is not None


def error_answer(
    status: int,
    code: str,
    message: str,
    *,
    scope: Scope,
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
        "request_id": request_id_of(scope),
    }
    if speaks_openai(scope):
        if status == InvalidRequest.status:
            status = MalformedBody.status
        spelled = scope.get(SPELLINGS_KEY) or {}
        body = {"error": _openai_error(status, code, message, suggestions, _param(details, spelled), spelled)}
    elif actions:  # clients compare the bodies of the other errors key by key
        body["actions"] = list(actions)
    # ASCII only, so that no character of a message can break the response.
    content = json.dumps(body, ensure_ascii=True, allow_nan=False, default=str)
    return Response(content, status, headers, media_type="application/json")


def _openai_error(
    status: int, code: str, message: str, suggestions: Sequence[str], param: str | None, spelled: Mapping[str, str]
) -> dict[str, str | None]:
    """Return an error as OpenAI's client libraries read it; they show the message alone, so it has the next step."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    text = " ".join([message if message.endswith((".", "!", "?")) else f"{message}.", *suggestions[:1]])
    for ours, theirs in spelled.items():
        text = text.replace(f"`{ours}`", f"`{theirs}`")
    return {"message": text, "type": _OPENAI_TYPES.get(status, kind), "param": param, "code": code}


def _param(details: dict[str, Any] | list[Any] | None, spelled: Mapping[str, str]) -> str | None:
    """Return the field that an error is about, as its client called it."""
    if isinstance(details, list):
        field = _field(details[0]["loc"])
        return None if field == "request" else field
    named = (details or {}).get("field")
    return spelled.get(named, named) if isinstance(named, str) else None


def answer_to(error: WanError, scope: Scope, *, status: int | None = None) -> Response:
    """Render a WanError; `status` overrides the error's own where a route must differ."""
    headers = {}
    if isinstance(error, StoreUnavailable):
        headers["Retry-After"] = _RETRY_SECONDS
    if isinstance(error, TooMuch):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, VideoBeingCancelled):
        headers["Retry-After"] = _RETRY_SECONDS
    if speaks_openai(scope) and (repeat := _worth_repeating(error)) is not None:
        headers["X-Should-Retry"] = str(repeat).lower()
    details = error.details
    if speaks_openai(scope) and not isinstance(details, list):  # which shows the field alone
        details = {"field": next((field for kind, field in _FIELDS.items() if isinstance(error, kind)), None)} | (
            details or {}
        )
    return error_answer(
        status or error.status,
        error.code,
        error.message,
        scope=scope,
        suggestions=error.next_steps,
        details=details,
        actions=error.actions,
        headers=headers,
    )


def _worth_repeating(error: WanError) -> bool | None:
    """Say whether a client library should repeat the call that it would repeat unasked; None leaves it to the library.

    They repeat 409, 429 and every 5xx, also where the same request can only fail again.
    """
    if type(error) is WanError or not (error.status in _REPEATED or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR):
        return None
    if isinstance(error, TooMuch):
        return error.retry_after <= _LONGEST_FOLLOWED
    return error.retryable and not isinstance(error, StorageFull)  # a full disk is full in a second, too


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
        if error.status_code == HTTPStatus.BAD_REQUEST and "json" in request.headers.get("content-type", ""):
            return answer_to(MalformedBody(INVALID_JSON), request.scope)  # text that is not UTF-8
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            error = HTTPException(error.status_code, headers={"Allow": ", ".join(_methods_at(app, request.scope))})
        return _http_answer(error, request.scope)

    app.add_exception_handler(WanError, on_wan_error)
    app.add_exception_handler(RequestValidationError, on_bad_shape)
    app.add_exception_handler(HTTPException, on_http_error)


def _methods_at(app: FastAPI, scope: Scope) -> list[str]:
    """Return what an address takes: each method is a route of its own, and the framework names the first one alone."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    routes = (route for route in iter_route_contexts(app.routes) if route.methods)
    return sorted(
        {one for route in routes if compile_path(str(route.path))[0].match(path) for one in route.methods or ()}
    )


def _shape_answer(faults: Sequence[Any], scope: Scope) -> Response:
    """Return 422 with a sentence for people and a list of faults for programs; never the input."""
    if any(fault["type"] == "json_invalid" for fault in faults):
        return answer_to(MalformedBody(INVALID_JSON), scope)
    spelled = scope.get(SPELLINGS_KEY) or {}
    details = [_fault(fault, spelled) for fault in faults]
    sentences = [_OLDER_WORDS.get((_field(f["loc"]), f["type"]), "") for f in details]
    message = next(filter(None, sentences), "") or "; ".join(_sentence(f) for f in details[:3])
    return error_answer(
        InvalidRequest.status,
        InvalidRequest.code,
        message,
        scope=scope,
        suggestions=InvalidRequest.suggestions,
        details=details,
    )


def _fault(fault: Mapping[str, Any], spelled: Mapping[str, str]) -> dict[str, Any]:
    names = [spelled.get(part, part) if isinstance(part, str) else part for part in fault["loc"]]
    loc = [part if isinstance(part, int) or _PLAIN_NAME.match(part) else "(unnamed)" for part in names]
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
        scope=scope,
        suggestions=(f"Use {allowed}.",) if allowed else NotFound.suggestions,
        headers=error.headers,
    )
