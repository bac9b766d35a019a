"""`config.json` of the home folder: one JSON object with a section per subject, replaced atomically.

Knows no subject: the owner of a section knows its keys and checks them. Unknown sections are preserved.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from backend.core.errors import BadSettings
from backend.core.files import write_bytes

LOCK_SECONDS = 10.0


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
            raise BadSettings(f"{self.path.name}: `{name}` must be an object")
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
            value = json.loads(self.path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (OSError, ValueError) as error:
            raise BadSettings(f"{self.path.name} cannot be read: {type(error).__name__}") from None
        if not isinstance(value, dict):
            raise BadSettings(f"{self.path.name} must hold one JSON object")
        return value

    def _write(self, value: dict[str, Any]) -> None:
        write_bytes(self.path, json.dumps(value, indent=2, ensure_ascii=False).encode())
