"""One section of config.json as a typed value, with its default where it cannot be read.

Knows no subject: the owner of a section parses its values.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from backend.core.config.file import ConfigFile
from backend.core.errors import BadSettings, InvalidRequest


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
            BadSettings: the file or the section cannot be read.
        """
        try:
            return self._parse(self._file.section(self._name))
        except InvalidRequest as error:
            raise BadSettings(f"{self._file.path.name}: `{self._name}`: {error.message}") from None

    def current(self) -> SectionT:
        """Return the value in force: the stored one, or the default where it cannot be read (`read` raises why)."""
        try:
            return self.read()
        except BadSettings:
            return self._parse({})

    def change(self, values: dict[str, Any], check: Callable[[dict[str, Any]], SectionT] | None = None) -> SectionT:
        """Replace the named values, keep the others, and return the value in force now.

        `check` replaces the parser where the caller can judge new values more strictly.

        Raises:
            InvalidRequest: a value is illegal; the file stays unchanged.
            BadSettings: the file cannot be read, and is therefore not overwritten.
        """
        parse = check or self._parse
        return self._parse(self._file.update(self._name, lambda before: parse(before | values).to_json()))


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
