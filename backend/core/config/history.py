"""The history of config.json: one file for each version, with when and by whom it was written and which keys changed.

Versions hold values, so that they can be restored; lists of them name keys alone. Called under the lock of config.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backend.core.config.content import differences
from backend.core.domain import iso, utcnow
from backend.core.files import parse_json, read_json, write_bytes

FOLDER: Final = "config-history"
#: Versions that are kept; the oldest goes first.
KEPT: Final = 100
BY_HAND: Final = "edited by hand"
UNDO: Final = "undo"
#: Who changes the configuration in this context, for the history.
AUTHOR: ContextVar[str] = ContextVar("config_author", default="wan22")
_PRIVATE: Final = 0o600
_EMPTY: Final = "{}\n"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of the file."""

    number: int
    at: str  #: when it was written or found (UTC, ISO 8601)
    by: str
    changed: tuple[str, ...]  #: dotted names of the keys that differ from the version before
    content: str  #: the text of the file
    restores: int | None = None  #: the version that an undo restored

    @property
    def values(self) -> dict[str, Any] | None:
        """The content; None if it is not a JSON object, as after a mistake of an editor."""
        try:
            values = parse_json(self.content, finite=False)
        except ValueError:
            return None
        return values if isinstance(values, dict) else None

    @property
    def stands_for(self) -> int:
        """Number of the version whose content this one has."""
        return self.number if self.restores is None else self.restores


class ConfigHistory:
    """The versions of one file, in a folder beside it."""

    def __init__(self, config: Path) -> None:
        self._folder = config.parent / FOLDER

    def versions(self) -> list[Version]:
        """Return the versions, the newest first; unreadable ones are left out."""
        return [version for path in self._paths() if (version := _read(path)) is not None]

    def newest(self) -> Version | None:
        """Return the newest version."""
        return next(iter(self.versions_lazily()), None)

    def newest_values(self) -> dict[str, Any] | None:
        """Return the content of the newest version that is JSON; None without one."""
        return next((values for version in self.versions_lazily() if (values := version.values) is not None), None)

    def versions_lazily(self) -> Iterator[Version]:
        """Yield the versions, the newest first, reading each when it is asked for."""
        for path in self._paths():
            version = _read(path)
            if version is not None:
                yield version

    def note(self, content: str | None) -> None:
        """Record the present content if it is not the newest version: somebody has edited the file by hand.

        None, a missing file, is recorded only where there were versions.
        """
        newest, text = self.newest(), _EMPTY if content is None else content
        if newest is None:
            if content is not None:
                self._add(text, None, "found", None)
        elif newest.content != text:
            self._add(text, newest.values, BY_HAND, None)

    def add(self, content: str, before: dict[str, Any], by: str, restores: int | None = None) -> Version:
        """Record a version that is about to be written; `before` is the content that it replaces."""
        if self.newest() is None:
            self._add(_EMPTY, None, "found", None)  # so that the first change can be taken back
        return self._add(content, before, by, restores)

    def discard(self, version: Version) -> None:
        """Forget a version that could not be written."""
        self._path(version.number).unlink(missing_ok=True)

    def _add(self, content: str, before: dict[str, Any] | None, by: str, restores: int | None) -> Version:
        paths = self._paths()
        number = 1 + (int(paths[0].stem) if paths else 0)
        draft = Version(number, iso(utcnow()), by, (), content, restores)
        changed = tuple(differences(before or {}, draft.values or {}))
        version = Version(number, draft.at, by, changed, content, restores)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_bytes(self._path(number), json.dumps(_stored(version), ensure_ascii=False).encode(), mode=_PRIVATE)
        for old in paths[KEPT - 1 :]:
            with suppress(OSError):
                old.unlink()
        return version

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06}.json"

    def _paths(self) -> list[Path]:
        """Return the files of the versions, the newest first."""
        try:
            found = [path for path in self._folder.iterdir() if path.suffix == ".json" and path.stem.isdigit()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(found, key=lambda path: int(path.stem), reverse=True)


def _stored(version: Version) -> dict[str, Any]:
    return {
        "number": version.number,
        "at": version.at,
        "by": version.by,
        "changed": version.changed,
        "restores": version.restores,
        "content": version.content,
    }


def _read(path: Path) -> Version | None:
    try:
        value = read_json(path)
        return Version(
            int(path.stem),
            str(value["at"]),
            str(value["by"]),
            tuple(map(str, value["changed"])),
            str(value["content"]),
            value["restores"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
