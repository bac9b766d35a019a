"""Preferences, policies and flags over real HTTP: a change holds, survives a restart, and can be taken back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.server import LiveServer

CONFIG = "/api/v1/config"
#: Each view, what is changed in it, and the setting that stands behind it with its new value.
CHANGES: list[tuple[str, dict[str, Any], str, Any]] = [
    (
        "user-preferences",
        {"download_config": {"bandwidth_limit_mbps": 20}},
        "downloads.bandwidth_limit_mbps",
        20,
    ),
    (
        "user-preferences",
        {"fallback_config": {"fallback_to_mock_enabled": True}},
        "generation.on_model_failure",
        "mock",
    ),
    ("admin-policies", {"allow_external_downloads": False}, "settings.auto_download", False),
]
FLAG, BEHIND = "intelligent_fallback", "generation.on_model_failure"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    server = LiveServer(tmp_path_factory.mktemp("configuration") / "home", WAN22_WORKER="false")
    try:
        yield server
    finally:
        server.stop()


def _ask(server: LiveServer, method: str, path: str, body: object = None) -> dict[str, Any]:
    response = server.client.request(method, f"{CONFIG}{path}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def _value(server: LiveServer, name: str) -> Any:
    """Return the value of a setting that holds now, or from the next start on."""
    setting = next(one for one in _ask(server, "GET", "")["settings"] if one["name"] == name)
    return setting["value"] if setting["next_value"] is None else setting["next_value"]


def _shown(view: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return of a view what a change is about."""
    return {
        name: _shown(view[name], value) if isinstance(value, dict) else view[name] for name, value in change.items()
    }


@pytest.mark.parametrize(("view", "change", "name", "value"), CHANGES)
def test_a_change_is_checked_made_shown_and_undone(
    server: LiveServer, view: str, change: dict[str, Any], name: str, value: Any
) -> None:
    before, shown_before = _value(server, name), _ask(server, "GET", f"/{view}")
    check = "validate-preferences" if view == "user-preferences" else "validate-policies"
    verdict = _ask(server, "POST", f"/{check}", change)
    assert (verdict["valid"], verdict["changes"][name]) == (True, value)
    assert _value(server, name) == before != value
    assert name in _ask(server, "PUT", f"/{view}", change)["changed"]
    assert _value(server, name) == value
    assert _shown(_ask(server, "GET", f"/{view}"), change) == change
    assert name in _ask(server, "POST", "/undo", {})["changed"]
    assert _value(server, name) == before
    assert _ask(server, "GET", f"/{view}") == shown_before


def test_a_flag_is_switched_and_reset(server: LiveServer) -> None:
    assert _ask(server, "GET", "/feature-flags")["flags"][FLAG]["enabled"] is False
    assert BEHIND in _ask(server, "PUT", f"/feature-flags/{FLAG}?enabled=true")["changed"]
    assert _ask(server, "GET", "/feature-flags")["flags"][FLAG]["enabled"] is True
    assert BEHIND in _ask(server, "POST", "/reset-to-defaults?section=feature-flags")["changed"]
    assert _ask(server, "GET", "/feature-flags")["flags"][FLAG]["enabled"] is False


def test_what_was_changed_outlives_a_restart_and_can_be_taken_back_after_it(server: LiveServer) -> None:
    defaults = {name: _value(server, name) for *_, name, _ in CHANGES}
    for view, change, _, _ in CHANGES:
        _ask(server, "PUT", f"/{view}", change)
    assert _ask(server, "GET", "/configuration-status")["at_next_start"] == ["settings.auto_download"]
    server.stop()
    server.start()
    for view, change, name, value in CHANGES:
        assert _value(server, name) == value
        assert _shown(_ask(server, "GET", f"/{view}"), change) == change
    status = _ask(server, "GET", "/configuration-status")
    assert (status["valid"], status["at_next_start"]) == (True, [])
    for _ in CHANGES:
        _ask(server, "POST", "/undo", {})
    assert {name: _value(server, name) for name in defaults} == defaults


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/user-preferences", {"download_config": {"max_retries": 9}}, 422),
        ("PUT", "/user-preferences", {"preferred_models": ["x"]}, 422),
        ("PUT", "/admin-policies", {"max_concurrent_users": 3}, 422),
        ("PUT", "/feature-flags/auto_updates?enabled=true", None, 422),
        ("PUT", f"/feature-flags/{FLAG}", None, 422),
        ("POST", "/reset-to-defaults?section=nothing", None, 422),
        ("POST", "/undo", {"version": 10**9}, 409),
    ],
)
def test_what_has_no_counterpart_is_refused_and_changes_nothing(
    server: LiveServer, method: str, path: str, body: object, status: int
) -> None:
    before = _ask(server, "GET", "")
    response = server.client.request(method, f"{CONFIG}{path}", json=body)
    assert response.status_code == status, response.text
    assert response.json()["detail"]
    assert _ask(server, "GET", "") == before
