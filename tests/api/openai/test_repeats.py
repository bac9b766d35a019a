"""One click is one task: the `openai` package repeats a call without a key when it gets no answer."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
import openai
import pytest

from backend.core.access.caller import KeyLimits, Scope
from backend.core.access.text import draw_key
from backend.core.errors.surroundings import StorageFull, StoreUnavailable
from tests.api.openai.conftest import library
from tests.api.support import ADDRESS, TINY, Served

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

PROMPT = "a red circle moving right on a navy background"


class LosesAnswers(httpx2.BaseTransport):
    """Passes calls to the app, and loses the answers to the first of them as a failing network or proxy does."""

    def __init__(self, served: Served, loses: list[int | Exception]) -> None:
        self._served = served
        self._loses = loses
        self.sent: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.sent.append(request)
        headers = {name: value for name, value in request.headers.items() if name != "host"}
        answer = self._served.client.request(request.method, request.url, content=request.content, headers=headers)
        if self._loses:
            fault = self._loses.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return httpx2.Response(fault, json={"error": {"message": "bad gateway"}}, headers={"retry-after-ms": "1"})
        return httpx2.Response(answer.status_code, headers=answer.headers, content=answer.content)


def behind(served: Served, *loses: int | Exception, **options: object) -> tuple[openai.OpenAI, LosesAnswers]:
    network = LosesAnswers(served, list(loses))
    client = httpx2.Client(transport=network, base_url=ADDRESS)
    served.client.headers.pop("Wan22-Model-Ids", None)
    given = {"api_key": "unused", "base_url": f"{ADDRESS}/v1"} | options
    return openai.OpenAI(http_client=client, **given), network  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library pauses half a second and more between its attempts."""
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.001)


@pytest.mark.parametrize("fault", [502, 503, httpx2.ReadError("the connection broke")], ids=["502", "503", "dropped"])
@pytest.mark.parametrize("times", [1, 2])
def test_an_answer_that_is_lost_after_the_commit_makes_no_second_task(
    clean: Served, fault: int | Exception, times: int
) -> None:
    client, network = behind(clean, *[fault] * times)
    made = client.videos.create(prompt=PROMPT, model=TINY, size="64x64")
    assert len(network.sent) == times + 1
    assert [task.id for task in clean.services.tasks.list()] == [made.id]


def test_a_remix_and_an_extension_are_made_once_as_well(served: Served) -> None:
    client, _ = behind(served)
    client.videos.create(prompt=PROMPT, model=TINY, size="64x64")
    done = served.complete(served.claim()).task_id
    repeating, network = behind(served, 500)
    remixed = repeating.videos.remix(done, prompt="a blue circle moving right on a navy background")
    assert len(network.sent) == 2
    assert [task.id for task in served.services.tasks.list()] == [remixed.id, done]


def test_two_clicks_are_two_tasks(clean: Served) -> None:
    client, _ = behind(clean)
    first, second = (client.videos.create(prompt=PROMPT, model=TINY, size="64x64") for _ in range(2))
    assert first.id != second.id


def test_another_request_is_another_task_even_when_it_is_repeated(clean: Served) -> None:
    client, _ = behind(clean, 502, 502)
    client.videos.create(prompt=PROMPT, model=TINY, size="64x64")
    again, _ = behind(clean, 502)
    again.videos.create(prompt=PROMPT, model=TINY, size="96x96")
    assert clean.count() == 2


def test_a_repeat_finds_only_tasks_of_its_own_key(served: Served) -> None:
    keys = []
    for name in ("ann", "ben"):
        drawn = draw_key()
        served.services.key_store.create(drawn, name, [Scope.GENERATE], KeyLimits())
        keys.append(drawn.text)
    served.services.keys.refresh()
    for key in keys:
        client, network = behind(served, 502, api_key=key)
        client.videos.create(prompt=PROMPT, model=TINY, size="64x64")
        assert len(network.sent) == 2
    assert served.count() == 2


def test_a_deleted_video_is_not_the_answer_to_a_repeat(clean: Served) -> None:
    client, _ = behind(clean)
    first = client.videos.create(prompt=PROMPT, model=TINY, size="64x64")
    client.videos.delete(first.id)
    repeating, _ = behind(clean)
    again = repeating.videos.create(
        prompt=PROMPT, model=TINY, size="64x64", extra_headers={"X-Stainless-Retry-Count": "1"}
    )
    assert again.id != first.id


def test_an_explicit_key_decides_alone(clean: Served) -> None:
    client, network = behind(clean, 502)
    header = {"Idempotency-Key": "one"}
    first = client.videos.create(prompt=PROMPT, model=TINY, size="64x64", extra_headers=header)
    assert len(network.sent) == 2
    assert clean.count() == 1
    other = client.videos.create(
        prompt=PROMPT,
        model=TINY,
        size="64x64",
        extra_headers={"Idempotency-Key": "two", "X-Stainless-Retry-Count": "1"},
    )
    assert other.id != first.id
    with pytest.raises(openai.ConflictError) as caught:
        client.videos.create(prompt=PROMPT, model=TINY, size="96x96", extra_headers=header)
    assert caught.value.code == "idempotency_conflict"
    assert caught.value.response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("error", "attempts"), [(StorageFull, 1), (StoreUnavailable, 3)], ids=["full", "unavailable"])
def test_the_library_is_told_whether_to_try_again(
    clean: Served, error: Callable[[], Exception], attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error()

    monkeypatch.setattr(clean.services.generation, "submit", fails)
    monkeypatch.setattr("openai._base_client.BaseClient._parse_retry_after_header", lambda *_: 0.001)
    client, network = behind(clean)
    with pytest.raises(openai.InternalServerError):
        client.videos.create(prompt=PROMPT, model=TINY)
    assert len(network.sent) == attempts


def test_a_quota_that_is_renewed_tomorrow_is_not_asked_for_again(served: Served) -> None:
    drawn = draw_key()
    served.services.key_store.create(drawn, "ann", [Scope.GENERATE], KeyLimits(waiting_tasks=1))
    served.services.keys.refresh()
    client, network = behind(served, api_key=drawn.text, max_retries=0)
    client.videos.create(prompt=PROMPT, model=TINY, size="64x64")
    with pytest.raises(openai.RateLimitError) as caught:
        client.videos.create(prompt=PROMPT, model=TINY, size="96x96")
    assert (caught.value.type, caught.value.code) == ("rate_limit_error", "quota_exceeded")
    wait = int(caught.value.response.headers["retry-after"])
    assert caught.value.response.headers["x-should-retry"] == str(wait <= 60).lower()
    assert len(network.sent) == 2


def test_a_repeat_of_what_was_never_made_makes_it(clean: Served) -> None:
    library(clean).videos.create(
        prompt=PROMPT, model=TINY, size="64x64", extra_headers={"X-Stainless-Retry-Count": "2"}
    )
    assert clean.count() == 1
