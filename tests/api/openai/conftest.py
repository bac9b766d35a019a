"""The Python package `openai` on the app in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import openai
import pytest

from backend.core.domain import TERMINAL
from tests.api.support import ADDRESS, Served


def library(served: Served, **options: object) -> openai.OpenAI:
    """Return a client of the library that talks to an app under test, and sends nothing twice unless asked to."""
    served.client.headers.pop("Wan22-Model-Ids", None)  # the library sends no header of ours
    given = {"api_key": "unused", "base_url": f"{ADDRESS}/v1", "max_retries": 0} | options
    return openai.OpenAI(http_client=served.client, **given)  # type: ignore[arg-type]


@pytest.fixture
def clean(shared: Served) -> Iterator[Served]:
    """The app of this module, whose queue is empty before the test and after it."""
    yield shared
    for output in shared.services.outputs.list():
        shared.services.deletion.delete(output.task_id, permanent=True)
    for task in shared.services.tasks.list():
        if task.status not in TERMINAL:
            shared.services.tasks.request_cancel(task.id)
        if task.lease_token:
            shared.services.tasks.acknowledge_cancel(task.id, task.lease_token)
        shared.services.generation.delete(task.id)
    assert shared.count() == 0


@pytest.fixture
def client(served: Served) -> openai.OpenAI:
    """The library, on the app of this test."""
    return library(served)


@pytest.fixture
def clean_client(clean: Served) -> openai.OpenAI:
    """The library, on the app of this module with an empty queue."""
    return library(clean)


@pytest.fixture(scope="module")
def shared_client(shared: Served) -> openai.OpenAI:
    """The library, on the app of this module."""
    return library(shared)


@pytest.fixture
def refused() -> Callable[..., openai.APIStatusError]:
    """Call something that the server refuses, and return the error of the library."""

    def call(kind: type[openai.APIStatusError], action: Callable[[], object]) -> openai.APIStatusError:
        with pytest.raises(kind) as caught:
            action()
        assert caught.value.code is not None
        assert caught.value.request_id
        return caught.value

    return call
