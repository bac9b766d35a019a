"""docs/first-evening.md shows what the commands print now; those that need no server are run again here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.first_evening import LIVE, PAGE, STEADY, Section, Session, page_section

TEXT = PAGE.read_text()


@pytest.mark.parametrize("section", STEADY, ids=lambda section: section.title)
def test_what_needs_no_server_prints_what_the_page_shows(section: Section, tmp_path: Path) -> None:
    session = Session(tmp_path)
    assert page_section(section, session) in TEXT, "run `python -m docs.first_evening`"


def test_every_command_is_on_the_page_and_none_ends_unforeseen() -> None:
    shown = set(re.findall(r"^\$ (.*)$", TEXT, re.MULTILINE))
    assert {command for section in (*STEADY, *LIVE) for command in section.commands} <= shown
    assert any("Ctrl-C" in command for command in shown)
    for word in ("Traceback", "unexpected", "Errno", "Input should", "Exception"):
        assert word not in TEXT
    steps = re.findall(r"^  → (.*)$", TEXT, re.MULTILINE)
    assert len(steps) > 12
    assert not any("/api/" in step or "POST" in step for step in steps)
