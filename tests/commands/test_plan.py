"""`wan22 plan` answers for this machine and for imagined ones, and the table in the documents is what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.commands.plan import overview_table
from backend.core.catalogue.table import MODELS
from backend.core.planning.memory_plan import PLANS
from tests.commands.support import invoke

PLANNER = Path(__file__).parents[2] / "docs" / "planner.md"


def test_the_table_in_the_documents_is_the_one_that_is_printed() -> None:
    done = invoke("plan", "--table")
    assert done.returncode == 0, done.stderr
    assert done.stdout == PLANNER.read_text(), "run `wan22 plan --table > docs/planner.md`"
    assert done.stdout.count("estimated") == 1
    models = [spec for spec in MODELS.values() if not spec.embedded]
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ") and "---" not in line]
    assert len(rows) == 1 + len(models) + len(models) * (1 + 7), "the overview, then seven cards for each model"


def test_the_overview_names_a_plan_or_what_would_fit_for_every_model_and_card() -> None:
    _, _, *rows = overview_table().splitlines()
    assert [row.split(",")[0] for row in rows] == [f"| {spec.id}" for spec in MODELS.values() if not spec.embedded]
    for row in rows:
        _, _, *cells, _ = (cell.strip() for cell in row.split("|"))
        assert len(cells) == 6
        assert all(cell.startswith(("*no*; ", *(plan.name for plan in PLANS))) for cell in cells)
        assert [" min" in cell or " s" in cell for cell in cells if "*no*" not in cell][-1], "an H100 has a time"


def test_a_plan_is_given_with_the_reason_of_every_other() -> None:
    done = invoke("plan", "T2V-A14B", "--size", "832x480", "--vram", "24", "--ram", "64", "--card", "RTX 4090", "--all")
    assert done.returncode == 0, done.stderr
    assert "T2V-A14B at 832x480, 81 frames" in done.stdout
    assert "of the" in done.stdout
    assert "estimated" in done.stdout
    assert done.stdout.count("resident-bf16") >= 4
    assert "taken" in done.stdout


def test_what_does_not_fit_fails_and_names_what_would() -> None:
    done = invoke("plan", "t2v", "--vram", "8", "--ram", "32")
    assert done.returncode == 1
    assert "does not fit" in done.stdout
    assert "would fit" in done.stdout


def test_without_a_model_all_are_weighed() -> None:
    done = invoke("plan", "--vram", "0", "--ram", "8", "--all")
    assert done.returncode == 0, done.stderr
    assert "tiny-t2v-a14b at 96x96, 17 frames: resident-fp32" in done.stdout
    assert "T2V-A14B at 1280x720, 81 frames does not fit" in done.stdout


@pytest.mark.parametrize("arguments", [["T9V"], ["tiny", "--size", "big"], ["tiny", "--frames", "999"]])
def test_what_no_model_can_make_is_a_sentence(arguments: list[str]) -> None:
    done = invoke("plan", *arguments)
    assert done.returncode == 1
    assert "error:" in done.stderr


def test_doctor_says_what_fits(tmp_path: Path) -> None:
    done = invoke("doctor", "--offline", home=tmp_path / "home")
    assert "TI2V-5B plan" in done.stdout
    assert "estimated" in done.stdout


def test_the_readme_has_the_overview() -> None:
    assert overview_table().strip() in (PLANNER.parents[1] / "README.md").read_text()
