"""A crowd on one running task: a real server that is killed in the middle, a real worker, two hundred real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
import websockets

from tests.api.live.support import read
from tests.support.server import LiveServer, wait_for

# Importing torch alone has taken a minute on two busy cores.
pytestmark = pytest.mark.timeout(300)

CLIENTS: Final = 200
STEPS: Final = 40
TOPICS: Final = "topics=generation_progress,alerts,download_progress,fallback_notifications"
#: Messages about events have this field; answers and the state of now do not.
ABOUT: Final = "task_id"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """A server without a worker of its own, so that the server alone can be killed."""
    running = LiveServer(tmp_path / "home", WAN22_WORKER="false")
    yield running
    running.stop()


@pytest.fixture
def worker(server: LiveServer) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | {"WAN22_HOME": str(server.home), "OMP_NUM_THREADS": "1", "WAN22_THREADS": "1"}
    with (server.home.parent / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", "worker"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    yield process
    process.terminate()
    process.wait(60)


class Follower:
    """A client that comes back after its server is gone, and asks for what it missed."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self.seen: list[dict[str, Any]] = []
        self.cursor = 0
        self.connections = 0
        self.gaps = 0

    async def follow(self, task_id: str, connected: asyncio.Semaphore) -> None:
        while not any(one["data"].get("stage") == "completed" for one in self.seen[-3:]):
            with suppress(OSError, websockets.WebSocketException):
                url = f"{self._server.url.replace('http', 'ws', 1)}/ws?{TOPICS}&since={self.cursor}"
                async with websockets.connect(url, open_timeout=60, compression=None, ping_interval=None) as socket:
                    self.connections += 1
                    await self._listen(socket, task_id, connected)
            # What came of an event of which more was to come is sent again.
            self.seen = [one for one in self.seen if one["event_id"] <= self.cursor]
            await asyncio.sleep(0.05)

    async def _listen(self, socket: websockets.ClientConnection, task_id: str, connected: asyncio.Semaphore) -> None:
        while True:
            message = json.loads(await asyncio.wait_for(socket.recv(), 120))
            if message["type"] == "replay_complete":
                connected.release()
            self.gaps += message["type"] == "replay_gap"
            if ABOUT in message["data"]:
                self.seen.append(message)
            if not message.get("more"):
                self.cursor = max(self.cursor, message["event_id"])
                if message["data"].get("stage") == "completed" and message["data"].get(ABOUT) == task_id:
                    return


async def _whole(server: LiveServer) -> list[dict[str, Any]]:
    """Return what a client is sent that asks for everything afterwards."""
    seen: list[dict[str, Any]] = []
    url = f"{server.url.replace('http', 'ws', 1)}/ws?{TOPICS}&since=0"
    async with websockets.connect(url, open_timeout=60) as socket:
        while not seen or seen[-1]["type"] != "replay_complete":
            seen.append(read(await asyncio.wait_for(socket.recv(), 60)))
    return [one for one in seen if ABOUT in one["data"]]


def test_29_two_hundred_clients_miss_nothing_of_a_task_although_their_server_is_killed(
    server: LiveServer, worker: subprocess.Popen[bytes]
) -> None:
    followers = [Follower(server) for _ in range(CLIENTS)]

    async def crowd() -> None:
        connected = asyncio.Semaphore(0)
        task_id = await asyncio.to_thread(server.submit, steps=STEPS, num_frames=9)
        clients = [asyncio.create_task(one.follow(task_id, connected)) for one in followers]
        for _ in clients:
            await asyncio.wait_for(connected.acquire(), 120)
        first = followers[0].seen
        middle = lambda: first and first[-1]["data"].get("current_step", 0) >= STEPS // 4  # noqa: E731
        await asyncio.to_thread(wait_for, middle, what="the middle of the task")
        server.kill()
        server.client.close()
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(asyncio.gather(*clients), 120)

    asyncio.run(crowd())
    whole = asyncio.run(_whole(server))
    task_id = whole[0]["data"][ABOUT]
    assert {one["event_id"] for one in whole} == {
        one["id"] for one in server.client.get(f"/api/v1/queue/{task_id}/events").json()["events"]
    }
    for one in followers:
        assert one.seen == whole
        assert one.connections >= 2
        assert one.gaps == 0
    assert worker.poll() is None
