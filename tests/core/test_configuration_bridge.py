"""The configuration as a whole: sources, changes of several sections at once, faults, migration, and secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.core.config.report import Source
from backend.core.configuration_bridge import ConfigurationBridge
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings
from backend.core.paths import Home
from backend.core.settings import load_settings
from backend.services.system.configuration import configuration_of
from tests.core.config.earlier import GRADIO, SERVER


@pytest.fixture
def bridge(tmp_path: Path) -> ConfigurationBridge:
    return configuration_of(Home(tmp_path), load_settings(home=tmp_path))


def test_a_change_of_several_sections_is_made_as_a_whole(bridge: ConfigurationBridge) -> None:
    names = {"optimization.vae_tile_size": 384, "generation.mode": "mock", "models.T2V-A14B.defaults.steps": 20}
    assert set(bridge.set(names)) == set(names)
    with pytest.raises(InvalidRequest):
        bridge.set({"generation.mode": "real", "optimization.vae_tile_size": 9})
    assert bridge.entry("generation.mode").value == "mock"
    assert set(bridge.undo()[1]) == set(names)
    assert bridge.file.content() == {}


@pytest.mark.parametrize(
    ("name", "value", "rule", "nearest"),
    [
        ("optimization.vae_tile_size", 4096, "between 128 and 512 pixels", 512),
        ("optimization.enable_offload", "yes", "true or false", True),
        ("generation.mode", "rael", "real or mock", "real"),
        ("settings.port", 70000, "at most 65535", 65535),
        ("settings.oom_policy", "qualty", "quality", "quality"),
        ("downloads.bandwidth_limit_mbps", 1e9, "at most 1e+06", 1e6),
        ("settings.device", "gpu", "auto, cpu, cuda", None),
    ],
)
def test_a_refusal_names_the_rule_and_the_nearest_value(
    bridge: ConfigurationBridge, name: str, value: object, rule: str, nearest: object
) -> None:
    with pytest.raises(InvalidRequest, match="must be") as refused:
        bridge.set({name: value})
    assert rule in refused.value.message
    details = refused.value.details
    assert isinstance(details, dict)
    assert details.get("nearest") == nearest
    assert bridge.file.mark is None


def test_unknown_names_are_refused_with_the_one_that_was_meant(bridge: ConfigurationBridge) -> None:
    for name in ("optimization.vae_tile_sise", "vae_tile_size"):
        with pytest.raises(InvalidRequest, match=r"did you mean optimization\.vae_tile_size"):
            bridge.set({name: 256})
    for name in ("settings.api_key", "settings.webhook_secret", "settings.home", "models.T2V-A14B.defaults.stepz"):
        with pytest.raises(InvalidRequest):
            bridge.set({name: "x"})


def test_the_environment_is_above_the_file_and_the_command_line_above_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"settings": {"port": 9000, "threads": 2, "host": "127.0.0.2"}}')
    monkeypatch.setenv("WAN22_THREADS", "4")
    settings = load_settings(home=tmp_path, host="127.0.0.3")
    assert (settings.port, settings.threads, settings.host) == (9000, 4, "127.0.0.3")
    bridge = configuration_of(Home(tmp_path), settings)
    sources = {name: bridge.entry(f"settings.{name}").source for name in ("port", "threads", "host", "worker")}
    assert list(sources.values()) == [Source.FILE, Source.ENVIRONMENT, Source.COMMAND_LINE, Source.DEFAULT]
    bridge.set({"settings.port": 9001})
    assert (bridge.entry("settings.port").value, bridge.entry("settings.port").next_value) == (9000, 9001)


def test_an_unusable_setting_of_the_operator_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{\n "settings": {\n  "port": "hunter2",\n  "prot": 1}}')
    with pytest.raises(BadSettings, match=r"config\.json, line 3, column 3: `settings\.port` must be") as refused:
        load_settings(home=tmp_path)
    assert "hunter2" not in refused.value.message
    faults = configuration_of(Home(tmp_path)).faults()
    assert [fault.name for fault in faults] == ["settings.port", "settings.prot"]
    assert faults[1].nearest == "port"


def test_a_password_is_shown_nowhere(tmp_path: Path) -> None:
    url = "postgresql://wan:hunter2@db/wan"
    content = SERVER | {
        "settings": {"database_url": url, "api_key": "hunter2", "webhook_secret": "hunter2", "port": "hunter2"}
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    bridge = configuration_of(Home(tmp_path), load_settings(home=tmp_path / "other", database_url=url))
    told = repr(bridge.entries()) + repr(bridge.faults()) + repr(bridge.migrate(dry_run=True).settings)
    assert "settings.database_url" in told
    assert "hunter2" not in told
    assert bridge.shown("security.secret_key", "hunter2") == "***"


def test_a_migration_in_place_says_what_became_of_everything(tmp_path: Path) -> None:
    bridge = configuration_of(Home(tmp_path))
    bridge.file.path.write_text(json.dumps(GRADIO | {"mystery": {"x": 1}}))
    in_force = {one.name: one.value for one in bridge.entries()}
    before = bridge.file.path.read_bytes()
    report = bridge.migrate(dry_run=True)
    assert bridge.file.path.read_bytes() == before
    assert bridge.migrate() == report
    assert report.unknown == ("mystery",)
    assert "optimization.quantization" in report.changed
    assert {one.name: one.value for one in bridge.entries()} == in_force
    assert bridge.file.content()["mystery"] == {"x": 1}
    assert bridge.migrate().changed == ()
    bridge.undo()
    assert json.loads(bridge.file.path.read_text()) == GRADIO | {"mystery": {"x": 1}}


def test_reset_removes_older_names_too(tmp_path: Path) -> None:
    bridge = configuration_of(Home(tmp_path))
    bridge.file.path.write_text(json.dumps(GRADIO))
    bridge.unset(["optimization.vae_tile_size"])
    assert bridge.entry("optimization.vae_tile_size").value == 256
    with pytest.raises(InvalidRequest, match="does not set"):
        bridge.unset(["optimization.vae_tile_size"])


def test_every_setting_has_a_meaning_a_rule_and_a_legal_default(bridge: ConfigurationBridge) -> None:
    definitions = bridge.definitions()
    assert len(definitions) > 60
    for name, one in definitions.items():
        assert one.meaning, name
        assert one.rule.words, name
        one.rule.check(one.name, list(one.default) if isinstance(one.default, tuple) else one.default)
