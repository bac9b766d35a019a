"""The limit of all downloads: stored, refused, and applied to running downloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.core.config import download_limit
from backend.core.config.download_limit import BANDWIDTH, bandwidth_limit, stored_downloads
from backend.core.config.file import ConfigFile
from backend.core.errors.requests import InvalidRequest


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ConfigFile(tmp_path / "config.json")


def test_it_is_kept_beside_other_sections(file: ConfigFile) -> None:
    file.path.write_text('{"models": {}}')
    kept = stored_downloads(file)
    assert kept.current().bytes_per_second is None
    kept.change({BANDWIDTH: 2.5})
    assert stored_downloads(ConfigFile(file.path)).read().bytes_per_second == 2_500_000
    assert file.section("models") == {}
    kept.change({BANDWIDTH: None})
    assert kept.read().bytes_per_second is None


@pytest.mark.parametrize("values", [{BANDWIDTH: 0}, {BANDWIDTH: -1}, {BANDWIDTH: "fast"}, {BANDWIDTH: True}, {"x": 1}])
def test_an_invalid_value_is_refused_and_the_file_stays_unchanged(file: ConfigFile, values: dict[str, object]) -> None:
    kept = stored_downloads(file)
    kept.change({BANDWIDTH: 1.0})
    with pytest.raises(InvalidRequest):
        kept.change(values)
    assert kept.read().bytes_per_second == 1_000_000


def test_a_running_download_sees_a_change(file: ConfigFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_limit, "LOOK_SECONDS", 0.0)
    limit, with_own = bandwidth_limit(file), bandwidth_limit(file, 100.0)
    assert (limit(), with_own()) == (None, 100.0)
    stored_downloads(file).change({BANDWIDTH: 2.0})
    assert (limit(), with_own()) == (2_000_000.0, 100.0)
    stored_downloads(file).change({BANDWIDTH: 0.00001})
    assert (limit(), with_own()) == (pytest.approx(10.0), pytest.approx(10.0))
    file.path.write_text("{")  # while the file is broken, what was in force stays
    assert (limit(), with_own()) == (pytest.approx(10.0), pytest.approx(10.0))
