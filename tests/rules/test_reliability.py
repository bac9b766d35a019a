"""The tables of faults and of attacks name tests that exist, and every test of a fault is in the first one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
NUMBERED = re.compile(r"^\s*(?:async )?def (test_(\d\d)_\w+)\(", re.MULTILINE)
FAULTS = 40
ATTACKS = 30
#: Faults of workers and of the queue: one test each that has their number in its name.
OWN_TESTS = {1, 2, 4, 5, 6, 7, 8, 9, 13, 31}

PAGE = (ROOT / "docs" / "reliability.md").read_text()
SECURITY = (ROOT / "SECURITY.md").read_text()
ROWS = {int(row[1]): row for row in ROW.finditer(PAGE)}
ATTACK_ROWS = {int(row[1]): row for row in ROW.finditer(SECURITY)}


def test_every_fault_and_every_attack_has_a_row() -> None:
    assert list(ROWS) == list(range(1, FAULTS + 1))
    assert list(ATTACK_ROWS) == list(range(1, ATTACKS + 1))


def test_every_row_names_a_test_that_exists_or_says_that_there_is_nothing_to_test() -> None:
    for row in (*ROWS.values(), *ATTACK_ROWS.values()):
        assert TEST.findall(row[3]) or row[3] == "not built", row[0]
    for file, name in TEST.findall(PAGE + SECURITY):
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_a_test_that_is_numbered_after_a_fault_is_in_its_row() -> None:
    found = set()
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name, number in NUMBERED.findall(path.read_text()):
            assert f"`{path.relative_to(ROOT)}::{name}`" in ROWS[int(number)][3], name
            found.add(int(number))
    assert found >= OWN_TESTS
