"""The configuration over HTTP: shown, changed, refused, undone; who may do what; and that it takes effect and stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.core.access.caller import KeyLimits, Scope
from backend.core.access.text import draw_key
from backend.core.configuration_bridge import AT_THE_MACHINE
from backend.services.system.preferences import FLAGS, POLICIES, PREFERENCES
from tests.api.support import Served, assert_error
from tests.core.config.earlier import GRADIO

CONFIG = "/api/v1/config"
SECRET = "hunter2"
TILE = "optimization.vae_tile_size"


def get(served: Served, path: str = "", **options: Any) -> dict[str, Any]:
    response = served.client.get(f"{CONFIG}{path}", **options)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def send(served: Served, method: str, path: str, body: object = None) -> dict[str, Any]:
    response = served.client.request(method, f"{CONFIG}{path}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def setting(served: Served, name: str) -> dict[str, Any]:
    return next(one for one in get(served)["settings"] if one["name"] == name)


def file_of(served: Served) -> Path:
    return served.services.home.config_file


@pytest.fixture
def clean(shared: Served) -> Served:
    """The module's app with an empty configuration and no versions."""
    file_of(shared).unlink(missing_ok=True)
    for path in (shared.services.home.root / "config-history").glob("*"):
        path.unlink()
    return shared


def test_a_change_is_in_force_at_once_has_a_version_and_can_be_undone(clean: Served) -> None:
    done = send(clean, "PATCH", "", {TILE: 384, "settings.stats_seconds": 2})
    assert set(done["changed"]) == {TILE, "settings.stats_seconds"}
    assert done["at_next_start"] == ["settings.stats_seconds"]
    assert clean.client.get("/api/v1/system/optimization").json()["vae_tile_size"] == 384
    tile = setting(clean, TILE)
    assert (tile["value"], tile["source"], tile["default"], tile["at_restart"]) == (384, "config.json", 256, False)
    stats = setting(clean, "settings.stats_seconds")
    assert (stats["value"], stats["next_value"], stats["at_restart"]) == (1.0, 2, True)
    newest = get(clean, "/history")["versions"][0]
    assert (set(newest["changed"]), newest["by"]) == (set(done["changed"]), "anybody over HTTP")
    status = get(clean, "/configuration-status")
    assert status["at_next_start"] == ["settings.stats_seconds"]
    assert (status["valid"], status["version"], status["edited_by_hand"]) == (True, newest["number"], False)
    assert set(send(clean, "POST", "/undo", {})["changed"]) == set(done["changed"])
    assert setting(clean, TILE)["value"] == 256
    assert send(clean, "POST", "/undo", {"version": newest["number"]})["changed"]
    assert setting(clean, TILE)["value"] == 384
    assert_error(clean.client.post(f"{CONFIG}/undo", json={"version": 10**9}), 409, "state_conflict")
    assert_error(clean.client.post(f"{CONFIG}/undo", json={"version": 0}), 422)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({TILE: 384, "generation.mode": "rael"}, 422, 'must be real or mock; the nearest legal value is "real"'),
        ({TILE: SECRET}, 422, "between 128 and 512 pixels"),
        ({"optimization.max_vram_usage_gb": 2}, 422, "no card whose memory could be limited"),
        ({"settings.port": 9000}, 403, "only be changed at the machine"),
        ({"settings.host": "0.0.0.0"}, 403, "only be changed at the machine"),
        ({"models.T2V-A14B.repo": "evil/weights"}, 403, "only be changed at the machine"),
        ({"loras.x": "/etc"}, 403, "only be changed at the machine"),
        ({"settings.api_key": SECRET}, 422, "There is no setting"),
        ({"optimization.vae_tile_sise": 384}, 422, "did you mean optimization.vae_tile_size?"),
        ({"__proto__": {"x": 1}}, 422, "There is no setting"),
        ({"": 1}, 422, "There is no setting"),
        ({TILE: {"$ref": "x"}}, 422, "between 128 and 512 pixels"),
        ({TILE: [384]}, 422, "between 128 and 512 pixels"),
        ({TILE: True}, 422, "between 128 and 512 pixels"),
        ({"schedule.generate": ["25:00-26:00"]}, 422, "generate"),
        ({}, 422, "at least one setting"),
    ],
)
def test_a_refused_change_says_why_and_changes_nothing(clean: Served, body: object, status: int, said: str) -> None:
    send(clean, "PATCH", "", {"generation.mock_seconds": 1})
    before = file_of(clean).read_bytes()
    response = clean.client.patch(CONFIG, json=body)
    assert said in assert_error(response, status)["message"]
    assert SECRET not in response.text
    assert file_of(clean).read_bytes() == before
    assert len(get(clean, "/history")["versions"]) == 2


