"""Live updates as server-sent events: the messages of the WebSocket over plain HTTP, for clients that only listen."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from fastapi import Header, Query
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.live.connection import Connection
from backend.api.live.manager import ConnectionManager
from backend.api.live.messages import LiveMessage
from backend.api.live.websocket import full_answer, read_number, read_topics

MEDIA_TYPE: Final = "text/event-stream"
#: How long a client should wait before it connects again, in milliseconds.
RETRY_MS: Final = 3000

router = Routes(tags=["live"])


class EventStream(Response):
    """An answer that does not end before its client or its server does."""

    media_type = MEDIA_TYPE

    def __init__(self, manager: ConnectionManager, topics: list[str], since: int | None) -> None:
        """Prepare; nothing is sent yet."""
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._manager = manager
        self._topics = topics
        self._since = since

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send messages until the client disconnects."""
        if self._manager.is_full:
            await full_answer(scope)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b""})
            return
        body = _Body(send)
        await body.send(f"retry: {RETRY_MS}\n\n")

        async def listen(_connection: Connection) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        await self._manager.attend(body, listen, topics=self._topics, since=self._since)


class _Body:
    """The body of one answer as the transport of a connection."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, text: str, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": text.encode("ascii"), "more_body": more})

    async def write(self, message: LiveMessage) -> None:
        """Send a message as an event; the number comes with the last one of an event, so that none is lost."""
        number = "" if message.cursor is None else f"id: {message.cursor}\n"
        if message.kind == "heartbeat":
            await self.send(f": heartbeat\n{number}\n")
        else:
            await self.send(f"{number}event: {message.kind}\ndata: {message.text}\n\n")

    async def close(self, code: int, reason: str) -> None:
        """Say why the stream ends, and end it."""
        data: dict[str, Any] = {"type": "connection_closing", "data": {"code": code, "reason": reason}}
        await self.send(f"event: connection_closing\ndata: {json.dumps(data)}\n\n")
        await self.send("", more=False)


@router.get(
    "/api/v1/events",
    summary="Live updates as server-sent events",
    response_class=Response,
    responses={200: {"description": "The messages, until either side ends", "content": {MEDIA_TYPE: {}}}}
    | refusals({403: "A page of another origin", 503: "All places for live updates are taken"}),
)
def events(
    services: ServicesDep,
    topics: Annotated[
        str | None,
        Query(description="Topics, separated by commas; changes of a task's state always come", max_length=400),
    ] = None,
    since: Annotated[
        str | None, Query(description="Number of an event: everything after it is sent first", max_length=20)
    ] = None,
    last_event_id: Annotated[str | None, Header(description="As `since`, and before it", max_length=20)] = None,
) -> Response:
    """Send the messages of the WebSocket `/ws` as they come; docs/api.md describes them."""
    manager: Any = services.sockets
    return EventStream(manager, read_topics(topics), read_number(last_event_id or since))
