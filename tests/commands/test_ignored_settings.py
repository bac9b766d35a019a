"""What has no effect in the environment and in config.json is reported by every command, with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.support import invoke

CONFIG = """{
  "optimisation": {"max_vram_usage_gb": 8},
  "optimization": {"max_vram_usage_gb": 8, "tile": 1},
  "models": {},
  "models": {"tiny-t2v-a14b": {"defaults": {"steps": 6, "stepz": 5}}},
  "loras": 7
}"""
PLACES = {
    "config.json, line 2, column 3: `optimisation` is not a section and is ignored; did you mean `optimization`?",
    "config.json, line 4, column 3: `models` is ignored: it occurs again below",
    "config.json, line 3, column 44: `optimization.tile` is not a setting and is ignored",
    "config.json, line 5, column 57: `models.tiny-t2v-a14b.defaults.stepz` is ignored: "
    "defaults.stepz is not a key of a model entry",
    "config.json, line 6, column 3: `loras` must be an object; it is ignored",
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(CONFIG)
    return tmp_path


def test_a_command_warns_of_everything_that_it_ignores(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_DEVCE", "cuda")
    done = invoke("models", "list", home=home)
    assert done.returncode == 0
    warnings = {line.removeprefix("warning: ") for line in done.stderr.splitlines() if line.startswith("warning: ")}
    assert warnings == PLACES | {
        "The environment variable WAN22_DEVCE is not a setting and is ignored; did you mean WAN22_DEVICE?"
    }


def test_doctor_lists_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAN22_HOMES", "/")
    done = invoke("doctor", "--offline", "--json", home=home)
    assert done.returncode == 1
    json.loads(done.stdout)  # and nothing else is printed there, whatever is logged
    for sentence in PLACES:
        assert sentence in done.stdout
    assert "did you mean WAN22_HOME?" in done.stdout


@pytest.mark.parametrize("content", ["{", "[]", '{"models": {}}'])
def test_help_and_version_report_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    for words in (["--help"], ["--version"], ["models", "list", "--help"]):
        assert "warning" not in invoke(*words, home=tmp_path).stderr
