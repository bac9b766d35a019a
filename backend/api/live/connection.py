"""One WebSocket client: its subscriptions and its bounded outbox.

A client that reads too slowly is disconnected; otherwise its messages would pile up without limit.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
from fastapi import WebSocket, WebSocketDisconnect

from backend.api.http.addressing import current_links
from backend.core.access.caller import current_caller

OUTBOX_MESSAGES = 1024
CLOSE_SECONDS = 5.0
TOO_SLOW = 1013  # "try again later": clients reconnect and request what they missed
TOO_LARGE = 1009
GOING_AWAY = 1001


class Connection:
    """A client's outbox and subscriptions. Call all methods on the event loop's thread."""

    def __init__(self, websocket: WebSocket, position: int) -> None:
        """Wrap an accepted socket; `position` is the id of the last event published before it joined."""
        self.id = uuid.uuid4().hex
        self.topics: set[str] = set()
        self.position_at_join = position
        self.links = current_links()
        self.caller = current_caller()
        self._websocket = websocket
        self._outbox: asyncio.Queue[str] = asyncio.Queue(OUTBOX_MESSAGES)
        self._room = asyncio.Event()
        self._let_go = asyncio.Event()
        self._farewell: tuple[int, str] | None = None

    def sees(self, owner: str | None) -> bool:
        """Whether the client may hear of a task with this owner."""
        return self.caller.confined_to in (None, owner)

    def offer(self, text: str) -> None:
        """Queue a message, or disconnect the client if its outbox is full."""
        try:
            self._outbox.put_nowait(text)
        except asyncio.QueueFull:
            self.let_go(TOO_SLOW, "read too slowly; connect again and subscribe with after_event")

    async def send(self, text: str) -> None:
        """Queue a message once there is room, so that long answers are sent at the client's own speed.

        Half of the outbox stays free for `offer`: a long answer must not make a fast reader look slow.
        """
        while self._outbox.qsize() >= OUTBOX_MESSAGES // 2:
            self._room.clear()
            await self._room.wait()
        self.offer(text)

    def let_go(self, code: int, reason: str) -> None:
        """Close the connection with a close code; the first call wins."""
        if self._farewell is None:
            self._farewell = (code, reason)
            self._let_go.set()

    async def receive(self) -> str | None:
        """Return the next text frame, "" for a binary frame, None once the client has disconnected."""
        try:
            message = await self._websocket.receive()
        except (WebSocketDisconnect, RuntimeError):
            return None
        return None if message["type"] == "websocket.disconnect" else message.get("text") or ""

    async def run(self, read: Callable[[], Awaitable[None]]) -> None:
        """Send queued messages until `read` ends, the socket breaks, or the client is disconnected."""
        async with anyio.create_task_group() as group:

            async def first(work: Callable[[], Awaitable[object]]) -> None:
                await work()
                group.cancel_scope.cancel()

            for work in (read, self._write, self._let_go.wait):
                group.start_soon(first, work)
        if self._farewell is not None:
            with anyio.move_on_after(CLOSE_SECONDS), suppress(RuntimeError, WebSocketDisconnect, OSError):
                await self._websocket.close(*self._farewell)

    async def _write(self) -> None:
        while True:
            text = await self._outbox.get()
            self._room.set()
            try:
                await self._websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError, OSError):
                return


def encode(kind: str, event_id: int, data: dict[str, Any], *, flat: bool = False) -> str:
    """Encode a message; `flat` repeats the data at the top level, as the oldest clients expect."""
    body = {"type": kind, "event_id": event_id, "data": data}
    # ASCII only: a lone surrogate cannot be encoded as UTF-8.
    return json.dumps((data if flat else {}) | body, allow_nan=False)
