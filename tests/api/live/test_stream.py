"""The messages of the WebSocket as server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from backend.api.live import manager
from tests.api.live.support import Server, checked
from tests.api.live.test_replay import of_events
from tests.api.support import assert_error

PROGRESS = "generation_progress"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("stream") / "home")
    yield server
    server.stop()


class Stream:
    """One event stream, read as a browser reads it."""

    def __init__(self, response: httpx2.Response) -> None:
        self._lines = response.iter_lines()
        self.last_id: str | None = None
        self.comments = 0

    def next(self) -> dict[str, Any]:
        """Return the next event."""
        data = kind = ""
        for line in self._lines:
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            elif name == "id":
                self.last_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                data = value
            elif not line and data:
                message: dict[str, Any] = json.loads(data)
                assert message["type"] == kind
                return message
        raise AssertionError("the stream has ended")

    def rest(self) -> Iterator[str]:
        """Yield what is left of the stream, up to its end."""
        return (line for line in self._lines if line)

    def until(self, kind: str, **data: Any) -> list[dict[str, Any]]:
        """Return everything up to the message of this type with these values, and the rest of its event."""
        seen: list[dict[str, Any]] = []
        while not seen or seen[-1]["type"] != kind or not data.items() <= seen[-1]["data"].items():
            seen.append(checked(self.next()))
        while seen[-1].get("more"):
            seen.append(checked(self.next()))
        return seen


@contextmanager
def streaming(server: Server, query: str = "", **headers: str) -> Iterator[Stream]:
    with server.client.stream("GET", f"/api/v1/events{query}", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        yield Stream(response)


def test_a_stream_has_what_a_socket_has_and_continues_where_it_broke_off(server: Server) -> None:
    with streaming(server, f"?topics={PROGRESS},queue_updates") as stream:
        stream.until("subscription_response", topic="queue_updates")
        task_id = server.complete_one()
        whole = stream.until("detailed_generation_progress", stage="completed", task_id=task_id)
        middle = next(m["event_id"] for m in whole if m["type"] == "generation_stage")
    # A browser repeats the address it began with, and adds the header.
    with streaming(server, f"?topics={PROGRESS}&since=0", **{"Last-Event-ID": str(middle)}) as back:
        missed = back.until("replay_complete", since=middle)
        assert of_events(missed) == [m for m in of_events(whole) if m["event_id"] > middle]
        assert back.last_id == str(max(m["event_id"] for m in of_events(whole)))
    assert server.client.get("/api/v1/ws/stats").json()["subscription_counts"][PROGRESS] == 0


def test_a_silent_stream_shows_that_it_lives_and_takes_the_number_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager, "HEARTBEAT_SECONDS", 0.05)
    server = Server(tmp_path / "home")
    try:
        with streaming(server, "?topics=alerts") as stream:
            stream.until("subscription_response")
            server.complete_one()
            stream.until("task_update", status="completed")
            while stream.comments < 3:
                server.submit()
                stream.until("task_update")
            # A server that stops ends the stream at once, and says so.
            server.dismiss()
            last = stream.next()
            while last["type"] != "connection_closing":
                last = stream.next()
            assert last["data"] == {"code": 1001, "reason": "the server stops"}
            assert list(stream.rest()) == []
    finally:
        server.stop()


def test_a_stream_is_guarded_as_a_socket_is(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = server.client.get("/api/v1/events", headers={"Origin": "http://evil.example"})
    assert_error(refused, 403, "forbidden")
    assert server.client.head("/api/v1/events").headers["content-type"].startswith("text/event-stream")
    assert_error(server.client.get("/api/v1/events?foo=1"), 422)
    assert_error(server.client.get("/api/v1/events", headers={"Last-Event-ID": "x"}), 422, "invalid_request")
    monkeypatch.setattr(manager, "MAX_CONNECTIONS", 0)
    full = server.client.get("/api/v1/events")
    assert_error(full, 503, "too_many_connections")
    assert full.headers["retry-after"] == "5"
