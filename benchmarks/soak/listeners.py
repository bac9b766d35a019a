"""WebSocket clients that come, listen, go and come back, as browsers do; one thread for all of them."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from typing import Final

import websockets

TOPICS: Final = ("generation_progress", "queue_updates", "alerts", "system_stats")
#: How long a client stays, in seconds.
_STAYS: Final = (10.0, 60.0)
#: Pause before one that lost its server tries again, in seconds.
_RETRY_SECONDS: Final = 1.0


class Listeners:
    """A number of clients."""

    def __init__(self, url: str, count: int, seed: int) -> None:
        """Prepare; `url` is that of the server."""
        self._url = url.replace("http", "ws", 1) + "/ws"
        self._count = count
        self._chance = random.Random(f"listeners {seed}")  # noqa: S311 - reproducible, not secret
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="listeners", daemon=True)
        self._stopping = threading.Event()
        self.messages = 0
        self.connections = 0

    def start(self) -> None:
        """Connect all of them."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnect all of them."""
        self._stopping.set()
        self._thread.join()

    async def _run(self) -> None:
        clients = [asyncio.create_task(self._listen()) for _ in range(self._count)]
        await asyncio.to_thread(self._stopping.wait)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _listen(self) -> None:
        seen: int | None = None  # the newest event; a client that comes back asks for what it missed
        while True:
            try:
                async with websockets.connect(self._url) as socket:
                    self.connections += 1
                    for topic in TOPICS:
                        data = {"topic": topic} | ({} if seen is None else {"after_event": seen})
                        await socket.send(json.dumps({"type": "subscribe", "data": data}))
                    async with asyncio.timeout(self._chance.uniform(*_STAYS)):
                        async for message in socket:
                            self.messages += 1
                            seen = json.loads(message).get("event_id", seen)
            except (OSError, TimeoutError, websockets.WebSocketException):
                await asyncio.sleep(self._chance.uniform(0.0, _RETRY_SECONDS))
