"""The layout of the code: folders, files and imports follow the rules that let anybody find a line."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median

import grimp
import pytest

ROOT = Path(__file__).parents[2]
#: Folders of code; the tests follow the same layout and are held to the number of files alone.
CODE = ("backend", "training", "benchmarks")
MOST_FILES = 14
FEWEST_FILES = 3
MOST_LINES = 450
#: Subjects that have fewer files than a folder needs today and are certain to grow.
GROWING = {"backend/api/legacy", "backend/api/loras", "backend/engine/lora"}
#: A path that is fixed from outside.
FIXED = "backend/services/generation_service.py"
#: The tree of errors is one file on purpose: every error a client can see is in one place.
LONG_FILES = {"backend/core/errors.py": 700}


def _folders(*roots: str) -> dict[Path, list[Path]]:
    """Return the Python files of every folder, without `__init__.py`."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for root in roots:
        for path in sorted((ROOT / root).rglob("*.py")):
            if path.name != "__init__.py" and "versions" not in path.parts:
                found[path.parent].append(path)
    return found


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_a_folder_has_at_most_fourteen_files() -> None:
    folders = _folders(*CODE, "tests")
    assert len(folders) > 40
    assert {_name(folder): len(files) for folder, files in folders.items() if len(files) > MOST_FILES} == {}


def test_a_folder_has_at_least_three_files() -> None:
    small = {
        _name(folder)
        for folder, files in _folders("backend", "training").items()
        if len(files) < FEWEST_FILES and not any(child.is_dir() and child.name[0] != "_" for child in folder.iterdir())
    }
    assert small - GROWING == set()
    assert GROWING - small == set(), "these have grown; strike them from the list"


def test_a_typical_folder_can_be_taken_in_at_a_glance() -> None:
    assert 4 <= median(len(files) for files in _folders("backend").values()) <= 7


def test_no_file_repeats_the_name_of_its_folder() -> None:
    for folder, files in _folders("backend", "training").items():
        for path in files:
            if _name(path) == FIXED:
                continue
            words = path.stem.split("_")
            assert not {folder.name, folder.name.removesuffix("s")} & {*words, path.stem}, _name(path)


def test_every_folder_says_in_one_line_what_it_owns() -> None:
    for folder in _folders("backend", "training"):
        if folder.name == "migrations":  # Alembic's folder is not a package
            continue
        text = (folder / "__init__.py").read_text()
        lines = [line for line in text.splitlines() if line and not line.startswith("__version__")]
        assert len(lines) == 1, _name(folder)
        assert re.fullmatch(r'"""[^"]{10,}\.[^"]*"""', lines[0]), _name(folder)


def test_no_file_is_too_long() -> None:
    for files in _folders(*CODE).values():
        for path in files:
            lines = len(path.read_text().splitlines())
            assert lines <= LONG_FILES.get(_name(path), MOST_LINES), f"{_name(path)} has {lines} lines"


def test_every_module_says_what_it_owns() -> None:
    for files in _folders(*CODE).values():
        for path in files:
            document = ast.get_docstring(ast.parse(path.read_text()))
            assert document, _name(path)
            assert len(document.splitlines()) <= 8 or path.name == "errors.py", _name(path)


@pytest.mark.parametrize("package", ["backend", "training"])
def test_imports_run_in_no_circle(package: str) -> None:
    """Neither between files, nor between the files and folders that lie in one folder."""
    graph = grimp.build_graph(package, cache_dir=None)
    modules = graph.modules
    sheets = {module for module in modules if any(other.startswith(f"{module}.") for other in modules)}
    assert sheets
    _without_circle({module: graph.find_modules_directly_imported_by(module) for module in modules}, package)
    for sheet in sheets:
        depth = sheet.count(".") + 1
        arrows: dict[str, set[str]] = defaultdict(set)
        for module in modules:
            if module.startswith(f"{sheet}."):
                room = module.split(".")[depth]
                for imported in graph.find_modules_directly_imported_by(module):
                    if imported.startswith(f"{sheet}.") and imported.split(".")[depth] != room:
                        arrows[room].add(imported.split(".")[depth])
        _without_circle(arrows, sheet)


def _without_circle(arrows: dict[str, set[str]], sheet: str) -> None:
    """Sort the rooms of a sheet; `CycleError` names a circle."""
    assert list(TopologicalSorter(arrows).static_order()) or not arrows, sheet
