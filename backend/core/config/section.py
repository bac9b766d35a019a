"""One section of config.json as a typed value. Each key is judged alone: an unusable one is ignored and reported.

A running process keeps the value that a key had before somebody broke it. Knows no subject: the owner of a section
parses its values.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from backend.core.config.definition import Setting, settings_of
from backend.core.config.file import ConfigFile
from backend.core.config.places import Keys, Position
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings
from backend.core.plain_words import nearest, printable, unknown_name

#: The values in force by file and section, for keys that become unusable while this process runs.
_in_force: dict[tuple[Path, str], dict[str, Any]] = {}
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """Something in the file that is ignored, and why. Never holds the value itself."""

    keys: Keys
    rule: str  #: completes the sentence "`name` …"
    position: Position | None
    file: str = "config.json"
    nearest: Any = None  #: the nearest legal value, or the name that was meant; None if there is none

    @property
    def name(self) -> str:
        """The dotted name."""
        return printable(".".join(self.keys))

    @property
    def sentence(self) -> str:
        """The fault with its place."""
        where = self.file if self.position is None else f"{self.file}, {self.position}"
        return printable(f"{where}: `{self.name}` {self.rule}") if self.keys else printable(self.rule)


class Section(Protocol):
    """A value that a section can store."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""


SectionT = TypeVar("SectionT", bound=Section)


class StoredSection(Generic[SectionT]):
    """A section of the file. Read again at every call, so that changes by any process apply at once."""

    def __init__(self, file: ConfigFile, name: str, parse: Callable[[dict[str, Any]], SectionT]) -> None:
        """`parse` raises InvalidRequest for illegal values, and returns the default for an empty object."""
        self._file = file
        self._name = name
        self._parse = parse

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What can be set."""
        return settings_of(type(self._parse({})))

    def read(self) -> SectionT:
        """Return the stored value.

        Raises:
            BadSettings: the file or the section cannot be read, or a key of the section is ignored.
        """
        value, ignored = self._judge(self._file.section(self._name))
        if ignored:
            raise BadSettings("; ".join(fault.sentence for fault in self._faults(ignored)))
        return value

    def faults(self) -> list[ConfigFault]:
        """Return a fault for each ignored key, or the one reason why the section cannot be read."""
        try:
            return self.faults_in(self._file.section(self._name))
        except BadSettings as error:
            return [ConfigFault((), f"{error.message}; the defaults are in force", None, self._file.path.name)]

    def faults_in(self, content: Any) -> list[ConfigFault]:
        """Return the faults of a content of the section."""
        if isinstance(content, dict):
            return self._faults(self._judge(content)[1])
        position = self._file.position(self._name)
        return [
            ConfigFault((self._name,), "must be an object; the defaults are in force", position, self._file.path.name)
        ]

    def current(self) -> SectionT:
        """Return the value in force: the usable keys of the section, and the default of every other one.

        A key that has become unusable keeps the value that it had in this process.
        """
        where = self._file.path, self._name
        try:
            stored = self._file.running_section(self._name)
        except BadSettings:  # the section is not an object
            with _lock:
                return self._parse(_in_force.get(where, {}))
        value, ignored = self._judge(stored)
        with _lock:
            kept = {key: before for key, before in _in_force.get(where, {}).items() if key in ignored}
            if kept:
                usable = {key: one for key, one in stored.items() if key not in ignored}
                value, _ = self._judge(usable | kept)
            _in_force[where] = value.to_json()
        return value

    def change(self, values: dict[str, Any], check: Callable[[dict[str, Any]], SectionT] | None = None) -> SectionT:
        """Replace the named values, keep the others, and return the value in force now.

        Ignored keys stay in the file for their author to correct. `check` replaces the parser where the caller can
        judge new values more strictly.

        Raises:
            InvalidRequest: a value is illegal; the file stays unchanged.
            BadSettings: the file cannot be read, and is therefore not overwritten.
        """
        self._file.update(self._name, self.changing(values, check))
        return self.current()

    def changing(
        self, values: dict[str, Any], check: Callable[[dict[str, Any]], SectionT] | None = None
    ) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return what `change` does to the content of the section; it raises InvalidRequest as that does."""

        def changed(before: dict[str, Any]) -> dict[str, Any]:
            _, ignored = self._judge(before)
            usable = {key: value for key, value in before.items() if key not in ignored}
            left = {key: before[key] for key in ignored if key not in values}
            new = (check or self._parse)(usable | values).to_json()
            return {key: new[key] for key in new if key in usable or key in values} | left

        return changed

    def _judge(self, values: dict[str, Any]) -> tuple[SectionT, dict[str, tuple[str, Any]]]:
        """Return the value of the usable keys, and why each of the others is ignored."""
        known = self._parse({}).to_json()
        ignored: dict[str, tuple[str, Any]] = {
            key: (unknown_name(key, known, "setting"), nearest(key, known)) for key in values if key not in known
        }
        usable = {key: value for key, value in values.items() if key in known}
        while True:
            try:
                return self._parse(usable), ignored
            except InvalidRequest as error:
                details = error.details if isinstance(error.details, dict) else {}
                field = str(details.get("field"))
                if field in usable:
                    near = self._nearest(field, usable.pop(field))
                    legal = "" if near is None else f"; the nearest legal value is {json.dumps(near)}"
                    ignored[field] = f"is ignored: {error.message}{legal}", near
                elif "maximum" in details:  # a default gives way to a stored value that it contradicts
                    usable[field] = details["maximum"]
                else:
                    raise

    def _nearest(self, name: str, value: Any) -> Any:
        return next((one.rule.nearest(value) for one in self.settings if one.name == name), None)

    def _faults(self, ignored: dict[str, tuple[str, Any]]) -> list[ConfigFault]:
        return [
            ConfigFault((self._name, key), rule, self._file.position(self._name, key), self._file.path.name, near)
            for key, (rule, near) in ignored.items()
        ]
