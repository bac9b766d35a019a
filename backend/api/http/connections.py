"""Gives everything that a client can hold open an end: headers, bodies, answers, and the number of connections.

A server that has no file descriptor left answers nobody. So there are fewer connections than descriptors, and when one
more comes, the oldest that is not being answered makes room for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import h11
import structlog
from starlette.datastructures import Headers
from starlette.types import Message, Send
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

#: How long a client may take to send the headers of a request, and to pause within a body, in seconds.
HEADER_SECONDS, PAUSE_SECONDS = 20.0, 60.0
#: File descriptors that are not for connections: the database, files, the pipes of the worker.
RESERVED: Final = 40
FEWEST, MOST = 8, 4096
#: How long a client may take to read the rest of a connection that the server has closed, in seconds.
UNREAD_SECONDS: Final = 60.0
#: Connections that are accepted at a time, before one of them can make room for another.
ACCEPTED_AT_ONCE: Final = 8
_SAY_SECONDS: Final = 60.0
_STREAM: Final = "text/event-stream"
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

log = structlog.get_logger(__name__)


def raise_descriptor_limit() -> None:
    """Let this process have as many file descriptors as it may; services often start with 1,024 of them."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """Return how many connections there may be now; an operator may change the limit of a running process."""
    if resource is None:
        return MOST
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else max(FEWEST, min(MOST, soft - RESERVED))


def say_once_a_minute(loop: asyncio.AbstractEventLoop) -> None:
    """Let the loop report errors of accepting connections briefly: there can be thousands of them in a second."""
    said_at = float("-inf")

    def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal said_at
        if "socket.accept()" not in str(context.get("message")):
            loop.default_exception_handler(context)
        elif loop.time() - said_at >= _SAY_SECONDS:
            said_at = loop.time()
            log.error("http.no_descriptors", reason=str(context.get("exception")))

    loop.set_exception_handler(report)


class BoundedConnection(H11Protocol):
    """One HTTP connection of uvicorn, with deadlines."""

    _open: dict[BoundedConnection, None] = {}  # noqa: RUF012 - of the process; the oldest first

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._waits_for_headers = False

    @property
    def answers(self) -> bool:
        """Whether a request has arrived in full and is being answered, or its body is on its way."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, or refuse it where every other one is being answered."""
        super().connection_made(transport)
        self._open[self] = None
        self._watch()
        while len(self._open) > most_connections():
            idle = next((one for one in self._open if not one.answers and one is not self), None)
            if idle is None:
                transport.write(_FULL)
            (idle or self)._end()
            if idle is None:
                return

    def pause_writing(self) -> None:
        """Note that the client reads more slowly than it is answered."""
        super().pause_writing()
        end_unread(self.loop, self.transport)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the client."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over; WebSockets are counted and bounded by themselves."""
        self._forget()
        super().handle_websocket_upgrade(event)

    def _watch(self) -> None:
        """Set the deadline for what the client has to send next."""
        state = self.conn.their_state
        if self.transport.is_closing() or self not in self._open:
            return
        if state is h11.IDLE and not self._waits_for_headers:
            # Set once, not with every byte: headers that trickle in have an end, too.
            self._waits_for_headers = True
            self._arm(HEADER_SECONDS)
        elif state is h11.SEND_BODY:
            self._waits_for_headers = False
            self._arm(PAUSE_SECONDS, self._end_body)
        elif state is not h11.IDLE:
            self._waits_for_headers = False
            self._disarm()

    def on_response_complete(self) -> None:
        """End the answer; the next request of this connection has a deadline as soon as it begins."""
        self._waits_for_headers = False
        super().on_response_complete()

    def _arm(self, seconds: float, end: Callable[[], None] | None = None) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, end or self._end)

    def _end_body(self) -> None:
        """End a body that does not go on, unless it is this server that does not read it now."""
        if self.flow.read_paused:
            self._arm(PAUSE_SECONDS, self._end_body)
        else:
            self._end()

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        self._forget()
        self.transport.close()

    def _forget(self) -> None:
        self._disarm()
        self._open.pop(self, None)


class Exchange:
    """One socket, or one answer, that ends when the right of its client does."""

    def __init__(self, kind: str, send: Send) -> None:
        """`kind` is that of the ASGI scope. Made on the event loop's thread, in the task that serves the client."""
        self._socket = kind == "websocket"
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._begun = self._done = self._over = self._streams = False

    async def send(self, message: Message) -> None:
        """Pass a message on, and note how far the answer is."""
        kind = message["type"]
        self._begun = self._begun or kind in ("http.response.start", "websocket.accept")
        self._done = self._done or kind == "websocket.close"
        if kind == "http.response.start":
            self._streams = Headers(raw=message.get("headers", [])).get("content-type", "").startswith(_STREAM)
        elif kind == "http.response.body" and not message.get("more_body", False):
            self._done = True
        await self._send(message)

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Serve the client until the answer is complete, or `end` was called."""
        try:
            await work()
        except asyncio.CancelledError:
            if not self._over or self._task is None:
                raise
            self._task.uncancel()
            if self._socket:
                await self._send({"type": "websocket.close", "code": 1008, "reason": "the API key is no longer valid"})
            elif self._streams:
                await self._send({"type": "http.response.body", "body": b""})
        finally:
            self._done = True

    def end(self) -> None:
        """End what has begun to be answered; what is about to be answered is left to finish. Any thread may call."""
        with suppress(RuntimeError):  # the loop has ended, and with it the exchange
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._begun and not self._done and not self._over and self._task is not None:
            self._over = True
            self._task.cancel()


class BoundedSocket(WebSocketsSansIOProtocol):
    """One WebSocket of uvicorn whose client may stop to read."""

    async def send(self, message: ASGISendEvent) -> None:
        """Send a message once the client reads; the last one goes at once, so that it is there when the client does."""
        if message["type"] == "websocket.close" and self.handshake_complete:
            self.writable.set()
            end_unread(self.loop, self.transport)
        await super().send(message)


def end_unread(loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
    """Drop a connection in a while if it is closed by then and its client still has not read it to the end."""

    def look() -> None:
        if transport.is_closing() and transport.get_write_buffer_size():
            transport.abort()
        elif transport.get_write_buffer_size():
            loop.call_later(UNREAD_SECONDS, look)

    loop.call_later(UNREAD_SECONDS, look)
