"""What clients hold open has an end, and however many connections there are, others are answered."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psutil
import pytest
import uvicorn

from backend.api.http import connections
from backend.api.http.connections import BoundedConnection, Exchange, most_connections
from tests.support.server import LiveServer, wait_for

#: File descriptors of the small server, and connections that somebody opens to it.
FEW, MANY = 64, 1500


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process have enough file descriptors for the attack."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def half_open(server: LiveServer) -> socket.socket:
    """Open a connection and send the beginning of a request."""
    where = urlsplit(server.url)
    connection = socket.create_connection((where.hostname, where.port), timeout=10)
    connection.sendall(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    return connection


@pytest.mark.usefixtures("many_files")
def test_half_open_connections_beyond_every_limit_keep_nobody_from_an_answer(
    live_server: Callable[..., LiveServer],
) -> None:
    server = live_server(WAN22_WORKER="false")
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (FEW, FEW))
    written = server.log.stat().st_size
    with ExitStack() as attack:
        for number in range(MANY):
            attack.enter_context(half_open(server))
            if number % 300 == 299:
                began = time.monotonic()
                assert httpx2.get(f"{server.url}/live", timeout=10).status_code == 200
                assert httpx2.get(f"{server.url}/api/v1/queue", timeout=10).status_code == 200
                assert time.monotonic() - began < 10, "half-open connections make room"
        assert psutil.Process(server.pid).num_fds() <= FEW
    assert server.log.stat().st_size - written < 1_000_000
    assert server.client.get("/live").status_code == 200


def test_the_body_of_an_answer_follows_its_headers_at_once(live_server: Callable[..., LiveServer]) -> None:
    server = live_server(WAN22_WORKER="false")
    times = []
    for _ in range(100):
        began = time.monotonic()
        assert server.client.get("/live").status_code == 200
        times.append(time.monotonic() - began)
    # Linux acknowledges the first packets of a connection at once, and later ones after 40 ms.
    assert median(times[50:]) < 0.035


HEADER_SECONDS, PAUSE_SECONDS = 0.5, 0.8


class SmallServer:
    """A server in a thread, with deadlines that a test can wait for; it answers when `go` is set."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(self._app, http=BoundedConnection, interface="asgi3", lifespan="off", log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True)
        self._thread.start()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await asyncio.to_thread(self.go.wait)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def connect(self, *, sends: bytes = b"") -> socket.socket:
        connection = socket.create_connection(self._listener.getsockname(), timeout=30)
        connection.sendall(sends)
        return connection

    def stop(self) -> None:
        self.go.set()
        self._server.should_exit = True
        self._thread.join(30)
        self._listener.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallServer]:
    monkeypatch.setattr(connections, "HEADER_SECONDS", HEADER_SECONDS)
    monkeypatch.setattr(connections, "PAUSE_SECONDS", PAUSE_SECONDS)
    server = SmallServer()
    yield server
    server.stop()


REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n"


def is_closed(connection: socket.socket) -> bool:
    """Whether the server ends this connection without a word, before the socket's own deadline."""
    try:
        return connection.recv(100) == b""
    except ConnectionResetError:
        return True


def answer(connection: socket.socket) -> bytes:
    """Read one answer to its end, which may arrive later than its beginning, and return its first line."""
    read = b""
    while not read.endswith((b"\r\n\r\nok", b"Content-Length: 0\r\n\r\n")) and (part := connection.recv(1000)):
        read += part
    return read.partition(b"\r\n")[0]


@pytest.mark.parametrize("sends", [b"", b"GET / HTTP/1.1\r\n", UPLOAD, UPLOAD + b"some"])
def test_what_is_begun_and_not_continued_is_closed(small: SmallServer, sends: bytes) -> None:
    with small.connect(sends=sends) as connection:
        assert is_closed(connection)


def test_headers_that_trickle_in_have_an_end(small: SmallServer) -> None:
    with small.connect(sends=b"GET / HTTP/1.1\r\nX: ") as connection:
        connection.settimeout(0.05)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                connection.sendall(b"x")
                if connection.recv(10) == b"":
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert time.monotonic() < end


def test_a_body_that_comes_slowly_and_steadily_is_taken(small: SmallServer) -> None:
    with small.connect(sends=UPLOAD) as connection:
        for _ in range(20):
            time.sleep(PAUSE_SECONDS / 8)
            connection.sendall(b"x")
        assert answer(connection) == b"HTTP/1.1 200 OK"


def test_an_answer_may_take_its_time_and_an_idle_connection_is_used_again(small: SmallServer) -> None:
    small.go.clear()
    with small.connect(sends=REQUEST) as connection:
        connection.settimeout(3 * HEADER_SECONDS)
        with pytest.raises(TimeoutError):
            connection.recv(10)
        small.go.set()
        connection.settimeout(30)
        assert answer(connection) == b"HTTP/1.1 200 OK"
        time.sleep(2 * HEADER_SECONDS)
        connection.sendall(REQUEST)
        assert answer(connection) == b"HTTP/1.1 200 OK"


def test_where_every_connection_is_being_answered_a_new_one_is_told_to_come_back(
    small: SmallServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "most_connections", lambda: 2)
    small.go.clear()
    with small.connect(sends=REQUEST) as first, small.connect(sends=REQUEST) as second:
        wait_for(lambda: sum(one.answers for one in BoundedConnection._open) == 2, what="two requests")
        with small.connect() as third:
            assert answer(third) == b"HTTP/1.1 503 Service Unavailable"
        small.go.set()
        assert answer(first) == answer(second) == b"HTTP/1.1 200 OK"


def test_the_limit_follows_the_file_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for soft, expected in ((10, 8), (64, 24), (1024, 984), (10**6, 4096), (resource.RLIM_INFINITY, 4096)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert most_connections() == expected


@pytest.mark.parametrize(("content_type", "closed_in_order"), [("text/event-stream", True), ("video/mp4", False)])
def test_an_answer_under_way_ends_when_the_right_of_its_client_does(content_type: str, closed_in_order: bool) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def serve(exchanges: list[Exchange], begun: asyncio.Event) -> None:
        exchange = Exchange("http", send)
        exchanges.append(exchange)

        async def answer_without_end() -> None:
            headers = [(b"content-type", content_type.encode())]
            await exchange.send({"type": "http.response.start", "status": 200, "headers": headers})
            await exchange.send({"type": "http.response.body", "body": b"some", "more_body": True})
            begun.set()
            await asyncio.Event().wait()

        await exchange.run(answer_without_end)

    async def revoke_meanwhile() -> None:
        exchanges: list[Exchange] = []
        begun = asyncio.Event()
        serving = asyncio.create_task(serve(exchanges, begun))
        await asyncio.wait_for(begun.wait(), 30)
        await asyncio.to_thread(exchanges[0].end)
        await asyncio.wait_for(serving, 30)

    asyncio.run(revoke_meanwhile())
    ended = [message for message in sent if message["type"] == "http.response.body" and not message.get("more_body")]
    assert bool(ended) is closed_in_order  # a file that was cut short must not look complete
