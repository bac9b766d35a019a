"""The home folder: folders that can be created are created, and those that cannot are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.core.errors.surroundings import BadSettings
from backend.core.paths import Home


def test_a_new_home_has_every_folder_and_no_error(tmp_path: Path) -> None:
    home = Home(tmp_path / "a" / "b").create()
    assert all(folder.is_dir() for folder in home.folders)
    assert home.faults() == []
    assert home.create() == home


def test_a_folder_that_cannot_be_created_is_named_and_the_rest_exists(tmp_path: Path) -> None:
    (tmp_path / "loras").write_text("a file")
    home = Home(tmp_path).create()
    assert home.faults() == ["`loras` in the home folder is not a writable folder"]
    assert home.outputs.is_dir()


def test_an_impossible_home_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    for place in ("file", "file/below"):
        with pytest.raises(BadSettings, match="cannot be created") as refused:
            Home(tmp_path / place).create()
        assert "WAN22_HOME" in refused.value.next_steps[0]
    assert Home(tmp_path / "file").faults() == ["The home folder is not a writable folder"]