def test_what_is_wrong_is_named_with_line_and_column_while_the_old_values_stay(clean: Served) -> None:
    send(clean, "PATCH", "", {TILE: 384})
    assert clean.client.get("/api/v1/system/optimization").json()["vae_tile_size"] == 384
    file_of(clean).write_text(f'{{"optimization": {{"vae_tile_size": 4096}},\n "settings": {{"port": "{SECRET}"}}}}')
    status = get(clean, "/configuration-status")
    assert (status["valid"], status["in_force"], status["edited_by_hand"]) == (False, "present", True)
    tile, port = status["faults"]
    assert (tile["name"], tile["line"], tile["column"], tile["nearest"]) == (TILE, 1, 19, 512)
    assert (port["name"], port["line"]) == ("settings.port", 2)
    assert SECRET not in json.dumps(status) + json.dumps(get(clean))
    assert setting(clean, TILE)["value"] == 384
    file_of(clean).write_text('{"optimization": {\n "vae_tile_size": 128,}}')
    status = get(clean, "/configuration-status")
    assert status["in_force"] == "last readable"
    assert "line 2" in status["faults"][0]["message"]
    assert "line 2" in assert_error(clean.client.patch(CONFIG, json={TILE: 128}), 500, "bad_settings")["message"]
    assert clean.client.get("/api/v1/system/health").status_code == 200
    send(clean, "POST", "/undo", {})
    assert get(clean, "/configuration-status")["valid"]


def test_an_undo_over_http_stops_where_the_machine_itself_was_changed(clean: Served) -> None:
    clean.services.config.set({"settings.port": 9000})
    assert_error(clean.client.post(f"{CONFIG}/undo", json={}), 403)
    assert setting(clean, "settings.port")["next_value"] == 9000
    assert "settings.port" not in send(clean, "POST", "/reset-to-defaults")["changed"]


def test_an_earlier_file_is_read_and_reported(clean: Served) -> None:
    file_of(clean).write_text(json.dumps(GRADIO))
    assert setting(clean, TILE)["value"] == 320
    told = get(clean, "/configuration-status")["earlier_application"]
    assert "`system.vae_tile_size` is read as `optimization.vae_tile_size`" in told
    assert set(send(clean, "POST", "/reset-to-defaults?section=optimization")["changed"]) >= {"system.vae_tile_size"}
    assert setting(clean, TILE)["value"] == 256
    assert_error(clean.client.post(f"{CONFIG}/reset-to-defaults?section=optimisation"), 422)


