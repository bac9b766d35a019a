"""`docs/contract.md` names every endpoint of earlier clients; what it says of each is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts

from backend.app import create_app
from backend.core.settings import load_settings

ROOT = Path(__file__).parents[2]
STATES = {"served", "different", "absent"}
#: Each endpoint or message, its state and the remark.
ROWS = [
    (name, state.strip(), remark.strip())
    for name, state, remark in re.findall(
        r"^\| `?([^|`]+?)`? \| (\w+) \| ?([^|]*)\|$", (ROOT / "docs" / "contract.md").read_text(), re.MULTILINE
    )
    if name not in ("word", "endpoint")
]
ENDPOINTS = [(*name.split(" ", 1), state) for name, state, _ in ROWS if re.match(r"[A-Z]+ /", name)]
MESSAGES = [(name, state) for name, state, _ in ROWS if re.fullmatch(r"[a-z]+(_[a-z]+)*", name) and name != "errors"]


@pytest.fixture(scope="module")
def doors() -> set[tuple[str, str]]:
    """Every method and path of the app, without the names of parameters."""
    routes = list(iter_route_contexts(create_app(load_settings()).routes))
    plain = {(method, _plain(str(route.path))) for route in routes for method in route.methods or ()}
    return plain | {("WEBSOCKET", _plain(str(route.path))) for route in routes if not route.methods}


def _plain(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_the_table_is_whole() -> None:
    assert len(ENDPOINTS) > 120
    assert len(MESSAGES) > 25
    names = [name for name, _, _ in ROWS]
    assert len(names) == len(set(names))
    for name, state, remark in ROWS:
        assert state in STATES, name
        assert remark or state == "served", f"{name}: say why, or what differs"


def test_endpoints_are_served_or_absent_as_the_table_says(doors: set[tuple[str, str]]) -> None:
    for method, path, state in ENDPOINTS:
        assert ((method, _plain(path)) in doors) is (state != "absent"), f"{method} {path} is not {state}"


def test_messages_are_sent_or_absent_as_the_table_says() -> None:
    code = "".join(path.read_text() for path in (ROOT / "backend" / "api" / "live").glob("*.py"))
    for name, state in MESSAGES:
        assert (f'"{name}"' in code) is (state != "absent"), f"{name} is not {state}"
