"""Access control: Host names, origins, keys and their scopes, rates, and body size limits.

One layer in front of every route, so that no route can omit it. The host list stops DNS rebinding, the
origin check stops cross-site pages, and the size limit applies while the body arrives, not after.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import time
from collections.abc import Collection
from contextlib import nullcontext
from functools import partial
from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.http.access import credential_of
from backend.api.http.addressing import links_signed_by, route_path
from backend.api.http.connections import Exchange
from backend.api.http.errors import answer_to
from backend.api.http.pages import DOCS_ASSETS, ICON, PAGES, WEB_ASSETS
from backend.api.http.scopes import needed_scope
from backend.core.access.caller import ANYBODY, Caller, acting_as
from backend.core.access.tokens import Credential
from backend.core.errors.access import RateLimited, ScopeMissing
from backend.core.errors.base import WanError
from backend.core.errors.requests import BodyTooLarge, InvalidImage, MalformedBody, UnsupportedEncoding
from backend.core.errors.surroundings import Forbidden, Unauthorized
from backend.core.settings import Settings
from backend.services.access.rate import Buckets
from backend.services.access.ring import KeyRing
from backend.services.media.images import IMAGE_TOO_LARGE

MAX_BODY_BYTES = 1024**2
MAX_FORM_BYTES = 25 * 1024**2
#: The largest accepted LoRA file or clip plus the form around it.
MAX_UPLOAD_BYTES = 501 * 1024**2
#: A video that comes back to be extended, plus the form around it.
MAX_VIDEO_BYTES = 101 * 1024**2
#: Requests under this path carry images as `data:` URLs, also in JSON; those below the others carry videos.
VIDEOS_PATH = "/v1/videos"
VIDEO_PATHS = frozenset({"/v1/videos/extensions", "/v1/videos/edits"})
#: Forms of these are large because of their images, and the answer to a large image has a sentence of its own.
GENERATE_PATH = "/api/v1/generate"
IMAGE_PATHS = frozenset(
    {"/api/v1/generation/submit", "/generation/submit", "/api/v1/generation/estimate", GENERATE_PATH}
)
UPLOAD_PATHS = frozenset(
    prefix + path for prefix in ("/api/v1", "") for path in ("/lora/upload", "/outputs/inspect", "/outputs/import")
)
READING_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Answered under any host name: a probe uses the address it was given, and learns nothing here.
PROBES = frozenset({"/live", "/ready"})
#: Open even when a key is set: liveness probes have none, the API's description is public, and pages ask for a key.
PUBLIC_PATHS = frozenset({*PAGES, ICON, "/live", "/ready", "/docs", "/openapi.json"})
#: Read without end: a page of another origin could not see the answers, but hold all places.
STREAMS: Final = frozenset({"/api/v1/events"})
PUBLIC_PREFIXES: Final = (f"{DOCS_ASSETS}/", f"{WEB_ASSETS}/")

#: Wrong keys from one address, in a minute, after which it has to wait.
WRONG_KEYS_PER_MINUTE: Final = 60
#: Shortest time between two looks into the database for a key that is not known, in seconds.
_RENEW_SECONDS: Final = 0.2

_HOST = re.compile(r"^(\[[0-9a-f:.]+\]|[a-z0-9._-]{1,253})(?::[0-9]{1,5})?$")


class Gate:
    """ASGI middleware that rejects requests before they reach a route."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._hosts = {"localhost", settings.host.lower(), *(name.lower() for name in settings.allowed_hosts)}
        self._origins = {origin.rstrip("/").lower() for origin in settings.cors_origins}
        self._wrong_keys = Buckets()
        self._requests = Buckets()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one connection and pass it to the app, as whoever it comes from."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = _body_limit(scope, headers)
        ring: KeyRing = scope["app"].state.services.keys
        try:
            path, query = route_path(scope), scope["query_string"].decode("latin-1")
            if path not in PROBES:
                self._check_host(headers)
            self._check_origin(scope, headers, path)
            signed = scope["type"] == "http" and scope["method"] in READING_METHODS and "signature=" in query
            credential = credential_of(scope, headers, path, signed=signed)
            caller = await self._caller(scope, path, credential, ring)
            _check_encoding(headers)
            _check_length(headers, limit, _too_large(scope, headers))
        except WanError as refusal:
            await _refuse(refusal, scope, receive, send)
            return
        if signed:
            scope = {**scope, "query_string": _without_signature(query)}
        exchange = Exchange(scope["type"], send)
        ends_at = float("inf") if credential is None else credential.ends_at
        # Whoever reads what is for everybody has no right that could end in the middle of the answer.
        watching = nullcontext() if _is_public(path) else ring.watching(caller, ends_at, exchange.end)
        with acting_as(caller), links_signed_by(ring.tokens_of(caller)), watching:
            await exchange.run(partial(self.app, scope, _limited(receive, limit), exchange.send))

    def _check_host(self, headers: Headers) -> None:
        """Accept any IP address, because rebinding needs a name, and only the allowed names."""
        sent = headers.getlist("host")
        match = _HOST.match(sent[0].lower()) if len(sent) == 1 else None
        if match is None or not (match[1] in self._hosts or _is_address(match[1])):
            raise Forbidden(
                "This server does not answer to this host name",
                suggestions=("Open it as localhost or by its address, or add the name to WAN22_ALLOWED_HOSTS.",),
            )

    def _check_origin(self, scope: Scope, headers: Headers, path: str) -> None:
        """Reject writes, sockets and streams from other sites' pages; non-browser clients send no Origin."""
        if scope["type"] == "http" and scope["method"] in READING_METHODS and path not in STREAMS:
            return
        origins = headers.getlist("origin")
        if not origins:
            return
        if len(origins) > 1 or not may_write(origins[0], headers["host"], self._origins):
            raise Forbidden("Pages of another origin may not use this server")

    async def _caller(self, scope: Scope, path: str, credential: Credential | None, ring: KeyRing) -> Caller:
        """Return who calls, if that is somebody, has the scope, and is within its rate."""
        if _is_public(path):
            return ANYBODY
        peer = (scope.get("client") or ("", 0))[0]
        seconds = self._wrong_keys.empty(peer, WRONG_KEYS_PER_MINUTE) if ring.locked else 0.0
        if seconds:
            raise RateLimited("Too many wrong keys came from this address", seconds=seconds)
        caller = ring.recognise(credential)
        if caller is None and credential is not None:
            # It may have been stored by another process a moment ago.
            await _renew(ring)
            caller = ring.recognise(credential)
        if caller is None:
            if credential is not None:
                self._wrong_keys.wait(peer, WRONG_KEYS_PER_MINUTE)
            raise Unauthorized
        needed = needed_scope(scope.get("method", "GET"), path)
        if not caller.may(needed):
            raise ScopeMissing(f"This needs a key with the scope {needed}")
        most = caller.limits.requests_per_minute
        seconds = 0.0 if most is None or caller.key_id is None else self._requests.wait(caller.key_id, most)
        if seconds:
            raise RateLimited(f"This key may send {most} requests a minute", seconds=seconds)
        return caller


