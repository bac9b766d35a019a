"""The Python package `openai` on a real server with its worker."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.api.support import make_png
from tests.clients.conftest import Clients
from tests.support.server import wait_for

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

PROMPT = "a red circle moving right on a navy background"
TINY = "tiny-t2v-a14b"
#: A video that is still being made when it is asked for.
LONG: dict[str, Any] = {"size": "128x128", "extra_body": {"num_frames": 65, "steps": 100}}
_seeds = itertools.count(5000)


def library(clients: Clients, key: str = "maker", **options: Any) -> openai.OpenAI:
    given: dict[str, Any] = {"base_url": f"{clients.server.url}/v1", "max_retries": 0} | options
    return openai.OpenAI(api_key=clients.keys.get(key, key), **given)


def behind(clients: Clients, faults: str, click: str) -> openai.OpenAI:
    """Return a client whose answers are lost as `faults` says, one for each attempt."""
    headers = {"X-Lose": faults, "X-Click": click}
    return library(clients, base_url=f"{clients.proxy.url}/v1", max_retries=2, default_headers=headers)


def asked(**more: Any) -> dict[str, Any]:
    body = {"num_frames": 5, "steps": 2, "seed": next(_seeds)} | more.pop("extra_body", {})
    return {"prompt": PROMPT, "model": TINY, "size": "64x64", "extra_body": body} | more


@pytest.fixture(scope="module")
def done(clients: Clients) -> Any:
    """A finished video."""
    client = library(clients)
    made = client.videos.create_and_poll(**asked(), poll_interval_ms=200)
    assert made.status == "completed", made.error
    return made


def test_a_video_is_made_and_polled_to_its_end(clients: Clients) -> None:
    client = library(clients)
    queued = client.videos.create(**asked())
    assert (queued.object, queued.size, queued.model) == ("video", "64x64", TINY)
    ended = client.videos.poll(queued.id)
    assert (ended.status, ended.progress, ended.error) == ("completed", 100, None)


@pytest.mark.parametrize(
    ("variant", "begins"), [("video", b"ftyp"), ("thumbnail", b"\xff\xd8"), ("spritesheet", b"\xff\xd8")]
)
def test_every_variant_is_fetched(clients: Clients, done: Any, variant: Any, begins: bytes) -> None:
    file = library(clients).videos.download_content(done.id, variant=variant).read()
    assert file.removeprefix(file[:4] if variant == "video" else b"").startswith(begins)


def test_an_image_is_sent_as_a_file(clients: Clients) -> None:
    wish = asked(model="tiny-i2v-a14b", input_reference=("start.png", make_png(64, 64), "image/png"))
    made = library(clients).videos.create_and_poll(**wish, poll_interval_ms=200)
    assert (made.status, made.model) == ("completed", "tiny-i2v-a14b")


def test_pages_of_the_list_have_every_video_once(clients: Clients) -> None:
    client = library(clients)
    ids = [client.videos.create(**asked()).id for _ in range(4)]
    assert [one.id for one in client.videos.list(limit=2) if one.id in ids] == ids[::-1]
    assert [one.id for one in client.videos.list(limit=3, order="asc") if one.id in ids] == ids


def test_a_remix_has_another_prompt_and_the_same_seed(clients: Clients, done: Any) -> None:
    prompt = "a blue circle moving right on a navy background"
    remix = library(clients).videos.remix(done.id, prompt=prompt)
    assert (remix.prompt, remix.remixed_from_video_id) == (prompt, done.id)
    assert (remix.model_extra or {})["seed"] == (done.model_extra or {})["seed"]


def test_a_video_that_is_being_made_is_deleted_by_repeating(clients: Clients) -> None:
    client = library(clients, max_retries=5)
    long = client.videos.create(**asked(**LONG))
    wait_for(lambda: client.videos.retrieve(long.id).status == "in_progress", what="the start")
    assert client.videos.delete(long.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(long.id)


REFUSED: list[tuple[str, type[openai.APIStatusError], str, str | None, Callable[[openai.OpenAI], object]]] = [
    ("maker", openai.BadRequestError, "invalid_request", "size", lambda it: it.videos.create(**asked(size="wide"))),
    ("maker", openai.BadRequestError, "unknown_model", "model", lambda it: it.videos.create(**asked(model="sora-2"))),
    (
        "maker",
        openai.BadRequestError,
        "unknown_field",
        "sieze",
        lambda it: it.videos.create(**asked(extra_body={"sieze": 1})),
    ),
    ("maker", openai.BadRequestError, "invalid_request", "prompt", lambda it: it.videos.create(**asked(prompt=""))),
    ("maker", openai.NotFoundError, "video_not_found", "video_id", lambda it: it.videos.retrieve("nobody")),
    ("maker", openai.NotFoundError, "video_not_found", "video_id", lambda it: it.videos.download_content("nobody")),
    ("maker", openai.NotFoundError, "video_not_found", "video_id", lambda it: it.videos.delete("nobody")),
    ("maker", openai.NotFoundError, "video_not_found", "video_id", lambda it: it.videos.remix("nobody", prompt=PROMPT)),
    ("maker", openai.NotFoundError, "unknown_model", "model", lambda it: it.models.retrieve("sora-2")),
    ("wrong", openai.AuthenticationError, "unauthorized", None, lambda it: it.videos.list()),
    ("reader", openai.PermissionDeniedError, "scope_missing", None, lambda it: it.videos.create(**asked())),
    ("slow_python", openai.RateLimitError, "rate_limited", None, lambda it: [it.models.list() for _ in range(2)]),
]


@pytest.mark.parametrize(("key", "kind", "code", "param", "call"), REFUSED)
def test_what_is_refused_says_why(
    clients: Clients,
    key: str,
    kind: type[openai.APIStatusError],
    code: str,
    param: str | None,
    call: Callable[[openai.OpenAI], object],
) -> None:
    with pytest.raises(kind) as caught:
        call(library(clients, key))
    assert (caught.value.code, caught.value.param) == (code, param)


@pytest.mark.parametrize("faults", ["500", "502", "503", "drop", "502,drop"])
def test_one_click_is_one_task_whatever_happens_to_the_answers(clients: Clients, faults: str) -> None:
    wish = asked()
    seed = wish["extra_body"]["seed"]
    made = behind(clients, faults, f"python-{seed}").videos.create(**wish)
    assert (made.model_extra or {})["seed"] == seed
    assert clients.proxy.attempts[f"python-{seed}"] == 1 + len(faults.split(","))
    assert clients.count(seed) == 1


@pytest.mark.parametrize(("fault", "kind"), [("503", openai.InternalServerError), ("drop", openai.APIConnectionError)])
def test_a_click_without_any_answer_ends_with_an_error_and_one_task(
    clients: Clients, fault: str, kind: type[openai.APIError]
) -> None:
    wish = asked()
    seed = wish["extra_body"]["seed"]
    with pytest.raises(kind):
        behind(clients, ",".join([fault] * 3), f"python-{seed}").videos.create(**wish)
    assert clients.count(seed) == 1


def test_two_clicks_are_two_tasks(clients: Clients) -> None:
    wish = asked()
    first, second = (library(clients).videos.create(**wish) for _ in range(2))
    assert first.id != second.id
    assert clients.count(wish["extra_body"]["seed"]) == 2
