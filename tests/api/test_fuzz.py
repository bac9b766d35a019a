"""Requests made up by schemathesis from the API's own description: whatever is sent, the answer is in order."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import schemathesis

from backend.app import create_app
from backend.core.settings import load_settings
from tests.api.support import ADDRESS, assert_error

HEADERS = {"Host": "127.0.0.1:8000"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    settings = load_settings(home=tmp_path_factory.mktemp("fuzz") / "home", worker=False)
    yield schemathesis.openapi.from_asgi("/openapi.json", create_app(settings), headers=HEADERS)


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@hypothesis.settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_no_request_breaks_a_route(case: schemathesis.Case) -> None:
    response = case.call(base_url=ADDRESS, headers=HEADERS)
    assert response.status_code < 500 or (response.status_code == 503 and case.path == "/ready"), response.text
    if response.status_code >= 400:
        assert_error(response, response.status_code)
