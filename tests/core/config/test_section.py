"""Each key of a section is judged alone: what cannot be used is reported with its place, and the rest is in force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backend.core.config.download_limit import stored_downloads
from backend.core.config.file import ConfigFile
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings
from backend.core.planning.constraints import SECTION, stored_optimization
from backend.core.planning.memory_level import ResourceLimits, stored_limits


def written(folder: Path, **sections: object) -> ConfigFile:
    file = ConfigFile(folder / "config.json")
    file.path.write_text(json.dumps(sections, indent=2))
    return file


@pytest.mark.parametrize(
    ("others", "key", "sentence"),
    [
        ({"tile": 1}, "tile", "is not a setting"),
        ({"vae_tile_sise": 256}, "vae_tile_sise", "did you mean `vae_tile_size`?"),
        ({"vae_tile_size": 9}, "vae_tile_size", "between 128 and 512"),
        ({"vae_tile_size": 1e999}, "vae_tile_size", "between 128 and 512"),
        ({"vae_tile_size": [256]}, "vae_tile_size", "between 128 and 512"),
        ({"quantization": {"bits": 4}}, "quantization", "auto, bf16, fp8"),
        ({"enable_offload": "yes"}, "enable_offload", "true or false"),
        ({"clear\x1b[2J": 1}, "clear", "is not a setting"),
    ],
)
def test_a_memory_limit_holds_beside_any_mistake(
    tmp_path: Path, others: dict[str, Any], key: str, sentence: str
) -> None:
    kept = stored_optimization(written(tmp_path, optimization=others | {"max_vram_usage_gb": 12}))
    assert kept.current().max_vram_usage_gb == 12
    (fault,) = kept.faults()
    assert fault.sentence.startswith(f"config.json, line 3, column 5: `optimization.{key}")
    assert sentence in fault.sentence
    assert fault.sentence.isprintable()
    with pytest.raises(BadSettings, match="line 3, column 5"):
        kept.read()


def test_several_mistakes_are_all_reported(tmp_path: Path) -> None:
    kept = stored_optimization(written(tmp_path, optimization={"a": 1, "vae_tile_size": 1, "enable_offload": 0}))
    assert [fault.sentence.split(":")[0] for fault in kept.faults()] == [
        f"config.json, line {line}, column 5" for line in (3, 5, 4)
    ]


@pytest.mark.parametrize(
    ("stored", "warning", "critical", "faults"),
    [
        ({"vram_critical_threshold": 0.5}, 0.5, 0.5, 0),
        ({"vram_warning_threshold": 0.9, "vram_critical_threshold": 0.6}, 0.6, 0.6, 1),
        ({"vram_critical_threshold": 0.6, "vram_warning_threshold": "much"}, 0.6, 0.6, 1),
        ({"vram_warning_threshold": 0.3, "vram_critical": 0.6}, 0.3, 0.9, 1),
    ],
)
def test_the_harder_memory_limit_is_never_lost(
    tmp_path: Path, stored: dict[str, Any], warning: float, critical: float, faults: int
) -> None:
    kept = stored_limits(written(tmp_path, constraints=stored))
    limits = kept.current()
    assert (limits.vram_warning_threshold, limits.vram_critical_threshold) == (warning, critical)
    assert limits.ram_critical_threshold == ResourceLimits().ram_critical_threshold
    assert len(kept.faults()) == faults


def test_a_change_keeps_what_is_ignored_for_its_author(tmp_path: Path) -> None:
    file = written(tmp_path, optimization={"vae_tile_sise": 128, "enable_offload": "no", "max_vram_usage_gb": 8})
    kept = stored_optimization(file)
    assert kept.change({"vae_tile_size": 192}).max_vram_usage_gb == 8
    section = file.section(SECTION)
    assert (section["vae_tile_sise"], section["enable_offload"], section["vae_tile_size"]) == (128, "no", 192)
    assert len(kept.faults()) == 2
    assert kept.change({"enable_offload": False}).enable_offload is False
    assert len(kept.faults()) == 1
    with pytest.raises(InvalidRequest):
        kept.change({"vae_tile_sise": 128})


def test_a_download_limit_survives_a_foreign_key(tmp_path: Path) -> None:
    kept = stored_downloads(written(tmp_path, downloads={"bandwith_limit_mbps": 1, "bandwidth_limit_mbps": 2}))
    assert kept.current().bandwidth_limit_mbps == 2
    (fault,) = kept.faults()
    assert "did you mean `bandwidth_limit_mbps`?" in fault.sentence