def test_preferences_policies_and_flags_are_views_of_the_settings(clean: Served) -> None:
    seen = get(clean, "/user-preferences")
    assert (seen["automation_level"], seen["download_config"]["bandwidth_limit_mbps"]) == ("fully_automatic", None)
    assert "download_config.max_retries" in seen["fixed"]
    assert "preferred_models" in seen["not_supported"]
    assert send(clean, "PUT", "/user-preferences", seen)["changed"] == []  # what was read can be sent back
    body = {"automation_level": "manual", "download_config": {"bandwidth_limit_mbps": 20}}
    checked = send(clean, "POST", "/validate-preferences", body)
    assert (checked["valid"], checked["changes"]["downloads.bandwidth_limit_mbps"]) == (True, 20)
    assert not file_of(clean).exists()
    done = send(clean, "PUT", "/user-preferences", body)
    assert set(done["at_next_start"]) == {"settings.auto_download", "settings.auto_recovery"}
    assert get(clean, "/user-preferences")["automation_level"] == "manual"
    assert get(clean, "/admin-policies")["allow_external_downloads"] is False
    assert setting(clean, "downloads.bandwidth_limit_mbps")["value"] == 20
    send(clean, "PUT", "/feature-flags/intelligent_fallback?enabled=true")
    assert get(clean, "/feature-flags")["flags"]["intelligent_fallback"] == {"enabled": True, "changeable": True}
    assert setting(clean, "generation.on_model_failure")["value"] == "other_model"
    send(clean, "PUT", "/admin-policies", {"allow_external_downloads": True})
    assert get(clean, "/user-preferences").get("automation_level") == "semi_automatic"
    send(clean, "POST", "/reset-to-defaults?section=user-preferences")
    assert get(clean, "/user-preferences")["download_config"]["bandwidth_limit_mbps"] is None


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("user-preferences", {"automation_level": "manul"}, "the nearest one is manual"),
        ("user-preferences", {"download_config": {"max_retries": 9}}, "is fixed in this server"),
        ("user-preferences", {"blocked_models": ["x"]}, "is not supported"),
        ("user-preferences", {"colour": SECRET}, "is not a known name"),
        ("user-preferences", {"download_config": {"bandwidth_limit_mbps": -1}}, "bandwidth_limit_mbps must be"),
        ("admin-policies", {"max_concurrent_users": 3}, "is not supported"),
        ("feature-flags/auto_updates?enabled=true", None, "is fixed in this server"),
        ("feature-flags/teleport?enabled=true", None, "is not a known name"),
        ("feature-flags/health_monitoring?enabled=true&user_specific=true", None, "user_specific is not supported"),
    ],
)
def test_preferences_without_a_counterpart_are_refused_by_name(
    clean: Served, path: str, body: dict[str, Any] | None, said: str
) -> None:
    response = clean.client.put(f"{CONFIG}/{path}", json=body)
    assert said in assert_error(response, 422)["message"]
    assert SECRET not in response.text
    assert not file_of(clean).exists()
    if body is not None:
        checks = {"user-preferences": "validate-preferences", "admin-policies": "validate-policies"}
        verdict = send(clean, "POST", f"/{checks[path]}", body)
        assert (verdict["valid"], said in verdict["errors"][0]["message"]) == (False, True)


def test_every_view_names_settings_that_exist_and_can_be_changed_over_http(clean: Served) -> None:
    definitions = clean.services.config.definitions()
    for section, table in (("user-preferences", PREFERENCES), ("admin-policies", POLICIES), ("feature-flags", FLAGS)):
        assert table
        assert send(clean, "POST", f"/reset-to-defaults?section={section}")["changed"] == []
    assert set(definitions) > AT_THE_MACHINE
    assert {one["name"] for one in get(clean)["settings"]} == set(definitions)


def test_a_reader_sees_and_an_administrator_changes(clean: Served) -> None:
    texts = {}
    for name, scope in (("reader", Scope.READ), ("maker", Scope.GENERATE), ("boss", Scope.ADMIN)):
        drawn = draw_key()
        clean.services.key_store.create(drawn, name, [scope], KeyLimits(), None)
        texts[name] = {"Authorization": f"Bearer {drawn.text}"}
    clean.services.keys.refresh()
    assert_error(clean.client.get(f"{CONFIG}/user-preferences"), 401)
    for path in ("", "/history", "/configuration-status", "/user-preferences", "/admin-policies", "/feature-flags"):
        assert clean.client.get(f"{CONFIG}{path}", headers=texts["reader"]).status_code == 200
    for name, status in (("reader", 403), ("maker", 403), ("boss", 200)):
        changed = clean.client.patch(CONFIG, json={TILE: 192}, headers=texts[name])
        assert changed.status_code == status, changed.text
    assert get(clean, "/history", headers=texts["boss"])["versions"][0]["by"] == "boss over HTTP"
    listed = {name: {one["name"] for one in get(clean, headers=header)["settings"]} for name, header in texts.items()}
    assert listed["boss"] - listed["reader"] == AT_THE_MACHINE
    for one in clean.services.key_store.all():
        clean.services.key_store.revoke(one.id)
    clean.services.keys.refresh()


def test_what_the_environment_sets_cannot_be_changed_below_it(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAN22_STATS_SECONDS", "3")
    served = serve()
    body = assert_error(served.client.patch(CONFIG, json={"settings.stats_seconds": 4}), 409)
    assert "set by the environment" in body["message"]
    assert setting(served, "settings.stats_seconds")["source"] == "environment"
