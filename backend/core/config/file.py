"""`config.json` of the home folder: one JSON object with a section per subject, replaced atomically.

The one way to read and to write it. Knows no subject: the owner of a section knows its keys and checks them. Unknown
sections are preserved, settings of the earlier application are read under their names of today, and every version is
recorded.
"""

from __future__ import annotations

import copy
import json
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from filelock import FileLock, Timeout

from backend.core.access.caller import OPERATOR, current_caller
from backend.core.config.history import AUTHOR, UNDO, ConfigHistory, Version
from backend.core.config.older_keys import OlderFile, read_older
from backend.core.config.places import Keys, Position, positions
from backend.core.errors.lookups import StateConflict
from backend.core.errors.surroundings import BadSettings
from backend.core.files import decode_json, parse_json, storage_errors, write_bytes

LOCK_SECONDS: Final = 10.0
#: How often a change is made again because somebody edited the file in the meantime.
_TRIES: Final = 5
_PRIVATE: Final = 0o600

#: The content that was last read without a fault, by file: what is in force while somebody breaks the file.
_last_readable: dict[Path, dict[str, Any]] = {}
_lock = threading.Lock()


class _Edited(Exception):
    """Somebody changed the file between reading and writing."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """The file at `path`; a missing file reads as empty."""

    path: Path

    @property
    def history(self) -> ConfigHistory:
        """The versions of the file."""
        return ConfigHistory(self.path)

    def section(self, name: str) -> dict[str, Any]:
        """Return the present content of a section; empty when there is none.

        Raises:
            BadSettings: the file cannot be read, or it or the section is not a JSON object.
        """
        return self._object(self.read().values, name)

    def running_section(self, name: str) -> dict[str, Any]:
        """Return the section in force: of the newest content that could be read, by this process or an earlier one.

        Raises:
            BadSettings: the section is not a JSON object.
        """
        return self._object(self.running().values, name)

    def read(self) -> OlderFile:
        """Return the present content with the names of today.

        Raises:
            BadSettings: the file cannot be read, or is not a JSON object.
        """
        return read_older(self.content())

    def content(self) -> dict[str, Any]:
        """Return the present content as it is written.

        Raises:
            BadSettings: the file cannot be read, or is not a JSON object; the message names the place.
        """
        text = self.text()
        content = {} if text is None else self._parsed(text)
        with _lock:
            _last_readable[self.path] = content
        return copy.deepcopy(content)

    def running(self) -> OlderFile:
        """Return the content in force: the present one, or, while that is broken, the newest that could be read."""
        try:
            return self.read()
        except BadSettings:
            with _lock:
                known = _last_readable.get(self.path)
            return read_older(copy.deepcopy(known if known is not None else self.history.newest_values() or {}))

    def text(self) -> str | None:
        """Return the text of the file; None without one.

        Raises:
            BadSettings: the file cannot be read.
        """
        try:
            return decode_json(self.path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise BadSettings(f"{self.path.name} cannot be read: {error.strerror or type(error).__name__}") from None
        except ValueError as error:
            raise self._broken(error) from None

    def update(self, name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
        """Replace a section with what `change` makes of it, under a lock, and return the new content.

        `change` may be called again, if somebody edits the file by hand at the same moment.

        Raises:
            BadSettings: as `section`. When `change` raises, the file stays unchanged.
        """

        after = self.rewrite(lambda content: self.with_section(content, name, change))
        return self._object(read_older(after).values, name)

    def with_section(
        self, content: dict[str, Any], name: str, change: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        """Return a content with a section replaced; settings of the earlier application stay in it.

        Raises:
            BadSettings: the section is not a JSON object.
        """
        older = read_older(content)
        section = change(self._object(older.values, name))
        kept = {one.keys[1]: content[name][one.keys[1]] for one in older.settings if one.keys[0] == name}
        return {**content, name: {**kept, **section}}

    def rewrite(self, change: Callable[[dict[str, Any]], dict[str, Any]], by: str | None = None) -> dict[str, Any]:
        """Replace the whole content with what `change` makes of it, and return it; otherwise as `update`.

        `by` says who did it, for the history; None is the one who is served, or the author of this context.
        """
        with self._locked():
            for _ in range(_TRIES):
                mark, text = self.mark, self.text()
                before = {} if text is None else self._parsed(text)
                after = change(copy.deepcopy(before))
                if json.dumps(after) == json.dumps(before):
                    return after
                try:
                    self._write(_as_text(after, text), text, before, mark, by or _author())
                except _Edited:
                    continue
                return after
            raise self._conflict("is being edited")

    def note(self) -> None:
        """Record the present content, if somebody edited the file; a text that cannot be decoded is left out."""
        with self._locked():
            self.history.note(self.text())

    def undo(
        self, number: int | None = None, check: Callable[[Version, Version], None] = lambda left, back: None
    ) -> tuple[Version, Version]:
        """Put the version before the present one back, or the numbered one; return what was left and what is back.

        An undo after an undo goes one version further back. A present content that is broken is one change as well.
        What `check` raises keeps the present version.

        Raises:
            BadSettings: there is no such version, or it is not JSON.
        """
        with self._locked():
            for _ in range(_TRIES):
                mark = self.mark
                try:
                    text = self.text()
                except BadSettings:
                    text = "" if self.path.exists() else None
                self.history.note(text)
                left, back = self._versions(number)
                check(left, back)
                try:
                    self._write(back.content, text, left.values or {}, mark, UNDO, back.stands_for)
                except _Edited:
                    continue
                return left, back
            raise self._conflict("is being edited")

    def place(self, *keys: str) -> str:
        """Return where a setting is, such as `config.json, line 3, column 5`; the file's name alone if it is not."""
        position = self.position(*keys)
        return self.path.name if position is None else f"{self.path.name}, {position}"

    def position(self, *keys: str) -> Position | None:
        """Return where a setting is, under its name of today or the older one that stands for it."""
        places = dict(self._places())
        if keys in places:
            return places[keys]
        try:
            origin = self.read().origin(keys)
        except BadSettings:
            return None
        return None if origin is None else places.get(origin)

    def repeated(self) -> list[tuple[Position, Keys]]:
        """Return the position and the names of each key that a later one of the same name overrides."""
        places = self._places()
        last = dict(places)
        return [(place, path) for path, place in places if last[path] != place]

    @property
    def mark(self) -> tuple[int, int, int] | None:
        """A value that changes whenever the file does; None while there is no file."""
        try:
            status = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing the file; editors do not know the lock, hence the marks."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path.with_suffix(".lock"), timeout=LOCK_SECONDS)
        try:
            lock.acquire()
        except Timeout:
            raise self._conflict("is being changed by another process") from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            yield
        finally:
            lock.release()

    def _conflict(self, why: str) -> StateConflict:
        return StateConflict(
            f"{self.path.name} {why}; nothing was changed", suggestions=("Look at it, then try again.",)
        )

    def _unwritable(self, error: OSError) -> BadSettings:
        reason = error.strerror or type(error).__name__
        return BadSettings(
            f"{self.path.name} cannot be written: {reason}; nothing was changed",
            suggestions=(f"Make {self.path.parent} writable.",),
        )

    def _versions(self, number: int | None) -> tuple[Version, Version]:
        versions = self.history.versions()
        left = versions[0] if versions else None
        numbered = (one for one in versions if one.number == number)
        earlier = (one for one in versions if left is not None and one.number < left.stands_for)
        back = next(numbered if number is not None else earlier, None)
        if left is None or back is None or back.values is None:
            raise StateConflict(
                f"{self.path.name} has no {'earlier' if number is None else 'such'} version that can be read",
                suggestions=("`wan22 config history` lists the versions; nothing was changed.",),
            )
        return left, back

    def _object(self, content: dict[str, Any], name: str) -> dict[str, Any]:
        section = content.get(name, {})
        if not isinstance(section, dict):
            raise BadSettings(f"{self.place(name)}: `{name}` must be an object")
        return section

    def _parsed(self, text: str) -> dict[str, Any]:
        try:
            value = parse_json(text, finite=False)
        except ValueError as error:
            raise self._broken(error) from None
        if not isinstance(value, dict):
            raise BadSettings(f"{self.path.name} must hold one JSON object")
        return value

    def _broken(self, error: ValueError) -> BadSettings:
        return BadSettings(
            f"{self.path.name} {error}",
            suggestions=(f"Correct {self.path}, or go back with `wan22 config undo`.",),
        )

    def _places(self) -> list[tuple[Keys, Position]]:
        try:
            text = self.text()
        except BadSettings:
            return []
        return [] if text is None else positions(text)

    def _write(
        self,
        text: str,
        before_text: str | None,
        before: dict[str, Any],
        mark: tuple[int, int, int] | None,
        by: str,
        restores: int | None = None,
    ) -> None:
        """Record a version and put it in place, unless the file has another mark by now."""

        def unedited() -> None:
            if self.mark != mark:
                raise _Edited

        target = self.path.resolve()  # where the user keeps it elsewhere, the link stays
        mode = _PRIVATE if mark is None else stat.S_IMODE(target.stat().st_mode)
        try:
            with storage_errors():
                self.history.note(before_text)
                version = self.history.add(text, before, by, restores)
                try:
                    write_bytes(target, text.encode(), mode=mode, check=unedited)
                except BaseException:
                    self.history.discard(version)
                    raise
        except OSError as error:
            raise self._unwritable(error) from None


def _author() -> str:
    caller = current_caller()
    return AUTHOR.get() if caller is OPERATOR else f"{caller.name} over HTTP"


def _as_text(content: dict[str, Any], before: str | None) -> str:
    """Return a content as JSON, with the line ends that the file had."""
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return text.replace("\n", "\r\n") if before is not None and "\r\n" in before else text
