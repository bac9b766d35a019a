"""Every version of config.json is kept; undo goes back step by step; edits by hand are noticed, never overwritten."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from backend.core.config import history
from backend.core.config.file import ConfigFile
from backend.core.config.history import BY_HAND
from backend.core.errors.lookups import StateConflict
from backend.core.planning.constraints import stored_optimization


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path / "config.json")


def tile(file: ConfigFile) -> int:
    return stored_optimization(file).current().vae_tile_size


def test_undo_goes_back_step_by_step_and_forward_again(file: ConfigFile) -> None:
    kept = stored_optimization(file)
    for size in (192, 256, 320):
        kept.change({"vae_tile_size": size})
    seen = []
    for _ in range(2):
        file.undo()
        seen.append(tile(file))
    assert seen == [256, 192]
    file.undo()
    assert file.content() == {}
    with pytest.raises(StateConflict, match="no earlier version"):
        file.undo()
    file.undo(4)  # the one with 320: `found`, 192, 256, 320
    assert tile(file) == 320
    file.undo()
    assert tile(file) == 256


def test_a_version_names_what_it_changed_and_who_did(file: ConfigFile) -> None:
    token = history.AUTHOR.set("somebody")
    try:
        stored_optimization(file).change({"vae_tile_size": 192})
    finally:
        history.AUTHOR.reset(token)
    newest = file.history.versions()[0]
    assert (newest.by, newest.changed) == ("somebody", ("optimization.vae_tile_size",))


def test_an_edit_by_hand_is_a_version_of_its_own(file: ConfigFile) -> None:
    kept = stored_optimization(file)
    kept.change({"vae_tile_size": 192})
    file.path.write_text('{"optimization": {"vae_tile_size": 384}}')
    kept.change({"enable_offload": False})
    assert kept.current().vae_tile_size == 384
    versions = file.history.versions()
    assert [one.by for one in versions[:2]] == ["wan22", BY_HAND]
    file.undo()
    assert json.loads(file.path.read_text()) == {"optimization": {"vae_tile_size": 384}}


def test_an_edit_during_a_change_is_not_overwritten(file: ConfigFile) -> None:
    file.path.write_text('{"a": {"x": 1}}')
    calls = 0

    def change(section: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls == 1:
            file.path.write_text('{"a": {"x": 1, "by hand": 2}}')
        return {**section, "y": 3}

    assert file.update("a", change) == {"x": 1, "by hand": 2, "y": 3}
    assert calls == 2


def test_a_file_that_never_rests_is_left_alone(file: ConfigFile) -> None:
    count = 0

    def change(section: dict[str, Any]) -> dict[str, Any]:
        nonlocal count
        count += 1
        file.path.write_text(json.dumps({"a": {"edits": count}}))
        return {**section, "mine": True}

    with pytest.raises(StateConflict, match="being edited"):
        file.update("a", change)
    assert file.content() == {"a": {"edits": count}}


def test_undo_mends_a_broken_file(file: ConfigFile) -> None:
    stored_optimization(file).change({"vae_tile_size": 192})
    file.path.write_text('{"optimization": {"vae_tile_size": 192,}}')
    file.undo()
    assert tile(file) == 192
    assert not stored_optimization(file).faults()


def test_a_running_process_keeps_what_it_had_while_the_file_is_broken(file: ConfigFile) -> None:
    kept = stored_optimization(file)
    kept.change({"vae_tile_size": 192, "max_vram_usage_gb": 12})
    good = file.path.read_text()
    for broken in (
        "{",
        "[]",
        '{"optimization": 3}',
        '{"optimization": {"vae_tile_size": "x", "max_vram_usage_gb": -1}}',
    ):
        file.path.write_text(broken)
        assert (kept.current().vae_tile_size, kept.current().max_vram_usage_gb) == (192, 12), broken
        assert kept.faults()
    file.path.write_text(good.replace("192", "256"))
    assert kept.current().vae_tile_size == 256


def test_only_so_many_versions_are_kept_and_nobody_else_reads_them(
    file: ConfigFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEPT", 3)
    for size in (128, 129, 130, 131, 132):
        stored_optimization(file).change({"vae_tile_size": size})
    versions = file.history.versions()
    assert [one.number for one in versions] == [6, 5, 4]
    folder = file.path.parent / history.FOLDER
    for path in (file.path, *folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.path.chmod(0o640)
    stored_optimization(file).change({"vae_tile_size": 200})
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640
