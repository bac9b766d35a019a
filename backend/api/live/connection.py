"""One client of the live updates, over whichever transport: its subscriptions, its position in the log, its outbox.

A client that reads too slowly is disconnected; otherwise its messages would pile up without limit.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, Protocol

import anyio
from fastapi import WebSocketDisconnect

from backend.api.http.addressing import current_links
from backend.api.live.messages import LiveMessage
from backend.core.access.caller import current_caller

#: Most that waits for one client: messages, and characters of them.
OUTBOX_MESSAGES: Final = 1024
OUTBOX_CHARS: Final = 2 * 1024**2
#: How long one message may take to be accepted by the client, in seconds.
STUCK_SECONDS: Final = 60.0
#: How long the client has to take its last message, which says why it is disconnected, in seconds.
CLOSE_SECONDS: Final = 5.0
TOO_SLOW: Final = 1013  # "try again later": clients reconnect and request what they missed
TOO_LARGE: Final = 1009
GOING_AWAY: Final = 1001
FAILED: Final = 1011


class Transport(Protocol):
    """Carries the messages to one client."""

    async def write(self, message: LiveMessage) -> None:
        """Send a message; returns once the network has taken it."""

    async def close(self, code: int, reason: str) -> None:
        """Tell the client why it is disconnected."""


class Connection:
    """A client's outbox and subscriptions. Call all methods on the event loop's thread."""

    def __init__(self, position: int) -> None:
        """Begin after the event with the number `position`."""
        self.id = uuid.uuid4().hex
        self.topics: set[str] = set()
        #: The number of the event up to which everything that the client wants was queued.
        self.position = position
        #: Changes of state that the client gets without asking are sent from this event on.
        self.updates_from = position
        #: While it is sent what it has missed, it gets nothing newer of the log: all would be out of order.
        self.behind = False
        self.links = current_links()
        self.caller = current_caller()
        self._outbox: deque[LiveMessage] = deque()
        self._chars = 0
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._let_go = asyncio.Event()
        self._farewell: tuple[int, str] | None = None

    def sees(self, owner: str | None) -> bool:
        """Whether the client may hear of a task with this owner."""
        return self.caller.confined_to in (None, owner)

    def wants(self, topic: str | None) -> bool:
        """Whether messages of this topic are for the client; those of no topic are for everybody."""
        return topic is None or topic in self.topics

    @property
    def half_full(self) -> bool:
        """Whether half of the outbox is in use."""
        return len(self._outbox) >= OUTBOX_MESSAGES // 2 or self._chars >= OUTBOX_CHARS // 2

    def offer(self, message: LiveMessage) -> None:
        """Queue a message, or disconnect the client if its outbox is full."""
        if len(self._outbox) >= OUTBOX_MESSAGES or self._chars + len(message.text) > OUTBOX_CHARS:
            self.let_go(TOO_SLOW, "read too slowly; connect again with since and the last event_id")
            return
        self._outbox.append(message)
        self._chars += len(message.text)
        self._filled.set()

    async def send(self, message: LiveMessage) -> None:
        """Queue a message once there is room, so that long answers are sent at the client's own speed.

        Half of the outbox stays free for `offer`: a long answer must not make a fast reader look slow.
        """
        while self.half_full:
            self._room.clear()
            await self._room.wait()
        self.offer(message)

    def let_go(self, code: int, reason: str) -> None:
        """Close the connection with a close code; the first call wins."""
        if self._farewell is None:
            self._farewell = (code, reason)
            self._let_go.set()

    async def run(self, transport: Transport, read: Callable[[], Awaitable[None]]) -> None:
        """Send queued messages until `read` ends, the transport breaks, or the client is disconnected."""
        async with anyio.create_task_group() as group:

            async def first(work: Callable[[], Awaitable[object]]) -> None:
                await work()
                group.cancel_scope.cancel()

            async def write() -> None:
                await self._write(transport)

            for work in (read, write, self._let_go.wait):
                group.start_soon(first, work)
        self._outbox.clear()
        if self._farewell is not None:
            with anyio.move_on_after(CLOSE_SECONDS), suppress(RuntimeError, WebSocketDisconnect, OSError):
                await transport.close(*self._farewell)

    async def _write(self, transport: Transport) -> None:
        while True:
            while not self._outbox:
                self._filled.clear()
                await self._filled.wait()
            message = self._outbox.popleft()
            self._chars -= len(message.text)
            self._room.set()
            try:
                with anyio.fail_after(STUCK_SECONDS):
                    await transport.write(message)
            except TimeoutError:
                self.let_go(TOO_SLOW, f"read nothing for {STUCK_SECONDS:.0f} s; connect again")
                return
            except (WebSocketDisconnect, RuntimeError, OSError):
                return
