"""What commands follow goes on after its server was killed, on another port and after the last event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from backend.commands import client as client_module
from backend.commands.client import EVENTS, ApiClient
from backend.core.settings import load_settings
from tests.commands.support import invoke
from tests.support.server import LiveServer, wait_for


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[httpx2.Request]:
    """Every request of clients that are opened from now on."""
    requests: list[httpx2.Request] = []
    opened = client_module._open_client

    def open_client(url: str, headers: dict[str, str]) -> httpx2.Client:
        client = opened(url, headers)
        client.event_hooks = {"request": [requests.append]}
        return client

    monkeypatch.setattr(client_module, "_open_client", open_client)
    return requests


def test_a_task_is_followed_over_the_death_of_its_server(
    live_server: Callable[..., LiveServer], asked: list[httpx2.Request]
) -> None:
    server = live_server(WAN22_WORKER="false")
    task_id, told, seen = server.submit(), list[str](), list[dict[str, Any]]()
    client = ApiClient(server.url, load_settings(), find=lambda: server.url)

    def follow() -> None:
        for task in client.follow(task_id, told.append):
            seen.append(task)

    follower = threading.Thread(target=follow)
    follower.start()
    wait_for(lambda: seen, what="the first state")
    before = server.url
    server.kill()
    server.client.close()
    wait_for(lambda: any("is gone" in one for one in told), what="the sentence")
    server.start()
    wait_for(lambda: server.url in client.url, what="the new address")
    assert server.url != before
    server.client.post(f"/api/v1/queue/{task_id}/cancel", json={})
    follower.join(60)
    client.close()
    assert [seen[0]["status"], seen[-1]["status"]] == ["pending", "cancelled"]
    assert sum("is gone" in one for one in told) == 1
    streams = [one for one in asked if one.url.path == EVENTS]
    assert "Last-Event-ID" not in streams[0].headers
    assert int(streams[-1].headers["Last-Event-ID"]) > 0


def test_waiting_asks_little(idle: LiveServer, asked: list[httpx2.Request]) -> None:
    task_id = idle.submit()
    client = ApiClient(idle.url, load_settings())
    began = time.monotonic()
    states = client.follow(task_id)
    for _ in range(3):
        next(states)
    idle.client.post(f"/api/v1/queue/{task_id}/cancel", json={})
    assert [task["status"] for task in states][-1] == "cancelled"
    looks = [one for one in asked if one.url.path == f"/api/v1/queue/{task_id}"]
    assert len(looks) <= 6 + (time.monotonic() - began)
    client.close()


def test_the_queue_is_watched_over_the_death_of_its_server(live_server: Callable[..., LiveServer]) -> None:
    server = live_server(WAN22_WORKER="false")
    task_id = server.submit()
    done: list[Any] = []
    watching = threading.Thread(target=lambda: done.append(invoke("queue", "watch", home=server.home)))
    watching.start()
    wait_for(lambda: server.client.get("/api/v1/ws/stats").json()["active_connections"], what="the watcher")
    server.kill()
    server.client.close()
    server.start()
    wait_for(lambda: server.client.get("/api/v1/ws/stats").json()["active_connections"], what="its return")
    server.client.post(f"/api/v1/queue/{task_id}/cancel", json={})
    watching.join(60)
    assert done[0].returncode == 0, done[0].stderr
    assert "cancelled" in done[0].stdout
    assert "is gone" in done[0].stderr
