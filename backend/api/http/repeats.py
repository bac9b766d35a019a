"""Routes that create something and honour `Idempotency-Key`: a repeated call gets the answer of the first one.

Knows calls and bytes, not what is created. Routes that queue tasks do without it: their keys are in the tasks' rows,
written in the transaction that queues them, and so hold even where a server dies between the commit and the answer.
"""

from __future__ import annotations

import hashlib
import re
from asyncio import to_thread
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final

from fastapi import Header, Request, Response
from fastapi.routing import APIRoute
from starlette.types import Message

from backend.core.errors.lookups import IdempotencyConflict
from backend.core.errors.requests import InvalidRequest
from backend.store.clients.answers import AnswerStore, KeptAnswer

KEY_HEADER: Final = "Idempotency-Key"
#: Marks an answer that an earlier call got.
REPLAYED: Final = "Idempotency-Replayed"
_KEY: Final = re.compile(r"^[\x21-\x7e]{1,200}$")
_BOUNDARY: Final = re.compile(r'boundary="?([^";,]{1,200})', re.IGNORECASE)

KeyHeader = Annotated[
    str | None,
    Header(
        alias=KEY_HEADER,
        description="Repeating the key with the same request returns what the first call created, not a second one",
    ),
]


def check_key(key: str | None) -> str | None:
    """Return the key.

    Raises:
        InvalidRequest: it is too long, or has other characters than visible ASCII ones.
    """
    if key is not None and not _KEY.match(key):
        raise InvalidRequest("An idempotency key has 1 to 200 visible ASCII characters")
    return key


async def idempotency_key(_key: KeyHeader = None) -> None:
    """Document the header; `RepeatableRoute` reads it, before the body."""


class RepeatableRoute(APIRoute):
    """A route whose answers are kept for a day for calls that carry a key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the route's own handler."""
        handle = super().get_route_handler()

        async def once(request: Request) -> Response:
            key = check_key(request.headers.get(KEY_HEADER))
            if key is None:
                return await handle(request)
            answers: AnswerStore = request.app.state.services.answers
            body = _BodyDigest(request)
            first = await to_thread(answers.begin, f"{request.method} {request.scope['path']}"[:300], key)
            if isinstance(first, KeptAnswer):
                return await _again(first, body)
            kept = None
            try:
                response = await handle(body.request)
                if response.status_code < 300:
                    text = bytes(response.body).decode("utf-8")
                    kept = KeptAnswer(await body.rest(), response.status_code, text)
            finally:
                if kept is None:
                    await to_thread(answers.release, first)
            if kept is not None:
                await to_thread(answers.keep, first, kept)
            return response

        return once


async def _again(first: KeptAnswer, body: _BodyDigest) -> Response:
    """Answer a repeated call as the first one was answered.

    Raises:
        IdempotencyConflict: its body differs from that of the first one.
    """
    if await body.rest() != first.fingerprint:
        raise IdempotencyConflict
    return Response(first.body, first.status, {REPLAYED: "true"}, media_type="application/json")


class _BodyDigest:
    """Hashes the body of a request while it is read, without the boundary of a form, which every client draws anew."""

    def __init__(self, request: Request) -> None:
        found = _BOUNDARY.search(request.headers.get("content-type", ""))
        self._boundary = found[1].encode("latin-1") if found else b""
        self._receive = request.receive
        self._digest = hashlib.sha256(request.scope["query_string"])
        self._held = b""
        self._ended = False
        #: The request to read the body from.
        self.request = Request(request.scope, self._hash, request._send)

    async def rest(self) -> str:
        """Read what is left of the body, and return the hash of all of it."""
        while not self._ended:
            await self._hash()
        return self._digest.hexdigest()

    async def _hash(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._ended = not message.get("more_body", False)
            self._add(message.get("body", b""))
        else:
            self._ended = True
        return message

    def _add(self, chunk: bytes) -> None:
        held = self._held + chunk
        if self._boundary:
            held = held.replace(self._boundary, b"")
        # The end may be the beginning of a boundary that the next chunk completes.
        keep = 0 if self._ended else max(len(self._boundary) - 1, 0)
        cut = len(held) - keep if keep else len(held)
        self._digest.update(held[: max(cut, 0)])
        self._held = held[max(cut, 0) :]
