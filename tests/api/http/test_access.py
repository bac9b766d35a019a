"""A browser on another machine: with a session cookie, a subprotocol of the socket, and signed links."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from backend.api.live import manager
from backend.core.access import tokens
from backend.core.access.tokens import SESSION_COOKIE
from tests.api.support import GOOD, SOCKET, SUBMIT, Served, assert_error

KEY = "schlüssel with spaces / and signs?"
BEARER = {"Authorization": f"Bearer {KEY}".encode()}


@pytest.fixture
def locked(serve: Callable[..., Served]) -> Served:
    return serve(api_key=KEY)


def test_a_session_opens_pictures_videos_and_the_socket(locked: Served) -> None:
    locked_id = _finished(locked)
    client = locked.client
    assert_error(client.post("/api/v1/session"), 401)
    response = client.post("/api/v1/session", headers=BEARER)
    cookie = response.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=strict", "path=/", "max-age=43200"))
    assert KEY not in cookie
    assert client.get("/api/v1/queue").status_code == 200
    assert client.get(f"/api/v1/outputs/{locked_id}/video").status_code == 200
    with client.websocket_connect(SOCKET) as socket:
        assert socket.receive_json()["type"] == "connection_established"
    foreign = {"Origin": "https://evil.example"}
    assert_error(client.post(SUBMIT, json=GOOD, headers=foreign), 403)
    client.delete("/api/v1/session")
    assert_error(client.get("/api/v1/queue"), 401)


def test_a_session_ends_and_cannot_be_made_up(locked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    client = locked.client
    client.post("/api/v1/session", headers=BEARER)
    value = client.cookies[SESSION_COOKIE]
    holder, expires, digest = value.split(".")
    client.cookies.clear()
    for forged in (
        f"{holder}.{int(expires) + 9}.{digest}",
        f"local.{expires}.{digest}",
        f"{holder}.{expires}.",
        digest,
        "",
        f"{holder}.{'9' * 40}.x",
        f"{holder}.{expires}.{'é' * 64}",
    ):
        sent = {"Cookie": f"{SESSION_COOKIE}={forged}".encode()}
        assert client.get("/api/v1/queue", headers=sent).status_code == 401
    sent = {"Cookie": f"{SESSION_COOKIE}={value}"}
    assert client.get("/api/v1/queue", headers=sent).status_code == 200
    now = time.time()
    monkeypatch.setattr(tokens.time, "time", lambda: now + tokens.SESSION_SECONDS + 1)
    assert client.get("/api/v1/queue", headers=sent).status_code == 401


def _offer(key: str) -> list[str]:
    return ["wan22", "wan22.key." + base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")]


def test_a_socket_brings_the_key_as_a_subprotocol(locked: Served) -> None:
    with locked.client.websocket_connect(SOCKET, subprotocols=_offer(KEY)) as socket:
        assert socket.accepted_subprotocol == "wan22"
        assert socket.receive_json()["type"] == "connection_established"
    for offered in (_offer("wrong"), ["wan22"], ["wan22.key.%%%"], []):
        with pytest.raises(WebSocketDenialResponse) as refused:
            locked.client.websocket_connect(SOCKET, subprotocols=offered).__enter__()
        assert refused.value.status_code == 401


def test_links_to_media_open_without_the_key_for_a_while(locked: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    task_id = _finished(locked)
    video = locked.client.get(f"/api/v1/outputs/{task_id}", headers=BEARER).json()
    links = [video[name] for name in ("video_url", "download_url", "thumbnail_url", "thumbnail_path")]
    for link in links:
        assert locked.client.get(link).status_code == 200
        assert locked.client.head(link).status_code == 200
        assert_error(locked.client.get(urlsplit(link).path), 401)
    part = locked.client.get(links[0], headers={"Range": "bytes=0-9"})
    assert (part.status_code, len(part.content)) == (206, 10)
    # A signature opens one path, and only for reading.
    query = urlsplit(links[0]).query
    assert_error(locked.client.get(f"/api/v1/queue?{query}"), 401)
    assert_error(locked.client.delete(f"/api/v1/outputs/{task_id}?{query}"), 401)
    now = time.time()
    monkeypatch.setattr(tokens.time, "time", lambda: now + tokens.LINK_SECONDS + 601)
    assert_error(locked.client.get(links[0]), 401)


def test_live_messages_carry_links_that_open(locked: Served) -> None:
    with locked.client.websocket_connect(SOCKET, subprotocols=_offer(KEY)) as socket:
        task_id = _finished(locked)
        message = socket.receive_json()
        while message["data"].get("output_path") is None:
            message = socket.receive_json()
        assert task_id in message["data"]["output_path"]
        assert locked.client.get(message["data"]["output_path"]).status_code == 200


def test_without_a_key_links_are_plain(served: Served) -> None:
    video = served.client.get(f"/api/v1/outputs/{served.complete_one()}").json()
    assert "?" not in video["video_url"]
    response = served.client.post("/api/v1/session")
    assert response.status_code == 200
    assert "set-cookie" not in response.headers


def test_a_socket_too_many_is_told_when_to_come_back(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "MAX_CONNECTIONS", 1)
    client: TestClient = served.client
    with client.websocket_connect(SOCKET), pytest.raises(WebSocketDenialResponse) as refused:
        client.websocket_connect(SOCKET).__enter__()
    assert refused.value.headers["retry-after"] == "5"
    assert_error(refused.value, 503, "too_many_connections")


def _finished(locked: Served) -> str:
    response = locked.client.post(SUBMIT, json=GOOD, headers=BEARER)
    locked.complete(locked.claim())
    return str(response.json()["task_id"])
