"""Access control: Host names, origins, the API key, and body size limits.

One layer in front of every route, so that no route can omit it. The host list stops DNS rebinding, the
origin check stops cross-site pages, and the size limit applies while the body arrives, not after.
"""

from __future__ import annotations

import ipaddress
import re

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.http.access import COOKIE, AccessTokens
from backend.api.http.addressing import route_path
from backend.api.http.errors import answer_to
from backend.core.errors.base import WanError
from backend.core.errors.requests import BodyTooLarge, MalformedBody, UnsupportedEncoding
from backend.core.errors.surroundings import Forbidden, Unauthorized
from backend.core.settings import Settings

MAX_BODY_BYTES = 1024**2
MAX_FORM_BYTES = 25 * 1024**2
#: The largest accepted LoRA file plus the form around it.
MAX_UPLOAD_BYTES = 501 * 1024**2
UPLOAD_PATHS = frozenset({"/api/v1/lora/upload", "/lora/upload"})
READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Answered under any host name: a probe uses the address it was given, and learns nothing here.
PROBES = frozenset({"/live", "/ready"})
#: Open even when a key is set: liveness probes have none, and the API's description is not secret.
PUBLIC_PATHS = frozenset({"/", "/live", "/ready", "/docs", "/openapi.json"})
PUBLIC_PREFIX = "/docs/assets/"

_HOST = re.compile(r"^(\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?$")


class Gate:
    """ASGI middleware that rejects requests before they reach a route."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._hosts = {"localhost", settings.host.lower(), *(name.lower() for name in settings.allowed_hosts)}
        self._origins = {origin.rstrip("/").lower() for origin in settings.cors_origins}
        self._tokens = AccessTokens.of(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one connection and pass it to the app."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = _body_limit(scope, headers)
        try:
            if route_path(scope) not in PROBES:
                self._check_host(headers)
            self._check_origin(scope, headers)
            scope = self._check_key(scope, headers)
            _check_encoding(headers)
            _check_length(headers, limit)
        except WanError as refusal:
            await _refuse(refusal, scope, receive, send)
            return
        await self.app(scope, _limited(receive, limit), send)

    def _check_host(self, headers: Headers) -> None:
        """Accept any IP address, because rebinding needs a name, and only the allowed names."""
        sent = headers.getlist("host")
        match = _HOST.match(sent[0].lower()) if len(sent) == 1 else None
        if match is None or not (match[1] in self._hosts or _is_address(match[1])):
            raise Forbidden(
                "This server does not answer to this host name",
                suggestions=("Open it as localhost or by its address, or add the name to WAN22_ALLOWED_HOSTS.",),
            )

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        """Reject writes and sockets from other sites' pages; non-browser clients send no Origin."""
        if scope["type"] == "http" and scope["method"] in READING_METHODS:
            return
        origins = headers.getlist("origin")
        if not origins:
            return
        origin = origins[0].lower()
        scheme, _, page_host = origin.partition("://")
        ours = scheme in ("http", "https") and page_host == headers["host"].lower()
        if len(origins) > 1 or not (ours or origin in self._origins):
            raise Forbidden("Pages of another origin may not use this server")

    def _check_key(self, scope: Scope, headers: Headers) -> Scope:
        """Accept the key, or what a browser sends in its place; return the scope without the signature of a link."""
        path, query = route_path(scope), scope["query_string"].decode("latin-1")
        signed = scope["type"] == "http" and scope["method"] in READING_METHODS and "signature=" in query
        plain = {**scope, "query_string": _without_signature(query)} if signed else scope
        if self._tokens.key is None or path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIX):
            return plain
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if not (
            (scheme.lower() == "bearer" and self._tokens.is_key(key.strip()))
            or (signed and self._tokens.opens(path, query))
            or self._tokens.is_session(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""))
            or (scope["type"] == "websocket" and self._tokens.in_subprotocols(scope.get("subprotocols", [])))
        ):
            raise Unauthorized
        return plain


def _body_limit(scope: Scope, headers: Headers) -> int:
    if not headers.get("content-type", "").lower().startswith("multipart/form-data"):
        return MAX_BODY_BYTES
    return MAX_UPLOAD_BYTES if route_path(scope) in UPLOAD_PATHS else MAX_FORM_BYTES


def _without_signature(query: str) -> bytes:
    kept = [part for part in query.split("&") if part.partition("=")[0] not in ("expires", "signature")]
    return "&".join(kept).encode("latin-1")


def _check_encoding(headers: Headers) -> None:
    """Refuse compressed bodies, which nothing here unpacks."""
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedEncoding


def _check_length(headers: Headers, limit: int) -> None:
    """Reject by the declared length, before anything is read."""
    announced = headers.get("content-length", "0")
    if not announced.isascii() or not announced.isdigit():
        raise MalformedBody
    if len(announced) > 15 or int(announced) > limit:
        raise BodyTooLarge


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _limited(receive: Receive, limit: int) -> Receive:
    """Count the body as it arrives; an understated Content-Length does not evade the limit."""
    total = 0

    async def receive_counted() -> Message:
        nonlocal total
        message = await receive()
        if message["type"] == "http.request":
            total += len(message.get("body", b""))
            if total > limit:
                raise HTTPException(BodyTooLarge.status)
        return message

    return receive_counted


async def _refuse(refusal: WanError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": refusal.message})
        return
    await answer_to(refusal, scope)(scope, receive, send)
