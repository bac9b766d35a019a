"""One section of config.json as a typed value: read, or its default where it cannot be; written as a whole.

Knows no subject: who owns the section says how its values are understood.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from backend.core.config.file import ConfigFile
from backend.core.errors import BadSettings, InvalidRequest


class Section(Protocol):
    """What can be kept in a section."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""


SectionT = TypeVar("SectionT", bound=Section)


class StoredSection(Generic[SectionT]):
    """A section of the file. Read again at every call, so that a change counts at once, whoever made it."""

    def __init__(self, file: ConfigFile, name: str, parse: Callable[[dict[str, Any]], SectionT]) -> None:
        """Keep it in `file` under `name`; `parse` raises InvalidRequest, and takes an empty object for the default."""
        self._file = file
        self._name = name
        self._parse = parse

    def read(self) -> SectionT:
        """Return what is in the file.

        Raises:
            BadSettings: the file or the section cannot be read.
        """
        try:
            return self._parse(self._file.section(self._name))
        except InvalidRequest as error:
            raise BadSettings(f"{self._file.path.name}: `{self._name}`: {error.message}") from None

    def current(self) -> SectionT:
        """Return what is in force: what is in the file, or the default where it cannot be read (`read` says why)."""
        try:
            return self.read()
        except BadSettings:
            return self._parse({})

    def change(self, values: dict[str, Any], check: Callable[[dict[str, Any]], SectionT] | None = None) -> SectionT:
        """Replace the named values, keep the others, and return what is in force now.

        Args:
            values: the new ones by name.
            check: parses with more knowledge than the file's reader has.

        Raises:
            InvalidRequest: a value is not legal; the file stays as it is.
            BadSettings: the file cannot be read, so nothing may be written over it.
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