def _is_public(path: str) -> bool:
    return path in PUBLIC_PATHS or path.startswith(PUBLIC_PREFIXES)


def may_write(origin: str, host: str, allowed: Collection[str]) -> bool:
    """Whether pages of an origin may change something here: this server's own, and those in `allowed`."""
    scheme, _, page_host = origin.lower().partition("://")
    return (scheme in ("http", "https") and page_host == host.lower()) or origin.lower() in allowed


async def _renew(ring: KeyRing) -> None:
    """Read the stored keys again, at most a few times a second, whoever sends how many wrong keys."""
    asked = time.monotonic()
    await asyncio.sleep(max(0.0, ring.refreshed + _RENEW_SECONDS - asked))
    if ring.refreshed < asked:
        try:
            await asyncio.to_thread(ring.refresh, asked)
        except WanError:  # the known keys stay
            return


def _body_limit(scope: Scope, headers: Headers) -> int:
    path = route_path(scope)
    if not _is_form(headers):
        return MAX_FORM_BYTES if path == VIDEOS_PATH else MAX_BODY_BYTES
    if path in UPLOAD_PATHS:
        return MAX_UPLOAD_BYTES
    return MAX_VIDEO_BYTES if path in VIDEO_PATHS else MAX_FORM_BYTES


def _without_signature(query: str) -> bytes:
    kept = [part for part in query.split("&") if part.partition("=")[0] not in ("holder", "expires", "signature")]
    return "&".join(kept).encode("latin-1")


def _check_encoding(headers: Headers) -> None:
    """Refuse compressed bodies, which nothing here unpacks."""
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise UnsupportedEncoding


def _too_large(scope: Scope, headers: Headers) -> WanError:
    """Return the refusal of a body beyond its limit."""
    if _is_form(headers) and route_path(scope) in IMAGE_PATHS:
        return InvalidImage(IMAGE_TOO_LARGE)
    return BodyTooLarge()


def _is_form(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


def _check_length(headers: Headers, limit: int, refusal: WanError) -> None:
    """Reject by the declared length, before anything is read."""
    announced = headers.get("content-length", "0")
    if not announced.isascii() or not announced.isdigit():
        raise MalformedBody
    if len(announced) > 15 or int(announced) > limit:
        raise refusal


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
    older = isinstance(refusal, InvalidImage) and route_path(scope) == GENERATE_PATH  # which calls every bad image 400
    await answer_to(refusal, scope, status=MalformedBody.status if older else None)(scope, receive, send)
