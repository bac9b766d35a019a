"""A real server in this process, its clients, and a check of every live message against its documented shape."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import uvicorn
import websockets
from pydantic import BaseModel

from backend.api.http.connections import BoundedConnection, BoundedSocket
from backend.api.live.messages import CONTROL, FOR_ALL, TOPICS, VERSION
from backend.app import create_app
from backend.core.settings import load_settings
from tests.api.support import Played
from tests.support.server import wait_for

SHAPES: dict[str, type[BaseModel]] = {
    kind.name: type(
        f"Strict{kind.name}", (kind.shape,), {"model_config": {"extra": "allow" if kind.name == "alert" else "forbid"}}
    )
    for kind in (*CONTROL, *FOR_ALL, *(one for kinds in TOPICS.values() for one in kinds))
}

DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[3] / "docs" / "asyncapi.json").read_text())
PAYLOADS = {
    kind: jsonschema_rs.validator_for(message["payload"] | {"components": DOCUMENT["components"]})
    for kind, message in DOCUMENT["components"]["messages"].items()
}


def checked(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message after comparing it with its shape and its description: no field may be missing or unknown."""
    kind, data = message["type"], message["data"]
    assert message["version"] == VERSION
    assert isinstance(message["event_id"], int)
    SHAPES[kind].model_validate(data)
    PAYLOADS[kind].validate(message)
    nulls = {name for name, value in data.items() if value is None}
    assert nulls <= {"estimated_time_remaining"}, message
    known = {"type", "version", "event_id", "data", "more"}
    flat = kind in {one.name for one in FOR_ALL}
    assert message.keys() - known == (data.keys() if flat else set()), message
    return message


class Server(Played):
    """The app on a real socket, served by a thread, on a home that can be served again after `stop`."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.app = create_app(load_settings(home=home, worker=False, poll_seconds=0.02, **settings))
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            self.app,
            log_config=None,
            http=BoundedConnection,
            ws=BoundedSocket,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._serve, args=(listener,), daemon=True)
        self._thread.start()
        wait_for(lambda: self._server.started, what="the server")
        self.client = httpx2.Client(base_url=self.url, timeout=60.0)

    def _serve(self, listener: socket.socket) -> None:
        async def run() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[listener])

        asyncio.run(run())

    def dismiss(self) -> None:
        """Disconnect the clients of live updates, as `wan22 serve` does first at a signal."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self.services.sockets.stop(), self._loop).result(60)

    def stop(self) -> None:
        """End as `wan22 serve` does at a signal."""
        self.client.close()
        self.dismiss()
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()

    @asynccontextmanager
    async def socket(self, query: str = "", **options: Any) -> AsyncIterator[websockets.ClientConnection]:
        """Connect a WebSocket client."""
        url = self.url.replace("http", "ws", 1) + "/ws" + query
        async with websockets.connect(url, open_timeout=60, compression=None, **options) as client:
            yield client


def read(text: str | bytes) -> dict[str, Any]:
    """Decode and check a message."""
    return checked(json.loads(text))
