"""The progress of a task, on a screen and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from backend.commands.console.progress_bar import follow_with_bar

TASKS = [
    {"status": "pending", "progress": 0, "queue_position": 2},
    {"status": "processing", "progress": 41, "progress_percent": 41.5, "message": "Step [1] of 2"},
    {"status": "processing", "progress": 42, "progress_percent": 42.0, "message": "Step [1] of 2"},
    {"status": "completed", "progress": 100},
]


@pytest.mark.parametrize("screen", [True, False])
def test_every_task_has_its_label_and_the_last_state_is_returned(screen: bool) -> None:
    console = Console(file=io.StringIO(), force_terminal=screen, width=120)
    assert follow_with_bar(iter(TASKS), console, "2/3 ") == TASKS[-1]
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2/3 " in said
    assert "100" in said


def test_a_task_that_has_no_turn_says_why() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=120)
    follow_with_bar(iter([{"status": "pending", "progress": 0, "message": "Somebody paused [it]"}]), console)
    assert console.file.getvalue() == "  0.0 %  waiting. Somebody paused [it]\n"  # type: ignore[attr-defined]


def test_a_log_gets_a_line_for_each_stage_or_tenth_and_text_as_it_is() -> None:
    console = Console(file=io.StringIO(), force_terminal=False, width=120)
    follow_with_bar(iter(TASKS), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == [
        "  0.0 %  waiting, number 2 in the queue",
        " 41.5 %  Step [1] of 2",
        "100.0 %  completed",
    ]
