"""Short outages of a real server in the middle of a clip; `make outages` has the long ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.outages.__main__ import NAMES, main
from benchmarks.outages.failing_disk import why_not

#: One server for each kind: the other outages have tests of their own in tests/store and tests/worker.
ON_A_DISK = ("disk full", "disk read-only")
WITHOUT = ("database locked by another program", "machine suspended")


@pytest.mark.timeout(900)  # a server start on a busy machine
def test_short_outages_harm_no_clip(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    short = ON_A_DISK if why_not() is None else WITHOUT
    times = ["--seconds", "3", "--lease", "2", "--steps", "20", "--json", str(file), "--folder", str(tmp_path)]
    status = main([*times, *(word for name in short for word in ("--only", name))])
    values = json.loads(file.read_text())
    assert values["faults"] == []
    assert status == 0
    assert [one["outage"] for one in values["found"]] == list(short)
    assert all(one["is_unharmed"] and one["same_worker"] for one in values["found"])
    full = [one for one in values["found"] if one["outage"] == "disk full"]
    assert all("storage_full" in one["submit"] and one["ready"] != "200" for one in full)


def test_every_outage_has_one_name() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert set(ON_A_DISK + WITHOUT) < set(NAMES)
