"""A real server with a real worker and model, seen by real WebSocket clients."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.server import FINISHED, LiveServer

# Importing torch alone has taken a minute on two busy cores.
pytestmark = pytest.mark.timeout(300)

PROGRESS = "generation_progress"
SECONDS = 150.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server for all tests here: its worker needs its time to start."""
    running = LiveServer(tmp_path_factory.mktemp("live") / "home")
    yield running
    running.stop()


class Client:
    """A WebSocket client in a process other than the server's."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[dict[str, Any]] = []

    def next(self, seconds: float = SECONDS) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.socket.recv(timeout=seconds))
        self.seen.append(message)
        return message

    def until(self, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while True:
            message = self.next(max(0.1, deadline - time.monotonic()))
            if done(message):
                return message

    def subscribe(self, topic: str, **data: Any) -> None:
        self.socket.send(json.dumps({"type": "subscribe", "data": {"topic": topic, **data}}))
        self.until(lambda message: message["type"] == "subscription_response")

    def progress(self, task_id: str) -> list[float]:
        return [m["data"]["progress"] for m in self.seen if m["type"] == PROGRESS and m["data"]["task_id"] == task_id]


def open_socket(server: LiveServer, path: str = "/ws", **options: Any) -> ClientConnection:
    # Without a bound the library reads on while a test looks elsewhere, and so answers the server's pings.
    return connect(server.url.replace("http", "ws", 1) + path, open_timeout=30, max_queue=None, **options)


def finished(task_id: str) -> Callable[[dict[str, Any]], bool]:
    def check(message: dict[str, Any]) -> bool:
        data = message["data"]
        return message["type"] == PROGRESS and data["task_id"] == task_id and data["status"] in FINISHED

    return check


def told_the_end_of(task_id: str) -> Callable[[dict[str, Any]], bool]:
    """Recognise the last message that a completed task causes."""
    return lambda message: (
        message["type"] == "generation_stage" and _is(message, task_id) and message["data"]["stage"] == "completed"
    )


def test_ten_tasks_run_in_order_and_a_late_client_agrees(server: LiveServer) -> None:
    with open_socket(server) as first_socket, ThreadPoolExecutor(10) as threads:
        first = Client(first_socket)
        first.subscribe(PROGRESS)
        sent = threads.map(lambda seed: server.submit(seed=seed, steps=6, num_frames=9), range(10))
        task_ids = set(sent)
        assert len(task_ids) == 10
        order = [task["id"] for task in reversed(server.client.get("/api/v1/queue").json()["tasks"])]
        order = [task_id for task_id in order if task_id in task_ids]
        first.until(lambda m: m["type"] == PROGRESS and m["data"]["task_id"] == order[2] and m["data"]["progress"] > 0)

        with open_socket(server, "/api/v1/ws") as second_socket:
            late = Client(second_socket)
            late.subscribe(PROGRESS)
            late.until(told_the_end_of(order[-1]))
        first.until(told_the_end_of(order[-1]))

    started = [m["task_id"] for m in first.seen if m["type"] == "task_update" and m["status"] == "processing"]
    ended = [m["task_id"] for m in first.seen if m["type"] == "task_update" and m["status"] == "completed"]
    assert started == ended == order
    for task_id in order:
        steps = first.progress(task_id)
        assert steps == sorted(steps)
        assert (steps[0], steps[-1]) == (0.0, 100.0)
        assert len(set(steps)) > 4
        stages = [m["data"]["stage"] for m in first.seen if m["type"] == "generation_stage" and _is(m, task_id)]
        assert stages[0] == "generation_started"
        assert stages[-1] == "completed"
        assert stages.index("generating") < stages.index("post_processing")
        late_steps = late.progress(task_id)
        assert late_steps == sorted(late_steps)

    # From its first live message on, the late client saw exactly what the first one saw.
    live = [m for m in late.seen if not m["data"].get("snapshot") and m["type"].endswith("progress")]
    since = live[0]["event_id"]
    assert live == [m for m in first.seen if m["type"].endswith("progress") and m["event_id"] >= since]
    # And its snapshot named every task that had not ended by then, each as it stood.
    snapshot = [m for m in late.seen if m["data"].get("snapshot") and m["type"] == PROGRESS]
    known = _statuses_before(first, since)
    assert {m["data"]["task_id"]: m["data"]["status"] for m in snapshot} == {
        task_id: status for task_id, status in known.items() if status not in FINISHED
    }
    ids = [m["event_id"] for m in first.seen]
    assert ids == sorted(ids)
    shown = server.client.get("/api/v1/outputs").json()["videos"]
    assert all(video["placeholder"] for video in shown)
    videos = {video["id"] for video in shown}
    assert task_ids <= videos


def _is(message: dict[str, Any], task_id: str) -> bool:
    return bool(message["data"].get("task_id") == task_id)


def _statuses_before(client: Client, event_id: int) -> dict[str, str]:
    statuses: dict[str, str] = {}
    for message in client.seen:
        if message["type"] == PROGRESS and message["event_id"] < event_id:
            statuses[message["data"]["task_id"]] = message["data"]["status"]
    return statuses


def test_a_running_task_is_cancelled_and_told_so(server: LiveServer) -> None:
    with open_socket(server) as socket:
        client = Client(socket)
        client.subscribe(PROGRESS)
        task_id = server.submit(steps=100, num_frames=17, resolution="128x128")
        client.until(lambda m: _is(m, task_id) and m["data"].get("current_step", 0) > 0)
        answer = server.client.post(f"/api/v1/queue/{task_id}/cancel", json={})
        assert answer.status_code == 200
        last = client.until(finished(task_id))
    assert last["data"]["status"] == "cancelled"
    steps = client.progress(task_id)
    assert steps == sorted(steps)
    assert steps[-1] < 100
    assert server.task(task_id)["status"] == "cancelled"
    assert server.client.get(f"/api/v1/outputs/{task_id}").status_code == 404


def test_a_preview_appears_while_it_runs(server: LiveServer) -> None:
    with open_socket(server) as socket:
        client = Client(socket)
        client.subscribe(PROGRESS)
        task_id = server.submit(steps=60, num_frames=17, resolution="128x128")
        client.until(lambda m: _is(m, task_id) and m["data"].get("preview_step") is not None)
        picture = server.client.get(f"/api/v1/queue/{task_id}/preview")
        assert picture.status_code == 200
        assert picture.content.startswith(b"\xff\xd8\xff")
        shown = server.task(task_id)
        assert shown["status"] != "processing" or shown["preview_url"] == f"/api/v1/queue/{task_id}/preview"
        server.client.post(f"/api/v1/queue/{task_id}/cancel", json={})
        client.until(finished(task_id))


def test_statistics_come_on_their_own(server: LiveServer) -> None:
    with open_socket(server) as socket:
        client = Client(socket)
        client.subscribe("system_stats")
        moments = [client.until(lambda m: m["type"] == "system_stats_update")["data"]["timestamp"] for _ in range(3)]
    assert all(earlier < later for earlier, later in pairwise(moments))


def test_foreign_pages_get_no_socket(server: LiveServer) -> None:
    for origin in ("https://evil.example", "null"):
        with pytest.raises(InvalidStatus) as refused:
            open_socket(server, origin=origin)
        assert refused.value.response.status_code == 403
        assert json.loads(refused.value.response.body)["error"] == "forbidden"


def test_large_bodies_are_refused_over_a_real_connection(server: LiveServer) -> None:
    before = server.client.get("/api/v1/queue").json()["total_tasks"]
    response = server.client.post(
        "/api/v1/generation/submit",
        content=b'{"prompt": "' + b"x" * 2_000_000,
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 413
    assert response.json()["error"] == "body_too_large"
    assert server.client.get("/api/v1/queue").json()["total_tasks"] == before


def test_who_comes_back_after_a_crash_of_the_server_misses_nothing(
    live_server: Callable[..., LiveServer],
) -> None:
    server = live_server(WAN22_WORKER="false")
    with open_socket(server) as socket:
        client = Client(socket)
        client.subscribe(PROGRESS)
        first = server.submit()
        seen = client.until(lambda m: m["type"] == PROGRESS and _is(m, first))["event_id"]
    second = server.submit()
    server.kill()
    server.client.close()
    server.start()
    assert server.task(second)["status"] == "pending"
    with open_socket(server) as socket:
        client = Client(socket)
        client.subscribe(PROGRESS, after_event=seen)
        third = server.submit()
        client.until(lambda m: m["type"] == PROGRESS and _is(m, third))
    told = defaultdict(list)
    for message in client.seen:
        if message["type"] == PROGRESS:
            told[message["data"]["task_id"]].append(message["data"]["status"])
    assert told == {second: ["pending"], third: ["pending"]}
