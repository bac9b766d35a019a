"""Errors outside any route's own: unknown paths, wrong methods, sizes, ids that cannot be one, crashes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.api.support import GOOD, SUBMIT, Served, assert_error

TRAVERSALS = [
    "..",
    "../wan22.db",
    "..%2fwan22.db",
    "%2e%2e%2fwan22.db",
    "..%5cwan22.db",
    "%00",
    "a%00b",
    "%2fetc%2fpasswd",
    "C:%5cwindows",
    "%5c%5c%3f%5cC:",
    "CON.mp4",
    "a" * 300,
    "%e2%80%aeabc",
    "abc.",
    ".hidden",
    "%ff%fe",
    "a b",
    "*",
]
ID_ROUTES = [
    ("GET", "/api/v1/queue/{}"),
    ("GET", "/queue/{}"),
    ("GET", "/api/v1/queue/{}/events"),
    ("GET", "/api/v1/queue/{}/preview"),
    ("POST", "/api/v1/queue/{}/cancel"),
    ("DELETE", "/api/v1/queue/{}"),
    ("GET", "/api/v1/generate/{}"),
    ("GET", "/api/v1/outputs/{}"),
    ("DELETE", "/api/v1/outputs/{}"),
    ("GET", "/api/v1/outputs/{}/video"),
    ("GET", "/api/v1/outputs/{}/download"),
    ("GET", "/outputs/{}/thumbnail"),
    ("GET", "/thumbnails/{}"),
    ("GET", "/thumbnails/{}_thumb.jpg"),
    ("GET", "/docs/assets/{}"),
]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_names_that_lead_elsewhere_are_not_found(shared: Served, name: str) -> None:
    before = _tree(shared.services.home.root)
    for method, path in ID_ROUTES:
        if (name, path) == ("..", "/api/v1/queue/{}/events"):
            continue  # the client makes it the stream of live messages, which does not end
        response = shared.client.request(method, path.format(name))
        # `..` may lead to a route of its own before the server sees it, which then allows other methods.
        assert response.status_code in (404, 405, 200 if name in ("..", "abc.") else 404), (path, response.text)
        if response.status_code != 200:
            assert_error(response, response.status_code)
        assert "SQLite format" not in response.text
    assert _tree(shared.services.home.root) == before


def test_a_link_in_the_outputs_folder_leads_nowhere(served: Served, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    served.submit()
    task = served.claim()
    served.complete(task)
    video = served.services.home.video_of(task.id)
    video.unlink()
    video.symlink_to(secret)
    for path in (f"/api/v1/outputs/{task.id}/video", f"/api/v1/outputs/{task.id}/download"):
        response = served.client.get(path)
        assert_error(response, 404)
        assert "secret" not in response.text


def _tree(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if "wan22.db" not in path.name}


def test_an_unknown_path_and_a_wrong_method_have_the_one_shape(shared: Served) -> None:
    assert_error(shared.client.get("/api/v1/nothing"), 404, "not_found")
    assert_error(shared.client.get("/index.html"), 404, "not_found")
    assert_error(shared.client.get("/api/v1/queue//"), 404, "not_found")
    response = shared.client.get(SUBMIT)
    assert_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    assert_error(shared.client.request("BREW", "/api/v1/queue"), 405)
    assert_error(shared.client.options("/api/v1/queue"), 405)
    one_task = shared.client.put("/api/v1/queue/some-task")
    assert "GET, HEAD, PATCH" in assert_error(one_task, 405)["suggestions"][0]
    assert one_task.headers["allow"] == "DELETE, GET, HEAD, PATCH"


def test_bad_query_values_name_the_field_and_repeat_nothing(shared: Served) -> None:
    for path in ("/api/v1/queue?limit=x<script>", "/api/v1/queue?limit=0", "/api/v1/queue?limit=99999"):
        body = assert_error(shared.client.get(path), 422, "invalid_request")
        assert body["details"][0]["loc"] == ["query", "limit"]
        assert "script" not in str(body)
        assert "input" not in body["details"][0]
    assert_error(shared.client.get("/api/v1/queue?status_filter=<script>"), 400, "invalid_filter")
    assert "script" not in shared.client.get("/api/v1/queue?status_filter=<script>").text
    assert_error(shared.client.get("/api/v1/queue/poll?since=yesterday"), 422)
    assert_error(shared.client.get("/api/v1/outputs?offset=-1"), 422)


def test_a_request_id_is_given_or_kept_when_it_is_plain(shared: Served) -> None:
    given = shared.client.get("/live").headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", given)
    assert shared.client.get("/live", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    for bad in ("a b", "x" * 65, "<script>", ""):
        kept = shared.client.get("/live", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{32}", kept)


def test_large_bodies_are_refused_by_their_announced_length(shared: Served) -> None:
    before = shared.count()
    large = b'{"prompt": "' + b"x" * 1024**2 + b'"}'
    body = assert_error(
        shared.client.post(SUBMIT, content=large, headers={"Content-Type": "application/json"}), 413, "body_too_large"
    )
    assert body["suggestions"]
    form = {"image": ("a.png", bytes(26 * 1024**2), "image/png")}
    for path, status in ((SUBMIT, 422), ("/api/v1/generate", 400)):
        refused = assert_error(shared.client.post(path, data=GOOD, files=form), status, "invalid_image")
        assert refused["detail"] == "Image file too large. Maximum size is 10MB"
    assert shared.count() == before


def test_large_bodies_without_a_length_are_cut_off_while_they_arrive(shared: Served) -> None:
    before = shared.count()
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'{"prompt": "'
        for _ in range(50):
            sent += 1
            yield b"x" * 100_000

    for kind in ("application/json", "text/plain"):
        response = shared.client.post(SUBMIT, content=endless(), headers={"Content-Type": kind})
        assert_error(response, 413 if kind == "application/json" else 400)
    assert shared.count() == before


@pytest.mark.parametrize("length", ["-1", "abc", "1e3", "9" * 400])
def test_a_length_that_is_none_is_refused(shared: Served, length: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Length": length}
    response = shared.client.post(SUBMIT, content=iter([b"{}"]), headers=headers)
    assert response.status_code in (400, 413)
    assert_error(response, response.status_code)


def test_a_crash_is_a_plain_500_in_the_same_shape(serve: Callable[..., Served]) -> None:
    served = serve()

    @served.app.get("/boom")
    def boom() -> None:
        raise RuntimeError("password=hunter2")

    body = assert_error(served.client.get("/boom"), 500, "internal_error")
    assert "hunter2" not in str(body)
    assert "Traceback" not in str(body)
    assert served.client.get("/live").status_code == 200


def test_a_broken_database_is_503_and_the_process_lives(served: Served) -> None:
    database = served.services.home.database
    served.submit()
    for file in (database, *database.parent.glob("wan22.db-*")):
        file.write_bytes(b"\x89PNG this is no database" * 4096)
    response = served.client.post(SUBMIT, json=GOOD)
    assert_error(response, 503, "database_damaged")
    assert response.headers["retry-after"] == "2"
    assert served.client.get("/live").status_code == 200
    assert_error(served.client.get("/ready"), 503, "not_ready")
    health = served.client.get("/api/v1/system/health")
    assert health.status_code == 200
    assert (health.json()["status"], health.json()["database_connected"]) == ("unhealthy", False)
    assert served.client.get("/system/health").json()["status"] == "critical"
    assert "active_tasks" not in health.json()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"steps": "many"}, "steps must be a whole number"),
        ({"steps": 2.5}, "steps must be a whole number"),
        ({"fps": "fast"}, "fps must be a number"),
        ({"variations": 99}, "variations must be at most 16"),
        ({"image_fit": "melt"}, "image_fit must be crop, pad or stretch"),
        ({"keep_latents": "perhaps"}, "keep_latents must be true or false"),
        ({"prompt": 5}, "prompt must be text"),
        ({"lora_strength": 9}, "LoRA strength must be between 0.0 and 2.0"),
        ({"loras": "not a list"}, "loras must be a list, or a list as JSON text"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_field_is_said_in_plain_words(
    shared: Served, values: dict[str, object], sentence: str
) -> None:
    response = shared.client.post(SUBMIT, json=GOOD | values)
    assert_error(response, 422)
    assert response.json()["message"] == sentence


def test_so_is_what_is_wrong_with_a_query(shared: Served) -> None:
    response = shared.client.get("/api/v1/queue", params={"limit": "all"})
    assert_error(response, 422)
    assert response.json()["message"] == "limit must be a whole number"
