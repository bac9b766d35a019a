"""Two damaged databases under a real server; `make damage` has two hundred."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.damage.__main__ import main


@pytest.mark.timeout(900)  # server starts on a busy machine
def test_a_damaged_database_costs_no_more_than_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    status = main(["--seeds", "2", "--first", "9", "--json", str(file), "--folder", str(tmp_path)])
    values = json.loads(file.read_text())
    assert values["broken"] == []
    assert status == 0
    assert sum(values["outcomes"].values()) == values["seeds"] == 2
