"""`wan22 config`: what it shows, changes, refuses, migrates and takes back, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.support import invoke
from tests.core.config.earlier import BASIC, GRADIO, MODELS_TOML, SERVER

SECRET = "hunter2"


def config(home: Path, *words: str, status: int = 0) -> Any:
    """Call a subcommand with `--json` and return what it prints."""
    done = invoke("config", *words, "--json", home=home)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def in_force(home: Path, name: str) -> Any:
    (entry,) = config(home, "show", name)
    return entry["value"]


def test_settings_are_set_shown_compared_removed_and_taken_back(tmp_path: Path) -> None:
    assert "Every setting has its default" in invoke("config", "show", home=tmp_path).stdout
    done = config(tmp_path, "set", "optimization.vae_tile_size=384", "settings.port=9000", "generation.mode=mock")
    assert set(done["changed"]) == {"optimization.vae_tile_size", "settings.port", "generation.mode"}
    assert done["at_next_start"] == ["settings.port"]
    (tile,) = config(tmp_path, "show", "optimization.vae_tile_size")
    assert (tile["value"], tile["default"], tile["source"]) == (384, 256, "config.json")
    assert (tile["position"], tile["legal"]) == ("line 3, column 5", "between 128 and 512 pixels")
    assert {one["name"] for one in config(tmp_path, "show")} == set(done["changed"])
    assert len(config(tmp_path, "show", "--all")) > 60
    assert config(tmp_path, "diff")["settings.port"] == {"before": None, "now": 9000}
    config(tmp_path, "unset", "generation.mode")
    assert in_force(tmp_path, "generation.mode") == "real"
    assert config(tmp_path, "undo")["changed"] == ["generation.mode"]
    assert in_force(tmp_path, "generation.mode") == "mock"
    newest = config(tmp_path, "history")[0]
    assert (newest["by"], newest["changed"]) == ("undo", ["generation.mode"])
    config(tmp_path, "undo", "1")
    assert config(tmp_path, "show") == []


def test_both_forms_of_set_and_texts_without_quotes_are_read(tmp_path: Path) -> None:
    assert invoke("config", "set", "settings.device", "cpu", home=tmp_path).returncode == 0
    said = invoke("config", "set", "settings.model_roots=[]", "generation.mock_seconds=0.5", home=tmp_path)
    assert "settings.model_roots at the next start" in said.stdout
    assert in_force(tmp_path, "settings.device") == "cpu"
    assert in_force(tmp_path, "generation.mock_seconds") == 0.5
    assert "Every name needs a value" in invoke("config", "set", "settings.device", home=tmp_path).stderr


def test_the_environment_above_a_change_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_PORT", "9001")
    done = invoke("config", "set", "settings.port=9000", home=tmp_path)
    assert "WAN22_PORT in the environment is above settings.port" in done.stderr
    (port,) = config(tmp_path, "show", "settings.port")
    assert (port["value"], port["source"]) == (9001, "environment")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["set", "generation.mode=rael"], 'must be real or mock; the nearest legal value is "real"'),
        (["set", "settings.port=70000"], "at most 65535; the nearest legal value is 65535"),
        (["set", "optimization.vae_tile_sise=1"], "did you mean optimization.vae_tile_size?"),
        (["set", f"settings.api_key={SECRET}"], "There is no setting settings.api_key"),
        (["show", "generation.mod"], "did you mean generation.mode?"),
        (["unset", "generation.mode"], "does not set generation.mode"),
        (["undo"], "no earlier version"),
        (["diff", "7"], "no version 7"),
        (["migrate", "nowhere.json"], "is not a file"),
        (["validate", "nowhere.json"], "is not a file"),
    ],
)
def test_a_refusal_says_why_and_changes_nothing(tmp_path: Path, words: list[str], sentence: str) -> None:
    done = invoke("config", *words, home=tmp_path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert SECRET not in done.stdout + done.stderr
    assert not (tmp_path / "config.json").exists()


def test_validate_names_every_fault_with_its_place_and_no_value(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{\n "optimization": {"vae_tile_size": 4096, "enable_ofload": true},\n "schedul": {},\n'
        f' "settings": {{"port": "{SECRET}", "api_key": "{SECRET}"}}\n}}'
    )
    found = config(tmp_path, "validate", status=1)
    faults = {one["name"]: (one["line"], one["column"], one["nearest"]) for one in found["faults"]}
    assert faults == {
        "schedul": (3, 2, "schedule"),
        "optimization.vae_tile_size": (2, 19, 512),
        "optimization.enable_ofload": (2, 42, "enable_offload"),
        "settings.port": (4, 15, None),
        "settings.api_key": (4, 34, None),
    }
    said = invoke("config", "validate", home=tmp_path)
    assert SECRET not in said.stdout + said.stderr + json.dumps(found)
    (tmp_path / "config.json").write_text("{\r\n}\r\n")
    assert config(tmp_path, "validate")["valid"]


def test_a_broken_file_is_refused_with_line_and_reason_and_undone(tmp_path: Path) -> None:
    config(tmp_path, "set", "optimization.vae_tile_size=384")
    (tmp_path / "config.json").write_text('{"optimization": {\n  "vae_tile_size": 128,\n}}')
    for command in (["config", "set", "generation.mode=mock"], ["serve", "--port", "0"], ["worker"]):
        refused = invoke(*command, home=tmp_path)
        assert refused.returncode == 1
        assert "config.json is not valid JSON at line 3, column 1" in refused.stderr
        assert "wan22 config undo" in refused.stderr
    assert "line 3, column 1" in config(tmp_path, "validate", status=1)["faults"][0]["message"]
    assert in_force(tmp_path, "optimization.vae_tile_size") == 384
    config(tmp_path, "undo")
    assert config(tmp_path, "validate")["valid"]
    (tmp_path / "config.json").write_text('{"settings": {"port": 70000}}')
    refused = invoke("serve", home=tmp_path)
    assert refused.returncode == 1
    assert "config.json, line 1, column 15: `settings.port` must be" in refused.stderr


@pytest.mark.parametrize(
    ("content", "generation", "name", "value"),
    [
        (json.dumps(BASIC), "four sections", "optimization.max_vram_usage_gb", 12),
        (json.dumps(GRADIO), "full structure", "optimization.vae_tile_size", 320),
        (json.dumps(SERVER), "server", "settings.threads", 8),
        (MODELS_TOML, "models.toml", None, None),
    ],
)
def test_a_file_of_each_generation_is_migrated_with_a_report(
    tmp_path: Path, content: str, generation: str, name: str | None, value: object
) -> None:
    home = tmp_path / "home"
    file = tmp_path / ("models.toml" if generation == "models.toml" else "old.json")
    file.write_text(content)
    if name is not None:
        assert config(home, "validate", str(file))["earlier_application"]
    would = config(home, "migrate", str(file), "--dry-run")
    assert not (home / "config.json").exists()
    done = config(home, "migrate", str(file))
    assert {**done, "dry_run": True} == would
    assert done["generation"] == generation
    assert {one["fate"] for one in done["settings"]} >= {"moved", "not supported"}
    assert all(one["message"] for one in done["settings"])
    assert done["changed"]
    assert config(home, "validate")["valid"]
    if name is not None:
        assert in_force(home, name) == value
    assert file.read_bytes() == content.encode()
    assert config(home, "migrate", str(file))["changed"] == []
    said = invoke("config", "migrate", str(file), home=home).stdout + (home / "config.json").read_text()
    assert SECRET not in said + json.dumps(done)
    config(home, "undo")
    assert json.loads((home / "config.json").read_text()) == {}


def test_a_password_is_masked_and_others_who_can_read_it_are_noticed(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    url = f"postgresql://wan:{SECRET}@db/wan"
    config(tmp_path, "set", f"settings.database_url={url}")
    told = json.dumps([config(tmp_path, "show"), config(tmp_path, "diff"), config(tmp_path, "history")])
    assert "wan:***@db" in told
    assert SECRET not in told
    assert "can be read" not in invoke("models", "list", home=tmp_path).stderr
    file.chmod(0o644)
    warned = invoke("models", "list", home=tmp_path).stderr
    assert "config.json holds a password and can be read by other users of this machine" in warned
    assert SECRET not in warned
