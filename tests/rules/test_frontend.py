"""The layout of the web interface: the rules of the house, for TypeScript."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2] / "frontend"
MOST_FILES = 14
MOST_LINES = 450
SOURCES = [
    path
    for path in sorted(ROOT.rglob("*.ts*"))
    if "node_modules" not in path.parts and not path.name.endswith((".gen.ts", ".config.ts"))
]
CODE = [path for path in SOURCES if ".test." not in path.name]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_folders_and_files_stay_small() -> None:
    assert len(CODE) > 40
    folders = Counter(path.parent for path in CODE)
    assert {_name(folder): count for folder, count in folders.items() if count > MOST_FILES} == {}
    lines = {_name(path): len(path.read_text().splitlines()) for path in CODE}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_every_file_says_first_what_it_is() -> None:
    assert [_name(path) for path in CODE if not path.read_text().startswith("/**")] == []


def test_the_kit_and_the_client_know_no_subject() -> None:
    subjects = {path.name for path in ROOT.iterdir() if path.is_dir()} - {
        "ui",
        "http",
        "live",
        "node_modules",
        "public",
    }
    assert {"tasks", "gallery", "models"} <= subjects
    for path in CODE:
        if path.parent.name in ("ui", "http"):
            used = set(re.findall(r'from "@/(\w+)/', path.read_text()))
            assert used & subjects == set(), _name(path)


def test_packages_are_pinned_and_run_nothing_when_they_are_installed() -> None:
    package = json.loads((ROOT / "package.json").read_text())
    wanted = package["dependencies"] | package["devDependencies"]
    assert [name for name, version in wanted.items() if not re.fullmatch(r"\d+\.\d+\.\d+", version)] == []
    assert "ignore-scripts=true" in (ROOT / ".npmrc").read_text()
    lock = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert [name for name, entry in lock.items() if name and not {"integrity", "inBundle"} & entry.keys()] == []
    assert [name for name, entry in lock.items() if "resolved" in entry] == [], "an address of one machine's registry"


def test_nothing_in_the_page_writes_markup_or_runs_text() -> None:
    forbidden = re.compile(r"dangerouslySetInnerHTML|\.innerHTML|\beval\(|new Function\(|document\.write")
    assert [_name(path) for path in CODE if forbidden.search(path.read_text())] == []
