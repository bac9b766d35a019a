"""`wan22 conformance`: our own server passes, and a bad one fails exactly the checks of what is wrong with it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import Clients
from tests.commands.support import invoke
from tests.support.proxy import Answer, Ask, Proxy, Request

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
FIELDS = ["--field", "model=tiny-t2v-a14b", "--field", "size=64x64", "--field", "num_frames=9"]


@pytest.fixture(scope="module")
def failed(clients: Clients) -> str:
    """The id of a video that ended without a file."""
    task_id = clients.server.submit(num_frames=65, resolution="128x128", steps=100)
    assert clients.server.client.post(f"/api/v1/queue/{task_id}/cancel", json={}).status_code == 200
    clients.server.wait(task_id, "cancelled")
    return task_id


def check(clients: Clients, url: str, failed: str, *more: str) -> subprocess.CompletedProcess[str]:
    return invoke("conformance", url, "--key", clients.keys["maker"], "--failed-video", failed, *FIELDS, *more)


def test_our_server_passes_every_check_and_the_page_says_so(clients: Clients, failed: str) -> None:
    before = clients.server.client.get("/v1/videos", params={"limit": 100}).json()["data"]
    done = check(clients, clients.server.url, failed, "--markdown")
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("38 passed, 0 failed, 0 not checked.\n"), done.stdout
    assert done.stdout in PAGE.read_text()
    after = clients.server.client.get("/v1/videos", params={"limit": 100}).json()["data"]
    assert {video["id"] for video in after} <= {video["id"] for video in before}, "a video of the checks was left"


def _json(answer: Answer) -> dict[str, Any]:
    try:
        value = json.loads(answer.body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _as_json(answer: Answer, value: object) -> None:
    answer.body = json.dumps(value).encode()


def _numbers(request: Request, answer: Answer) -> None:
    """Seconds as a number."""
    if (value := _json(answer)).get("object") == "video":
        _as_json(answer, value | {"seconds": 1})


def _plain_errors(request: Request, answer: Answer) -> None:
    """Unknown videos and paths in the words of a web framework."""
    if answer.status == 404:
        _as_json(answer, {"detail": "Not Found"})


def _no_pace(request: Request, answer: Answer) -> None:
    """Nothing says when to ask again."""
    answer.headers.pop("openai-poll-after-ms", None)


def _short_list(request: Request, answer: Answer) -> None:
    """A list without a word about whether it goes on."""
    if (value := _json(answer)).get("object") == "list":
        value.pop("has_more", None)
        _as_json(answer, value)


def _no_tag(request: Request, answer: Answer) -> None:
    """A file without an ETag."""
    answer.headers.pop("etag", None)


def _bare_file(request: Request, answer: Answer) -> None:
    """A file of no kind."""
    if answer.headers.get("content-type") == "video/mp4":
        answer.headers["content-type"] = "application/octet-stream"


def _failing_failure(request: Request, answer: Answer) -> None:
    """A video that failed as an error of the server."""
    if request.method == "GET" and _json(answer).get("status") == "failed":
        answer.status = 500


def _forgetful(request: Request) -> None:
    """Second attempts are new calls."""
    request.headers.pop("x-stainless-retry-count", None)


def _whole_files(request: Request) -> None:
    """No parts of files."""
    request.headers.pop("range", None)


def _one_order(request: Request) -> None:
    """One order only."""
    request.path = request.path.replace("order=asc", "order=desc")


def _lenient(request: Request) -> None:
    """Misspelt fields are ignored."""
    request.body = request.body.replace(b'name="num_infrence_steps"', b'name="user"')


#: What is wrong with the bad server -> the checks that find it.
ON_THE_WAY_THERE: dict[Callable[[Request], None], set[str]] = {
    _forgetful: {"create.repeat"},
    _whole_files: {"content.range"},
    _one_order: {"list.order"},
    _lenient: {"create.unknown_field"},
}
ON_THE_WAY_BACK: dict[Callable[[Request, Answer], None], set[str]] = {
    _numbers: {"create.texts"},
    _plain_errors: {"retrieve.unknown", "content.early", "models.unknown", "errors.path", "remix.unknown"}
    | {"delete.finished"},
    _no_pace: {"retrieve.poll_after"},
    _short_list: {"list.shape"},
    _no_tag: {"content.etag"},
    _bare_file: {"content.video"},
    _failing_failure: {"retrieve.failed"},
}


@pytest.fixture(scope="module")
def bad(clients: Clients) -> Iterator[Proxy]:
    """Our server behind something that spoils it in all these ways."""

    def spoil(request: Request, ask: Ask) -> Answer:
        for change in ON_THE_WAY_THERE:
            change(request)
        answer = ask(request)
        for spoiled in ON_THE_WAY_BACK:
            spoiled(request, answer)
        return answer

    proxy = Proxy(clients.server.url, spoil)
    yield proxy
    proxy.stop()


def test_a_bad_server_fails_the_checks_of_what_is_wrong_with_it(clients: Clients, bad: Proxy, failed: str) -> None:
    done = check(clients, bad.url, failed, "--json")
    assert done.returncode == 1
    result = json.loads(done.stdout)
    planted = set().union(*ON_THE_WAY_THERE.values(), *ON_THE_WAY_BACK.values())
    found = {one["name"]: one["reason"] for one in result["checks"] if one["outcome"] == "fail"}
    assert set(found) == planted, {name: found.get(name) for name in set(found) ^ planted}
    assert all(found.values())
    assert (result["url"], result["fail"]) == (f"{bad.url}/v1", len(planted))
    assert result["pass"] + result["fail"] + result["skip"] == len(result["checks"]) == 38


def test_the_page_names_every_check_once() -> None:
    names = re.findall(r"^\| `([a-z_.]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert len(names) == len(set(names)) == 38


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["http://127.0.0.1:9"], 1, "No server answers at http://127.0.0.1:9/v1"),
        (["http://127.0.0.1:port"], 1, "is not an address"),
        (["nowhere"], 1, "nowhere"),
        (["http://127.0.0.1:9", "--field", "seed"], 2, "NAME=VALUE"),
        (["http://127.0.0.1:9", "--timeout", "inf"], 2, "finite"),
    ],
)
def test_what_cannot_be_checked_is_said_at_once(arguments: list[str], status: int, said: str) -> None:
    done = invoke("conformance", *arguments)
    assert done.returncode == status, done.stderr
    assert said in " ".join(done.stderr.split())
