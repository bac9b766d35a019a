"""Requests made up by schemathesis from the API's own description: whatever is sent, the answer is in order."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode

from tests.api.support import ADDRESS, Served, assert_error

KEY = "the operator's key of this test"
#: For each operation. Wrong requests cost much more to make up than to answer.
EXAMPLES = {GenerationMode.POSITIVE: 5, GenerationMode.NEGATIVE: 3}


def _body_of(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def _send(served: Served, case: schemathesis.Case) -> Any:
    """Send a made-up request through the app's own client; the two libraries name the body differently."""
    request = case.as_transport_kwargs(base_url=ADDRESS)
    data = request.pop("data", None)
    request.pop("cookies", None)
    if request.get("files"):
        request["files"] = [(name, (file, _body_of(value))) for name, (file, value, *_) in request["files"]]
    if isinstance(data, str | bytes):
        request["content"] = data
    elif data is not None:
        request["data"] = data
    return served.client.request(**request)


@pytest.fixture(autouse=True)
def _one_parser_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no two threads read source at once: hypothesis reads its own, and before 3.11.8 Python mixes them up.

    That is a SystemError about the recursion depth of the AST's constructor (python/cpython#106905). A thread that
    is interrupted by another one is the cause, so the second attempt succeeds.
    """
    parse, lock = ast.parse, threading.Lock()

    def parse_alone(*arguments: Any, **options: Any) -> ast.AST:
        with lock:
            try:
                return parse(*arguments, **options)
            except SystemError:
                return parse(*arguments, **options)

    monkeypatch.setattr(ast, "parse", parse_alone)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_no_request_breaks_a_route(serve: Callable[..., Served], mode: GenerationMode) -> None:
    # As the operator: a key that is made up on the way would lock out whoever has none.
    served = serve(api_key=KEY)
    served.client.headers["Authorization"] = f"Bearer {KEY}"
    document = served.app.openapi()
    description = schemathesis.openapi.from_dict(document)
    seen: set[int] = set()
    for result in description.get_all_operations():
        operation = result.ok()
        if operation.path == "/api/v1/events":
            continue  # it does not end; its parameters are tested in tests/api/live/test_replay.py

        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        @hypothesis.settings(
            max_examples=EXAMPLES[mode],
            deadline=None,
            derandomize=True,
            database=None,
            phases=[hypothesis.Phase.generate],  # a failure is reported as found, without minutes of shrinking
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        def probe(case: schemathesis.Case) -> None:
            response = _send(served, case)
            seen.add(response.status_code)
            if response.status_code >= 400:
                assert_error(response, response.status_code)
            not_ready = case.path == "/ready" and response.status_code == 503
            assert response.status_code < 500 or not_ready, response.text
            answers = document["paths"][case.path][case.method.lower()]["responses"]
            assert str(response.status_code) in answers, f"{response.status_code} is not documented: {case.path}"
            assert KEY not in response.text

        try:
            probe()
        except hypothesis.errors.Unsatisfiable:
            # Nothing can be wrong about an operation that takes nothing.
            assert mode is GenerationMode.NEGATIVE, operation.label
    assert seen & {200} if mode is GenerationMode.POSITIVE else seen & {400, 404, 422}
