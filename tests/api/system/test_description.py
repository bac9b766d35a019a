"""The description of the API says every answer that comes, in the shape in which it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts

from tests.api.support import GOOD, SUBMIT, Served


@pytest.fixture(scope="module")
def document(shared: Served) -> dict[str, Any]:
    """The description that clients get."""
    found: dict[str, Any] = shared.client.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def shape_of(document: dict[str, Any], path: str, method: str, status: int) -> str:
    """Return the name of the shape of a documented refusal."""
    answer = document["paths"][path][method]["responses"][str(status)]
    if "$ref" in answer:
        answer = document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return str(answer["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2])


def test_what_the_gate_and_the_store_can_answer_is_documented_everywhere(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        expected = {401, 403, 429, 503} | ({400, 413, 415} if "requestBody" in operation else set())
        assert {str(status) for status in expected} <= set(operation["responses"]), f"{method} {path}"
        for status in expected:
            assert shape_of(document, path, method, status) == (
                "OpenAIErrorBody" if path.startswith("/v1/") else "ErrorBody"
            ), f"{method} {path}"


@pytest.mark.parametrize(
    ("method", "path", "shown", "body"),
    [
        ("POST", SUBMIT, SUBMIT, b"{"),
        ("POST", SUBMIT, SUBMIT, b"{}"),
        ("POST", "/v1/videos", "/v1/videos", b"{"),
        ("POST", "/v1/videos", "/v1/videos", b"{}"),
        ("GET", "/v1/videos/unknown", "/v1/videos/{video_id}", None),
        ("GET", "/v1/models/unknown", "/v1/models/{model}", None),
        ("GET", "/api/v1/queue/unknown", "/api/v1/queue/{task_id}", None),
        ("GET", "/api/v1/queue?status_filter=unknown", "/api/v1/queue", None),
        ("POST", "/api/v1/workers/drain", "/api/v1/workers/drain", b'{"device": "nowhere/cpu"}'),
    ],
)
def test_a_refusal_has_the_documented_status_and_shape(
    shared: Served, document: dict[str, Any], method: str, path: str, shown: str, body: bytes | None
) -> None:
    response = shared.client.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code >= 400
    shape = document["components"]["schemas"][shape_of(document, shown, method.lower(), response.status_code)]
    assert set(shape["required"]) <= set(response.json()) <= set(shape["properties"])


def test_a_refused_key_has_the_documented_answer(serve: Callable[..., Served]) -> None:
    served = serve(api_key="the operator's key of this test")
    response = served.client.post(SUBMIT, json=GOOD)
    assert response.status_code == 401
    document = served.client.get("/openapi.json").json()
    assert shape_of(document, SUBMIT, "post", 401) == "ErrorBody"


def test_what_is_left_out_when_it_is_null_is_not_described_as_required(
    shared: Served, document: dict[str, Any]
) -> None:
    schemas = document["components"]["schemas"]

    def named(value: Any) -> Iterator[str]:
        """Yield the names of the shapes in a description, and of those in them."""
        if isinstance(value, dict) and value.get("$ref", "").startswith("#/components/schemas/"):
            name = value["$ref"].rpartition("/")[2]
            yield name
            yield from named(schemas[name])
        elif isinstance(value, dict | list):
            for one in value.values() if isinstance(value, dict) else value:
                yield from named(one)

    checked = 0
    for route in iter_route_contexts(shared.app.routes):
        for method in route.methods or ():
            operation = document["paths"].get(route.path, {}).get(method.lower())
            if operation is None or not route.response_model_exclude_none:
                continue
            for name in set(named(operation["responses"]["200"])):
                for field in schemas[name].get("required", ()):
                    checked += 1
                    kinds = [one.get("type") for one in schemas[name]["properties"][field].get("anyOf", ())]
                    assert "null" not in kinds, f"{method} {route.path}: {name}.{field}"
    assert checked > 100
