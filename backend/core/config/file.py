"""`config.json` of the home folder: one JSON object with a section per subject, replaced atomically.

Knows no subject: the owner of a section knows its keys and checks them. Unknown sections are preserved.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock

from backend.core.errors.surroundings import BadSettings
from backend.core.files import decode_json, read_json, write_bytes

LOCK_SECONDS = 10.0
#: Depth to which keys have a place: section, entry, group, key.
_DEPTH: Final = 4
_SPACE: Final = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The file at `path`; a missing file reads as empty."""

    path: Path

    def section(self, name: str) -> dict[str, Any]:
        """Return the current content of a section; empty when there is none.

        Raises:
            BadSettings: the file cannot be read, or it or the section is not a JSON object.
        """
        section = self._read().get(name, {})
        if not isinstance(section, dict):
            raise BadSettings(f"{self.place(name)}: `{name}` must be an object")
        return section

    def update(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Replace a section with what `change` makes of it, under a lock, and return the new content.

        Raises:
            BadSettings: as `section`. When `change` raises, the file stays unchanged.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock"), timeout=LOCK_SECONDS):
            section = change(self.section(name))
            self._write({**self._read(), name: section})
        return section

    def sections(self) -> list[str]:
        """Return the names of all sections.

        Raises:
            BadSettings: as `section`.
        """
        return list(self._read())

    def place(self, *keys: str) -> str:
        """Return where a key is, such as `config.json, line 3, column 5`; the file's name alone if it has gone."""
        return dict(self._places()).get(keys, self.path.name)

    def repeated(self) -> list[tuple[str, str]]:
        """Return the place and the dotted name of each key that a later one of the same name overrides."""
        places = self._places()
        last = dict(places)
        return [(place, ".".join(path)) for path, place in places if last[path] != place]

    @property
    def mark(self) -> tuple[int, int] | None:
        """A value that changes whenever the file does; None while there is no file."""
        try:
            status = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_mtime_ns, status.st_ino

    def _read(self) -> dict[str, Any]:
        try:
            value = read_json(self.path, finite=False)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise BadSettings(f"{self.path.name} cannot be read: {error.strerror or type(error).__name__}") from None
        except ValueError as error:
            raise BadSettings(f"{self.path.name} {error}", suggestions=(f"Correct {self.path}.",)) from None
        if not isinstance(value, dict):
            raise BadSettings(f"{self.path.name} must hold one JSON object")
        return value

    def _places(self) -> list[tuple[tuple[str, ...], str]]:
        try:
            text = decode_json(self.path.read_bytes())
            found = _positions(text)
        except (OSError, ValueError, IndexError):  # it has changed since it was read
            return []
        return [(path, f"{self.path.name}, {_line_and_column(text, at)}") for path, at in found]

    def _write(self, value: dict[str, Any]) -> None:
        write_bytes(self.path, json.dumps(value, indent=2, ensure_ascii=False).encode())


def _positions(text: str) -> list[tuple[tuple[str, ...], int]]:
    """Return the path and the offset of every key of a JSON object, in order."""
    found: list[tuple[tuple[str, ...], int]] = []
    decoder = json.JSONDecoder()

    def skip(at: int) -> int:
        space = _SPACE.match(text, at)
        return at if space is None else space.end()

    def walk(at: int, path: tuple[str, ...]) -> int:
        at = skip(at + 1)
        while text[at] != "}":
            name, end = decoder.raw_decode(text, at)
            here = (*path, name)
            found.append((here, at))
            at = skip(skip(end) + 1)
            inside = text[at] == "{" and len(here) < _DEPTH
            at = skip(walk(at, here) if inside else decoder.raw_decode(text, at)[1])
            if text[at] == ",":
                at = skip(at + 1)
        return at + 1

    walk(skip(0), ())
    return found


def _line_and_column(text: str, at: int) -> str:
    before = text[:at]
    return f"line {before.count(chr(10)) + 1}, column {at - before.rfind(chr(10))}"
