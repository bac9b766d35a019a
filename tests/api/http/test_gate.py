"""Who may talk to the server: host names, origins, the key. Walked over every route, so none can be forgotten."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import WebSocketDenialResponse

from backend.api.http.pages import ICON, PAGES
from tests.api.support import ADDRESS, GOOD, SOCKET, SUBMIT, Served, assert_error

KEY = "correct horse battery staple"
PROBES = {"/live", "/ready"}
PUBLIC = {*PAGES, ICON, "/live", "/ready", "/docs", "/openapi.json"}
STREAMS = {"/api/v1/events"}  # they do not end
CHANGING = {"POST", "PUT", "PATCH", "DELETE"}


def routes(served: Served) -> list[tuple[str, str]]:
    """Return method and path of everything the app answers, legacy paths included, with ids filled in."""
    found = [
        (method, re.sub(r"\{[^}]*\}", "x", path)) for path, methods in served.paths().items() for method in methods
    ]
    assert len(found) > 40
    return found


def test_a_foreign_host_name_is_refused_on_every_route(shared: Served) -> None:
    before = shared.count()
    for method, path in routes(shared):
        if path in PROBES:
            continue
        response = shared.client.request(method, path, headers={"Host": "evil.example"})
        assert response.status_code == 403, (method, path)
        if method != "HEAD":
            assert_error(response, 403, "forbidden")
    assert shared.count() == before


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b", "127.0.0.1:8000:1", "[::1", "a/b"],
)
def test_a_host_name_that_is_not_ours_is_refused(shared: Served, host: str) -> None:
    assert shared.client.get("/api/v1/health", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.1:9", "[::1]:8000", "10.0.0.5"])
def test_this_machine_is_answered_under_its_own_names(shared: Served, host: str) -> None:
    assert shared.client.get("/api/v1/health", headers={"Host": host}).status_code == 200


def test_the_operator_can_add_host_names(serve: Callable[..., Served]) -> None:
    served = serve(allowed_hosts=["Box.local"])
    assert served.client.get("/api/v1/health", headers={"Host": "box.local:8000"}).status_code == 200
    assert served.client.get("/api/v1/health", headers={"Host": "other.local"}).status_code == 403


def test_forwarded_headers_do_not_help(shared: Served) -> None:
    headers = {"Host": "evil.example", "X-Forwarded-Host": "localhost", "X-Forwarded-For": "127.0.0.1"}
    assert shared.client.get("/api/v1/health", headers=headers).status_code == 403
    overridden = {"X-HTTP-Method-Override": "DELETE"}
    assert shared.client.get("/api/v1/queue", headers=overridden).json()["total_tasks"] == shared.count()


@pytest.mark.parametrize("host", ["balancer.internal", "10.1.2.3:8080", "pod-7f9"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_probes_are_answered_under_any_host_name(shared: Served, host: str, method: str) -> None:
    assert shared.client.request(method, "/live", headers={"Host": host}).status_code == 200
    assert shared.client.request(method, "/ready", headers={"Host": host}).status_code == 503


FOREIGN = [
    "null",
    "https://evil.example",
    "http://127.0.0.1",  # another port is another origin
    "http://127.0.0.1:8001",
    "http://127.0.0.1:8000.evil.example",
    "http://127.0.0.1:8000@evil.example",
    "file://",
    "127.0.0.1:8000",
    "http://[",
    "",
]


@pytest.mark.parametrize("origin", FOREIGN)
def test_pages_of_other_origins_change_nothing(shared: Served, origin: str) -> None:
    before = shared.count()
    for method, path in routes(shared):
        if method in CHANGING:
            response = shared.client.request(method, path, headers={"Origin": origin}, json=GOOD)
            assert_error(response, 403, "forbidden")
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        shared.client.websocket_connect(SOCKET, headers={"Origin": origin}),
    ):
        pass
    assert refused.value.status_code == 403
    assert shared.count() == before


def test_pages_of_this_server_may(served: Served) -> None:
    headers = {"Origin": ADDRESS}
    assert served.client.post(SUBMIT, json=GOOD, headers=headers).status_code == 200
    with served.client.websocket_connect(SOCKET, headers=headers) as socket:
        assert socket.receive_json()["type"] == "connection_established"
    assert "access-control-allow-origin" not in served.client.get("/live", headers=headers).headers


def test_nobody_is_asked_in_by_default(shared: Served) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    response = shared.client.options(SUBMIT, headers=headers)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]


def test_configured_origins_are_asked_in(serve: Callable[..., Served]) -> None:
    page = "http://localhost:3000"
    served = serve(cors_origins=[page], api_key=KEY)
    asked = {"Origin": page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    preflight = served.client.options(SUBMIT, headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == page
    refused = served.client.options(SUBMIT, headers=asked | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in refused.headers
    headers = {"Origin": page, "Authorization": f"Bearer {KEY}"}
    response = served.client.post(SUBMIT, json=GOOD, headers=headers)
    assert response.status_code == 200
    assert "X-Request-ID" in response.headers["access-control-expose-headers"]
    # A page must be able to read why it was refused.
    assert served.client.get("/api/v1/queue", headers={"Origin": page}).headers["access-control-allow-origin"] == page


WRONG_KEYS: list[dict[str, Any]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Bearer {KEY}x"},
    {"Authorization": f"Bearer {KEY[:-1]}"},
    {"Authorization": f"Basic {KEY}"},
    {"Authorization": KEY},
    {"Authorization": "Bearer \u00ff\u00fe".encode("latin-1")},
    {"Cookie": f"api_key={KEY}"},
    {"X-API-Key": KEY},
]


def test_with_a_key_every_route_but_the_probes_asks_for_it(serve: Callable[..., Served]) -> None:
    served = serve(api_key=KEY)
    for method, path in routes(served):
        response = served.client.request(method, path)
        if path in PUBLIC or path.startswith("/docs/assets"):
            assert response.status_code != 401, path
            continue
        assert response.status_code == 401, (method, path)
        if method != "HEAD":
            assert_error(response, 401, "unauthorized")
        assert response.headers["www-authenticate"] == "Bearer"


def test_only_the_right_key_opens(serve: Callable[..., Served]) -> None:
    served = serve(api_key=KEY)
    for headers in WRONG_KEYS:
        assert_error(served.client.post(SUBMIT, json=GOOD, headers=headers), 401, "unauthorized")
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            served.client.websocket_connect(SOCKET, headers=headers),
        ):
            pass
        assert refused.value.status_code == 401
    assert_error(served.client.get("/api/v1/queue", params={"api_key": KEY, "token": KEY}), 401)
    assert_error(served.client.get("/docs/assets/../../api/v1/queue"), 401)
    assert served.count() == 0
    right = {"Authorization": f"Bearer {KEY}"}
    assert served.client.post(SUBMIT, json=GOOD, headers=right).status_code == 200
    assert served.client.get("/api/v1/queue", headers={"authorization": f"bearer {KEY}"}).status_code == 200
    with served.client.websocket_connect(SOCKET, headers=right) as socket:
        assert socket.receive_json()["type"] == "connection_established"


def test_the_key_is_in_no_answer(serve: Callable[..., Served]) -> None:
    served = serve(api_key=KEY)
    right = {"Authorization": f"Bearer {KEY}"}
    for method, path in routes(served):
        if method == "GET" and path not in STREAMS:
            assert KEY not in served.client.get(path, headers=right).text
