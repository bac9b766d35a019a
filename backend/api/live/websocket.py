"""Live updates over WebSocket: the messages that clients send, and the routes.

docs/api.md explains the protocol. Each message carries the `event_id` up to which it is
current; a client that comes back says `since` that number and gets what it has missed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel
from starlette.responses import Response

from backend.api.http.access import accepted_subprotocol
from backend.api.http.deps import ServicesDep
from backend.api.http.errors import answer_to, error_answer
from backend.api.http.routing import Routes
from backend.api.live.connection import TOO_LARGE, TOO_SLOW, Connection
from backend.api.live.manager import ConnectionManager
from backend.api.live.messages import TOPICS, LiveMessage, encode
from backend.core.domain import iso, utcnow
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import TooManyConnections

MAX_FRAME_CHARS: Final = 16_384
MAX_EVENT: Final = 2**53
#: Query parameters of the socket and of the event stream.
SINCE, TOPIC_LIST = "since", "topics"

Handler = Callable[[Connection, dict[str, Any]], Coroutine[Any, Any, None]]

router = Routes()


class SocketStats(BaseModel):
    """Who listens to what, over WebSocket and as event streams."""

    active_connections: int
    subscription_counts: dict[str, int]
    available_topics: list[str]


class Socket:
    """One WebSocket as the transport of a connection, and what its client says."""

    def __init__(self, websocket: WebSocket, manager: ConnectionManager) -> None:
        """Wrap an accepted socket."""
        self._websocket = websocket
        self._manager = manager
        self._handlers: dict[str, Handler] = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "ping": self._ping,
            "get_status": self._status,
        }

    async def write(self, message: LiveMessage) -> None:
        """Send a message."""
        await self._websocket.send_text(message.text)

    async def close(self, code: int, reason: str) -> None:
        """Close the socket."""
        await self._websocket.close(code, reason)

    async def listen(self, connection: Connection) -> None:
        """Answer what the client says, until it disconnects."""
        while (text := await self._receive()) is not None:
            if len(text) > MAX_FRAME_CHARS:
                connection.let_go(TOO_LARGE, "message too large")
                return
            message = _parse(text)
            handler = self._handlers.get(_kind(message))
            if handler is None:
                known = ", ".join(self._handlers)
                await _complain(connection, f"Send a JSON object with a type: {known}")
                continue
            await handler(connection, _data(message))

    async def _receive(self) -> str | None:
        """Return the next text frame, "" for a binary frame, None once the client has disconnected."""
        try:
            message = await self._websocket.receive()
        except (WebSocketDisconnect, RuntimeError):
            return None
        return None if message["type"] == "websocket.disconnect" else message.get("text") or ""

    async def _subscribe(self, connection: Connection, data: dict[str, Any]) -> None:
        topics = data.get("topics", [data.get("topic")])
        if not _are_topics(topics):
            await _complain(connection, f"Unknown topic. Use one of: {', '.join(TOPICS)}")
            return
        since = data.get(SINCE, data.get("after_event"))
        if since is not None and (type(since) is not int or not 0 <= since <= MAX_EVENT):
            await _complain(connection, "since must be the number of an event")
            return
        await self._manager.subscribe(connection, topics, since)

    async def _unsubscribe(self, connection: Connection, data: dict[str, Any]) -> None:
        topic = data.get("topic")
        if not _are_topics([topic]):
            await _complain(connection, f"Unknown topic. Use one of: {', '.join(TOPICS)}")
            return
        connection.topics.discard(str(topic))
        answer = {"topic": topic, "unsubscribed": True, "message": f"Unsubscribed from {topic}"}
        await connection.send(encode("unsubscription_response", connection.position, answer))

    async def _ping(self, connection: Connection, data: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"message": "pong"}
        sent = data.get("timestamp")
        if _is_plain(sent):
            answer["timestamp"] = sent
        await connection.send(encode("pong", connection.position, answer))

    async def _status(self, connection: Connection, data: dict[str, Any]) -> None:
        answer = {
            "connection_id": connection.id,
            "active_connections": self._manager.active_connections,
            "subscriptions": {topic: topic in connection.topics for topic in TOPICS},
            "subscription_counts": self._manager.subscription_counts(),
        }
        await connection.send(encode("status_response", connection.position, answer))


@router.websocket("/ws")
@router.websocket("/api/v1/ws")
async def live(websocket: WebSocket) -> None:
    """Serve the topic protocol to one client."""
    manager: ConnectionManager = websocket.app.state.services.sockets
    try:
        topics, since = read_query(websocket.query_params)
    except InvalidRequest as refusal:
        await _refuse(websocket, answer_to(refusal, websocket.scope), 1008, refusal.message)
        return
    if manager.is_full:
        await _refuse(websocket, full_answer(websocket.scope), TOO_SLOW, "too many connections")
        return
    await websocket.accept(accepted_subprotocol(websocket.scope.get("subprotocols", [])))
    socket = Socket(websocket, manager)
    await manager.attend(socket, socket.listen, topics=topics, since=since)


@router.get("/api/v1/ws/stats", summary="Who listens to live updates", tags=["system"])
async def socket_stats(services: ServicesDep) -> SocketStats:
    """Count the clients of the WebSocket and of the event streams, and their subscriptions."""
    sockets = services.sockets
    return SocketStats(
        active_connections=sockets.active_connections,
        subscription_counts=sockets.subscription_counts(),
        available_topics=list(TOPICS),
    )


def read_query(query: Mapping[str, str]) -> tuple[list[str], int | None]:
    """Return the topics and the event number of a query.

    Raises:
        InvalidRequest: one of them is not what it should be, or there is another parameter.
    """
    for name in query:
        if name not in (SINCE, TOPIC_LIST):
            raise InvalidRequest(f"The only parameters are {TOPIC_LIST} and {SINCE}")
    return read_topics(query.get(TOPIC_LIST)), read_number(query.get(SINCE))


def read_topics(text: str | None) -> list[str]:
    """Return the topics of a list with commas.

    Raises:
        InvalidRequest: one of them does not exist.
    """
    topics = list(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    if not _are_topics(topics or list(TOPICS)):
        raise InvalidRequest(f"Unknown topic. Use one of: {', '.join(TOPICS)}")
    return topics


def read_number(text: str | None) -> int | None:
    """Return the number of an event, None for none.

    Raises:
        InvalidRequest: it is no number, or too large.
    """
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= MAX_EVENT):
        raise InvalidRequest("since must be the number of an event")
    return int(text)


def full_answer(scope: Mapping[str, Any]) -> Response:
    """Return the 503 for a client that there is no room for."""
    return error_answer(
        HTTPStatus.SERVICE_UNAVAILABLE,
        TooManyConnections.code,
        "All places for live updates are taken",
        scope=dict(scope),
        suggestions=TooManyConnections.suggestions,
        headers={"Retry-After": "5"},
    )


async def _refuse(websocket: WebSocket, answer: Response, code: int, reason: str) -> None:
    """Answer a socket that is not accepted with HTTP; before the handshake a close code would read as 403."""
    if "websocket.http.response" not in websocket.scope.get("extensions", {}):
        await websocket.close(code, reason)
        return
    await websocket.send_denial_response(answer)


async def _complain(connection: Connection, sentence: str) -> None:
    await connection.send(encode("error", connection.position, {"message": sentence, "timestamp": iso(utcnow())}))


def _parse(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _kind(message: dict[str, Any]) -> str:
    """Return the type of a message; some clients call it the action."""
    return str(message.get("type", message.get("action", "")))


def _data(message: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a message, which stand in `data` or beside the type."""
    data = message.get("data", message)
    return data if isinstance(data, dict) else {}


def _are_topics(topics: object) -> bool:
    return isinstance(topics, list) and bool(topics) and all(isinstance(one, str) and one in TOPICS for one in topics)


def _is_plain(value: object) -> bool:
    """Whether a value is safe to echo: a short string or a finite 64-bit number."""
    if isinstance(value, str):
        return len(value) <= 64
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 2**63
    )
