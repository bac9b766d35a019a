"""A configuration of each generation of the earlier application is read, judged and migrated, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.core.config.file import ConfigFile
from backend.core.config.models_toml import read_models_toml
from backend.core.config.older_keys import Fate, Generation, read_older, with_new_names
from backend.core.errors.surroundings import BadSettings
from backend.core.planning.constraints import Quantization, stored_optimization
from backend.core.planning.memory_level import stored_limits
from tests.core.config.earlier import BASIC, GRADIO, MODELS_TOML, SERVER


def leaves(content: dict[str, Any]) -> set[tuple[str, str]]:
    return {(section, key) for section, inside in content.items() for key in inside}


@pytest.mark.parametrize(
    ("content", "generation"),
    [(BASIC, Generation.BASIC), (GRADIO, Generation.GRADIO), (SERVER, Generation.SERVER)],
)
def test_every_setting_of_a_generation_is_accounted_for(content: dict[str, Any], generation: Generation) -> None:
    older = read_older(content)
    assert older.generation is generation
    told = {one.keys for one in older.settings}
    native = {(section, key) for section, inside in older.values.items() for key in inside} & leaves(content)
    assert told | native >= leaves(content)
    assert {one.sentence for one in older.settings}
    assert "hunter2" not in " ".join(one.sentence for one in older.settings)


def test_the_full_structure_has_its_effect_under_the_names_of_today() -> None:
    values = read_older(GRADIO).values
    assert values["optimization"] == {
        "quantization": "int8",
        "enable_offload": False,
        "max_vram_usage_gb": 12,
        "vae_tile_size": 320,
    }
    assert values["constraints"] == {
        "vram_warning_threshold": 0.85,
        "cpu_warning_threshold": 0.95,
        "ram_warning_threshold": 0.8,
    }
    assert values["settings"] == {"stats_seconds": 5}
    # 30 steps were chosen; 24 frames a second were the earlier application's own default.
    assert values["models"]["T2V-A14B"]["defaults"] == {"steps": 30, "width": 832, "height": 480}
    assert not {"ui", "system", "performance", "t2v_model"} & {*values, *values["models"]}


def test_the_server_generation_opens_no_door() -> None:
    older = read_older(SERVER)
    assert older.values["settings"] == {
        "threads": 8,
        "auto_download": False,
        "port": 8000,
        "cors_origins": ["http://localhost:3000"],
        "log_max_mb": 50.0,
        "log_generations": 5,
    }
    assert older.values["generation"] == {"mode": "real", "on_model_failure": "fail"}
    fates = {one.keys: one for one in older.settings}
    assert fates["api", "host"].fate is Fate.UNSUPPORTED
    assert "WAN22_API_KEY" in fates["api", "host"].sentence
    assert fates["hardware", "vram_limit_gb"].fate is Fate.SHADOWED


def test_the_values_are_in_force_before_anything_is_migrated(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")
    file.path.write_bytes(json.dumps(GRADIO, indent=2).replace("\n", "\r\n").encode("utf-8-sig"))
    kept = stored_optimization(file)
    assert (kept.current().quantization, kept.current().vae_tile_size) == (Quantization.FP8, 320)
    assert stored_limits(file).current().ram_warning_threshold == 0.8
    assert file.place("optimization", "vae_tile_size") == file.place("system", "vae_tile_size")
    assert ", line " in file.place("optimization", "vae_tile_size")
    # A change is written under the name of today, and what the file had stays in it.
    assert kept.change({"vae_tile_size": 192}).quantization is Quantization.FP8
    content = file.content()
    assert content["optimization"]["vae_tile_size"] == 192
    assert content["system"] == GRADIO["system"]
    assert content["ui"] == GRADIO["ui"]
    assert b"\r\n" in file.path.read_bytes()


def test_an_unusable_older_value_is_reported_where_it_stands(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")
    file.path.write_text('{\n "system": {\n  "vae_tile_size": 1024}}')
    (fault,) = stored_optimization(file).faults()
    assert fault.sentence.startswith("config.json, line 3, column 3: `optimization.vae_tile_size` is ignored")
    assert fault.nearest == 512


@pytest.mark.parametrize("content", [BASIC, GRADIO, SERVER])
def test_new_names_mean_the_same_and_lose_nothing(content: dict[str, Any]) -> None:
    renamed = with_new_names(content)
    assert read_older(renamed).values == read_older(content).values
    assert not [one for one in read_older(renamed).settings if one.fate is not Fate.UNSUPPORTED]
    assert with_new_names(renamed) == renamed
    for one in read_older(content).settings:
        if one.fate is Fate.UNSUPPORTED:
            assert renamed[one.keys[0]][one.keys[1]] == content[one.keys[0]][one.keys[1]]


def test_a_model_of_the_users_may_have_any_name() -> None:
    content = {"models": {"default_model": {"base": "TI2V-5B"}}}
    assert read_older(content).values == content
    assert read_older(content).generation is None


def test_a_list_of_models_gives_their_defaults_and_says_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MODELS_TOML.encode())
    older = read_models_toml(path)
    assert older.values == {
        "models": {"T2V-A14B": {"defaults": {"fps": 24, "num_frames": 81, "guidance_scale": 7.5, "steps": 50}}}
    }
    unsupported = {one.keys[-1] for one in older.settings if one.fate is Fate.UNSUPPORTED}
    assert unsupported == {"variants", "scheduler", "precision", "vram_estimation", "files", "sources"}


def test_a_broken_list_of_models_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_text("schema_version = 1\nmodels = [\n")
    with pytest.raises(BadSettings, match=r"models\.toml is not valid TOML at (line \d+, column \d+|end of document)"):
        read_models_toml(path)
