"""Outermost middleware: gives every request an id, a log line, security headers, and a response even on a crash.

Knows nothing about any route.
"""

from __future__ import annotations

import re
import time
import uuid

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.api.http.errors import REQUEST_ID_KEY, answer_to
from backend.api.http.shapes import EXACT, MODEL_IDS_HEADER, knows_exact_ids
from backend.core.errors.base import WanError

log = structlog.get_logger(__name__)

_CLIENT_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_READING = {"GET", "HEAD", "OPTIONS"}
#: Sent unless a route sets its own: responses are data, never pages, and must not be sniffed.
_DEFAULTS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class RequestContext:
    """ASGI middleware that assigns request ids and turns unexpected exceptions into a plain 500."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope)
        sent_id = sent.get("x-request-id", "")
        knows_exact_ids.set(sent.get(MODEL_IDS_HEADER, "").strip().lower() == EXACT)
        request_id = sent_id if _CLIENT_ID.match(sent_id) else uuid.uuid4().hex
        scope[REQUEST_ID_KEY] = request_id
        status = 0
        began = time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
                headers = MutableHeaders(raw=message.setdefault("headers", []))
                headers["X-Request-ID"] = request_id
                for name, value in _DEFAULTS.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_headers)
            except Exception as error:  # process boundary: the client gets a response, the log the cause
                log.error("http.crashed", path=scope["path"], exc_info=error)
                if scope["type"] == "websocket" or status:
                    raise
                await answer_to(WanError(), scope)(scope, receive, send_with_headers)
            if scope["type"] == "http":
                write = log.info if scope["method"] not in _READING or status == 500 else log.debug
                took = round((time.perf_counter() - began) * 1000, 1)
                write("http.request", method=scope["method"], path=scope["path"], status=status, ms=took)
