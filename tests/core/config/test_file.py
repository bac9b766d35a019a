"""The configuration file: sections, what is stored, what is refused, concurrent writers."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backend.core.config.file import ConfigFile
from backend.core.errors.base import WanError
from backend.core.errors.surroundings import BadSettings


def test_a_missing_file_is_empty(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")
    assert file.section("models") == {}
    assert file.mark is None


def test_a_change_keeps_every_other_section(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")
    file.path.write_text('{"a": {"x": 1}, "from a later version": [1, 2]}')
    before = file.mark
    assert file.update("b", lambda section: {**section, "y": 2}) == {"y": 2}
    assert (file.section("a"), file.section("b")) == ({"x": 1}, {"y": 2})
    assert '"from a later version"' in file.path.read_text()
    assert file.mark != before


def test_a_change_that_fails_changes_nothing(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")
    file.update("a", lambda _: {"x": 1})

    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise BadSettings("no")

    with pytest.raises(BadSettings):
        file.update("a", refuse)
    assert file.section("a") == {"x": 1}


@pytest.mark.parametrize("content", ["{", "[]", '{"models": 3}', b"\xff"])
def test_an_invalid_configuration_is_refused_by_name(tmp_path: Path, content: str | bytes) -> None:
    file = ConfigFile(tmp_path / "config.json")
    file.path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadSettings, match=r"config\.json"):
        file.section("models")


def test_concurrent_writers_lose_no_change(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")

    def write(number: int) -> None:
        file.update("numbers", lambda section: {**section, str(number): number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(40)))
    assert sorted(file.section("numbers").values()) == list(range(40))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_of_a_windows_editor_is_read_and_changed(tmp_path: Path, encoding: str) -> None:
    file = ConfigFile(tmp_path / "config.json")
    file.path.write_bytes('{\r\n  "a": {"name": "Grüße"}\r\n}'.encode(encoding))
    assert file.section("a") == {"name": "Grüße"}
    file.update("b", lambda _: {"x": 1})
    assert (file.section("a"), file.section("b")) == ({"name": "Grüße"}, {"x": 1})
    assert file.path.read_text(encoding="utf-8").startswith("{")


def test_a_mistake_is_named_with_its_line_and_column(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")
    file.path.write_text('{\n  "a": {"x": 1,}\n}')
    with pytest.raises(BadSettings, match=r"not valid JSON at line 2, column 1\d"):
        file.section("a")


def test_every_key_has_a_place(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path / "config.json")
    file.path.write_text('{\n "a": {"x": [{"y": 1}], "y":\n  {"z": {"w": {"deep": {}}}}},\n "b": {}, "a": {"y": 2}}')
    assert file.place("a") == "config.json, line 4, column 11"
    assert file.place("a", "y", "z") == "config.json, line 3, column 4"
    assert file.place("a", "no") == "config.json"
    assert [(str(place), keys) for place, keys in file.repeated()] == [
        ("line 2, column 2", ("a",)),
        ("line 2, column 25", ("a", "y")),
    ]


def test_two_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """Every change of each is there, once as a version and all in the newest content; a reader sees whole files."""
    path, rounds = tmp_path / "config.json", 15
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), name, str(rounds)], stdin=subprocess.PIPE)
        for name in ("a", "b")
    ]
    for writer in writers:  # both have imported everything and wait
        assert writer.stdin is not None
        writer.stdin.close()
    file = ConfigFile(path)
    while any(writer.poll() is None for writer in writers):
        assert set(file.content()) <= {"a", "b"}
    assert [writer.returncode for writer in writers] == [0, 0]
    expected = {f"n{number}": number for number in range(rounds)}
    assert file.content() == {"a": expected, "b": expected}
    changed = [name for version in file.history.versions() for name in version.changed]
    assert sorted(changed) == sorted(f"{name}.n{number}" for name in ("a", "b") for number in range(rounds))


_WRITER = """
import sys
from pathlib import Path
from backend.core.config.file import ConfigFile
sys.stdin.read()
file, name = ConfigFile(Path(sys.argv[1])), sys.argv[2]
for number in range(int(sys.argv[3])):
    file.update(name, lambda section: {**section, f"n{number}": number})
"""


def test_a_link_stays_a_link_and_nothing_else_is_followed(tmp_path: Path) -> None:
    """The file may be a link to where its owner keeps it; through one in the place of the lock nothing is written."""
    kept, victim = tmp_path / "kept", tmp_path / "victim"
    kept.mkdir()
    victim.write_text("untouched")
    (kept / "mine.json").write_bytes(b"\xef\xbb\xbf{\r\n}\r\n")
    home = tmp_path / "home"
    home.mkdir()
    file = ConfigFile(home / "config.json")
    file.path.symlink_to(kept / "mine.json")
    (home / "config.lock").symlink_to(victim)
    with suppress(WanError):
        file.update("a", lambda _: {"x": 1})
    assert victim.read_text() == "untouched"
    (home / "config.lock").unlink()
    file.update("a", lambda _: {"x": 1})
    assert file.path.is_symlink()
    assert (kept / "mine.json").read_bytes() == b'{\r\n  "a": {\r\n    "x": 1\r\n  }\r\n}\r\n'
