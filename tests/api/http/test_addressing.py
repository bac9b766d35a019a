"""Behind a proxy: under a prefix, with trailing slashes, HEAD, undeclared bodies and unknown parameters."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable

import pytest

from tests.api.support import GOOD, SUBMIT, Served, assert_error

PROXIED = {"trusted_proxies": ["testclient"]}


def _outside(page: str, prefix: str) -> list[str]:
    links = re.findall(r"(?:src|href)=[\"']([^\"']+)", page) + re.findall(r"url:\s*[\"']([^\"']+)", page)
    assert links
    return [link for link in links if link.startswith("/") and not link.startswith(f"{prefix}/")]


@pytest.mark.parametrize("prefix", ["/studio", "/team-a/video.gen"])
@pytest.mark.parametrize("passed_on", [False, True], ids=["stripped", "passed on"])
def test_everything_stays_under_the_prefix(serve: Callable[..., Served], prefix: str, passed_on: bool) -> None:
    told, configured = serve(**PROXIED), serve(root_path=f"{prefix}/")
    for served, headers in ((told, {"X-Forwarded-Prefix": prefix}), (configured, {})):
        task_id = served.complete_one()
        before = prefix if passed_on else ""
        assert _outside(served.client.get(f"{before}/docs", headers=headers).text, prefix) == []
        assert served.client.get(f"{before}/docs/assets/swagger-ui.css", headers=headers).status_code == 200
        schema = served.client.get(f"{before}/openapi.json", headers=headers).json()
        assert schema["servers"][0]["url"] == prefix
        video = served.client.get(f"{before}/api/v1/outputs/{task_id}", headers=headers).json()
        for field in ("video_url", "download_url", "thumbnail_url", "thumbnail_path", "output_path"):
            assert video[field].startswith(f"{prefix}/"), field
        assert served.client.get(video["video_url"], headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/studio/ws", "/ws", "/studio/api/v1/ws"])
def test_live_messages_lead_to_the_prefix_too(serve: Callable[..., Served], path: str) -> None:
    served = serve(root_path="/studio")
    with served.client.websocket_connect(f"ws://127.0.0.1:8000{path}") as socket:
        task_id = served.complete_one()
        message = socket.receive_json()
        while message["data"].get("output_path") is None:
            message = socket.receive_json()
    assert message["data"]["output_path"] == f"/studio/api/v1/outputs/{task_id}/video"


@pytest.mark.parametrize("prefix", ["//evil.example", "/a/../b", "/a b", '/x"><script>', "no-slash", "/" + "a" * 300])
def test_a_prefix_that_is_no_path_is_ignored(serve: Callable[..., Served], prefix: str) -> None:
    served = serve(**PROXIED)
    assert "servers" not in served.client.get("/openapi.json", headers={"X-Forwarded-Prefix": prefix}).json()


def test_only_trusted_proxies_are_believed(shared: Served, serve: Callable[..., Served]) -> None:
    headers = {"X-Forwarded-Prefix": "/elsewhere"}
    assert "/elsewhere" not in shared.client.get("/docs", headers=headers).text
    assert "/elsewhere" in serve(trusted_proxies=["*"]).client.get("/docs", headers=headers).text


@pytest.mark.parametrize("path", ["/api/v1/queue/", "/api/v1/outputs/", "/live/", "/docs/", "/system/stats/"])
def test_one_trailing_slash_is_tolerated(shared: Served, path: str) -> None:
    assert shared.client.get(path).status_code == 200


def test_every_get_answers_head_alike(shared: Served) -> None:
    paths = [path for path, methods in shared.paths().items() if "GET" in methods]
    assert len(paths) > 40
    for path in paths:
        assert "HEAD" in shared.paths()[path], path
    assert shared.client.head("/api/v1/queue").status_code == 200
    assert shared.client.head("/api/v1/queue/none").status_code == 404


@pytest.mark.parametrize("content_type", [None, "application/x-www-form-urlencoded"], ids=["none", "of curl"])
@pytest.mark.parametrize("space", ["", " \r\n", "\ufeff"], ids=["plain", "spaces", "mark"])
def test_json_is_recognised_without_its_content_type(shared: Served, content_type: str | None, space: str) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    body = (space + json.dumps(GOOD | {"dry_run": True})).encode()
    response = shared.client.post(SUBMIT, content=body, headers=headers)
    assert response.status_code == 200, response.text
    response = shared.client.post("/api/v1/models/cleanup", content=b'{"dry_run": true}', headers=headers)
    assert response.status_code == 200, response.text


def test_a_form_stays_a_form(shared: Served) -> None:
    response = shared.client.post(SUBMIT, data=GOOD | {"dry_run": "true"})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
def test_compressed_bodies_are_refused_by_name(shared: Served, encoding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    response = shared.client.post(SUBMIT, content=gzip.compress(json.dumps(GOOD).encode()), headers=headers)
    assert "Content-Encoding" in assert_error(response, 415, "unsupported_encoding")["suggestions"][0]


@pytest.mark.parametrize(
    ("path", "close"),
    [("/api/v1/queue?limitt=3", "limit"), ("/api/v1/outputs?ofset=1", "offset"), ("/api/v1/health?verbose=1", None)],
)
def test_unknown_query_parameters_are_refused(shared: Served, path: str, close: str | None) -> None:
    body = assert_error(shared.client.get(path), 422, "invalid_request")
    assert body["details"][0]["loc"] == ["query", re.split("[?=]", path)[1]]
    assert (f"did you mean {close}?" in body["message"]) == (close is not None)
