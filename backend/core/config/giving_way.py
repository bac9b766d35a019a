"""When workers make way for other programs that need the device's memory: section `give_way` of config.json.

A pure rule with hysteresis over readings that others take; measures nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection, check_names, check_number

SECTION: Final = "give_way"
LEAVE, AFTER, BACK = "when_others_leave_gb", "after_seconds", "back_after_seconds"
AFTER_SECONDS, BACK_SECONDS = 5.0, 60.0
#: A worker returns when others leave this many times as much memory as made it give way.
RETURN_FACTOR: Final = 1.1
_GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class GivingWay:
    """The stored rule; off unless an amount of memory is set."""

    when_others_leave_gb: float | None = None  #: GiB of the device's memory that other programs leave to wan22
    after_seconds: float = AFTER_SECONDS  #: how long less than that must be left before a worker gives way
    back_after_seconds: float = BACK_SECONDS  #: how long more than that must be left before it returns

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return {LEAVE: self.when_others_leave_gb, AFTER: self.after_seconds, BACK: self.back_after_seconds}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> GivingWay:
        """Build the rule from JSON values; missing ones take their default.

        Raises:
            InvalidRequest: a value is out of range, or a name is unknown.
        """
        check_names(values, [LEAVE, AFTER, BACK], "setting")
        leave = values.get(LEAVE)
        return cls(
            None if leave is None else check_number(LEAVE, leave, 0.1, 10_000, "GiB"),
            check_number(AFTER, values.get(AFTER, AFTER_SECONDS), 0, 3600, "seconds"),
            check_number(BACK, values.get(BACK, BACK_SECONDS), 0, 86_400, "seconds"),
        )


class GiveWayRule:
    """Whether to give way now, decided from one reading after the other."""

    def __init__(self) -> None:
        self._gives_way = False
        self._since: float | None = None  # since when the readings speak against the current decision

    def decide(self, settings: GivingWay, left_bytes: int, now: float) -> bool:
        """Take a reading of what others leave, at a time in seconds, and return whether to give way."""
        if settings.when_others_leave_gb is None:
            self._gives_way, self._since = False, None
            return False
        limit = settings.when_others_leave_gb * _GIB
        changes = left_bytes >= limit * RETURN_FACTOR if self._gives_way else left_bytes < limit
        if not changes:
            self._since = None
            return self._gives_way
        self._since = now if self._since is None else self._since
        patience = settings.back_after_seconds if self._gives_way else settings.after_seconds
        if now - self._since >= patience:
            self._gives_way, self._since = not self._gives_way, None
        return self._gives_way


def stored_giving_way(file: ConfigFile) -> StoredSection[GivingWay]:
    """Return the rule stored in this file."""
    return StoredSection(file, SECTION, GivingWay.from_json)
