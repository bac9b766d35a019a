"""Recognises JSON that arrives without its content type, as many command-line clients send it.

Only the declaration is added; the body stays as it is. Knows no route.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Sent by clients that were not told what their data is.
_UNDECLARED = ("", "application/x-www-form-urlencoded")
_WITH_BODY = {"POST", "PUT", "PATCH", "DELETE"}
_MARK = b"\xef\xbb\xbf"


class JsonRecognition:
    """ASGI middleware that declares a body as JSON when it begins like a JSON object or list."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Look at the first bytes of an undeclared body, then serve the request."""
        if scope["type"] != "http" or scope["method"] not in _WITH_BODY or _kind(scope) not in _UNDECLARED:
            await self.app(scope, receive, send)
            return
        try:
            first = await receive()
        except HTTPException as error:  # too large; only the app can turn it into an answer
            await self.app(scope, _raising(error), send)
            return
        if first.get("body", b"").removeprefix(_MARK).lstrip()[:1] in (b"{", b"["):
            scope = {**scope, "headers": list(scope["headers"])}
            MutableHeaders(scope=scope)["content-type"] = "application/json"
        waiting: list[Message] = [first]

        async def receive_again() -> Message:
            return waiting.pop() if waiting else await receive()

        await self.app(scope, receive_again, send)


def _kind(scope: Scope) -> str:
    return Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()


def _raising(error: HTTPException) -> Receive:
    async def receive() -> Message:
        raise error

    return receive
