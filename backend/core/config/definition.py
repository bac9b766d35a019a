"""The definition of a setting: its default, what it means, and the rule for its values.

Validation, the nearest legal value and the documents all come from it. Knows no subject.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

from backend.core.errors.requests import InvalidRequest
from backend.core.plain_words import nearest

_METADATA: Final = "setting"
_YES, _NO = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})

ValuesT = TypeVar("ValuesT")


class Rule(Protocol):
    """What the values of a setting must be."""

    @property
    def words(self) -> str:
        """The legal values, for documents."""

    def check(self, name: str, value: object) -> Any:
        """Return the value as it is stored; raise InvalidRequest, with the field in its details, if it is illegal."""

    def nearest(self, value: object) -> Any:
        """Return the legal value that an illegal one comes closest to; None if there is none."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a range."""

    lowest: float
    highest: float
    unit: str = ""
    whole: bool = False
    optional: bool = False  #: whether null is legal
    above: bool = False  #: whether `lowest` itself is illegal

    @property
    def words(self) -> str:
        """The range."""
        null = "null, or " if self.optional else ""
        return f"{null}{self._range()}".rstrip()

    def check(self, name: str, value: object) -> float | None:
        """Return the number."""
        if value is None and self.optional:
            return None
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        if (
            number is None
            or not self.lowest <= number <= self.highest
            or (self.above and number == self.lowest)
            or (self.whole and number != int(number))
        ):
            raise InvalidRequest(
                f"{name} must be {self._range()}".rstrip(),
                details={"field": name, "minimum": self.lowest, "maximum": self.highest},
            )
        return int(number) if self.whole else float(number)

    def nearest(self, value: object) -> float | None:
        """Return the value moved into the range; None if it is not a number."""
        try:
            number = float(value) if isinstance(value, int | float | str) else None
        except (ValueError, OverflowError):
            return None
        if number is None or number != number or (self.above and number <= self.lowest):
            return None
        legal = min(max(number, self.lowest), self.highest)
        return round(legal) if self.whole else legal

    def _range(self) -> str:
        if self.above:
            return f"above {self.lowest:g} and at most {self.highest:g} {self.unit}"
        return f"between {self.lowest:g} and {self.highest:g} {self.unit}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words; `older` are accepted as well, and stored as the word they stand for."""

    kind: type[StrEnum]
    older: Mapping[str, StrEnum] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The words."""
        older = "".join(f"; {word} is stored as {now}" for word, now in self.older.items())
        return ", ".join(f"`{one}`" for one in self.kind) + older

    def check(self, name: str, value: object) -> StrEnum:
        """Return the word, whatever its case."""
        word = str(value).lower()
        if word in self.older:
            return self.older[word]
        if word in list(self.kind):
            return self.kind(word)
        allowed = [*self.kind, *self.older]
        few = " or ".join(allowed) if len(allowed) == 2 else f"one of {', '.join(allowed)}"
        raise InvalidRequest(f"{name} must be {few}", details={"field": name, "allowed": allowed})

    def nearest(self, value: object) -> str | None:
        """Return the word that a misspelt one was meant to be."""
        return nearest(value, [*self.kind, *self.older]) if isinstance(value, str) else None


@dataclass(frozen=True, slots=True)
class Switch:
    """True or false."""

    @property
    def words(self) -> str:
        """Both."""
        return "`true`, `false`"

    def check(self, name: str, value: object) -> bool:
        """Return the value."""
        if isinstance(value, bool):
            return value
        raise InvalidRequest(f"{name} must be true or false", details={"field": name, "allowed": [True, False]})

    def nearest(self, value: object) -> bool | None:
        """Return what a word or a number stands for."""
        word = str(value).lower()
        return True if word in _YES else False if word in _NO else None


@dataclass(frozen=True, slots=True)
class Custom:
    """A rule of its own; `parse` raises InvalidRequest."""

    words: str
    parse: Callable[[str, object], Any]

    def check(self, name: str, value: object) -> Any:
        """Return the parsed value."""
        return self.parse(name, value)

    def nearest(self, value: object) -> None:
        """Return None: no value is near another."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a section."""

    name: str
    default: Any
    meaning: str
    rule: Rule

    def refusal(self, value: object) -> InvalidRequest | None:
        """Return why a value is illegal; None if it is legal."""
        try:
            self.rule.check(self.name, value)
        except InvalidRequest as refusal:
            return refusal
        return None


def setting(default: Any, meaning: str, rule: Rule) -> Any:
    """Define a field of a frozen dataclass as a setting."""
    return field(default=default, metadata={_METADATA: (meaning, rule)})


def settings_of(kind: type) -> tuple[Setting, ...]:
    """Return the settings that a dataclass defines, in order."""
    return tuple(
        Setting(one.name, one.default, *one.metadata[_METADATA]) for one in fields(kind) if _METADATA in one.metadata
    )


def read_settings(kind: type[ValuesT], values: Mapping[str, Any], noun: str = "setting") -> ValuesT:
    """Build a dataclass of settings from JSON values; missing ones take their default.

    Raises:
        InvalidRequest: a name is unknown, or a value illegal; the message names the rule.
    """
    known = settings_of(kind)
    check_names(values, [one.name for one in known], noun)
    checked = {one.name: one.rule.check(one.name, values.get(one.name, one.default)) for one in known}
    return kind(**checked)


def plain(values: object) -> dict[str, Any]:
    """Return the settings of a dataclass as plain JSON values."""
    shown = {one.name: getattr(values, one.name) for one in settings_of(type(values))}
    return {name: str(value) if isinstance(value, StrEnum) else value for name, value in shown.items()}


def check_names(names: Iterable[str], known: Sequence[str], kind: str) -> None:
    """Raise InvalidRequest when a name is not among the known ones of this kind."""
    if set(names) - set(known):
        raise InvalidRequest(
            f"There is no {kind} of this name; there {'are' if len(known) > 1 else 'is'} {', '.join(known)}"
        )
