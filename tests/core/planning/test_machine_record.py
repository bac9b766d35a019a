"""The machine of the last start is compared with this one, whatever the file contains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from backend.core.planning.hardware import GIB, Gpu, detect_hardware, last_profile, remember


def test_a_change_between_two_starts_is_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "hardware.json"
    now = detect_hardware(tmp_path)
    assert remember(path, now) == []
    with_card = replace(now, gpus=(Gpu(0, "NVIDIA H100", 80 * GIB, 0, None, (9, 0)),))
    assert remember(path, with_card) == ["GPU 0 is new: NVIDIA H100, 80.0 GiB"]
    assert remember(path, with_card) == []
    assert last_profile(path) == with_card


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"gpus": 1}', '{"gpus": [], "disk": 7}'])
def test_a_record_of_another_version_is_ignored(tmp_path: Path, content: str) -> None:
    path = tmp_path / "hardware.json"
    path.write_text(content)
    assert last_profile(path) is None
    now = detect_hardware(tmp_path)
    assert remember(path, now) == []
    assert last_profile(path) == now


def test_an_unwritable_folder_stops_nothing(tmp_path: Path) -> None:
    assert remember(tmp_path / "missing" / "hardware.json", detect_hardware()) == []
