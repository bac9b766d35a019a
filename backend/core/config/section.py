"""One section of config.json as a typed value. Each key is judged alone: an unusable one is ignored and reported.

Knows no subject: the owner of a section parses its values.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from backend.core.config.file import ConfigFile
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings
from backend.core.plain_words import printable, unknown_name


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

    def read(self) -> SectionT:
        """Return the stored value.

        Raises:
            BadSettings: the file or the section cannot be read, or a key of the section is ignored.
        """
        value, ignored = self._judge(self._file.section(self._name))
        if ignored:
            raise BadSettings("; ".join(self._sentence(key, why) for key, why in ignored.items()))
        return value

    def faults(self) -> list[str]:
        """Return a sentence about each ignored key, or the one reason why the section cannot be read."""
        try:
            _, ignored = self._judge(self._file.section(self._name))
        except BadSettings as error:
            return [f"{error.message}; the defaults are in force"]
        return [self._sentence(key, why) for key, why in ignored.items()]

    def current(self) -> SectionT:
        """Return the value in force: the usable keys of the section, and the default of every other one."""
        try:
            return self._judge(self._file.section(self._name))[0]
        except BadSettings:
            return self._parse({})

    def change(self, values: dict[str, Any], check: Callable[[dict[str, Any]], SectionT] | None = None) -> SectionT:
        """Replace the named values, keep the others, and return the value in force now.

        Ignored keys stay in the file for their author to correct. `check` replaces the parser where the caller can
        judge new values more strictly.

        Raises:
            InvalidRequest: a value is illegal; the file stays unchanged.
            BadSettings: the file cannot be read, and is therefore not overwritten.
        """
        parse = check or self._parse

        def changed(before: dict[str, Any]) -> dict[str, Any]:
            _, ignored = self._judge(before)
            usable = {key: value for key, value in before.items() if key not in ignored}
            left = {key: before[key] for key in ignored if key not in values}
            return parse(usable | values).to_json() | left

        return self._judge(self._file.update(self._name, changed))[0]

    def _judge(self, values: dict[str, Any]) -> tuple[SectionT, dict[str, str]]:
        """Return the value of the usable keys, and why each of the others is ignored."""
        known = self._parse({}).to_json()
        ignored = {key: unknown_name(key, known, "setting") for key in values if key not in known}
        usable = {key: value for key, value in values.items() if key in known}
        while True:
            try:
                return self._parse(usable), ignored
            except InvalidRequest as error:
                details = error.details if isinstance(error.details, dict) else {}
                field = str(details.get("field"))
                if field in usable:
                    del usable[field]
                    ignored[field] = f"is ignored: {error.message}"
                elif "maximum" in details:  # a default gives way to a stored value that it contradicts
                    usable[field] = details["maximum"]
                else:
                    raise

    def _sentence(self, key: str, why: str) -> str:
        return printable(f"{self._file.place(self._name, key)}: `{self._name}.{key}` {why}")


def check_names(names: Iterable[str], known: Sequence[str], kind: str) -> None:
    """Raise InvalidRequest when a name is not among the known ones of this kind."""
    if set(names) - set(known):
        raise InvalidRequest(
            f"There is no {kind} of this name; there {'are' if len(known) > 1 else 'is'} {', '.join(known)}"
        )


def check_number(field: str, value: object, lowest: float, highest: float | None = None, unit: str = "") -> float:
    """Return a number from `lowest` to `highest` (None = no upper limit).

    Raises:
        InvalidRequest: the value is not a number, or out of range; the message names the range.
    """
    most = sys.float_info.max if highest is None else highest
    if isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= most:
        return float(value)
    words = f"at least {lowest:g}" if highest is None else f"between {lowest:g} and {highest:g}"
    raise InvalidRequest(
        f"{field} must be {words} {unit}".rstrip(), details={"field": field, "minimum": lowest, "maximum": highest}
    )
