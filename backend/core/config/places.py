"""Where each key of a JSON text is: its line and column, for messages about it.

Knows no subject and no file; the text must have been parsed before.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

#: Depth to which keys have a place: section, entry, group, key.
_DEPTH: Final = 4
_SPACE: Final = re.compile(r"[ \t\n\r]*")

#: The names that lead to a key, outermost first.
Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text; both numbers begin at 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


def positions(text: str) -> list[tuple[Keys, Position]]:
    """Return the path and the position of every key of a JSON object, in order; empty if it is not a JSON object."""
    try:
        return [(path, _position(text, at)) for path, at in _offsets(text)]
    except (ValueError, IndexError):
        return []


def _offsets(text: str) -> list[tuple[Keys, int]]:
    found: list[tuple[Keys, int]] = []
    decoder = json.JSONDecoder()

    def skip(at: int) -> int:
        space = _SPACE.match(text, at)
        return at if space is None else space.end()

    def walk(at: int, path: Keys) -> int:
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

    start = skip(0)
    if text[start] != "{":
        return []
    walk(start, ())
    return found


def _position(text: str, at: int) -> Position:
    return Position(text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
