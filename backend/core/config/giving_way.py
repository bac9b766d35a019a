"""When workers make way for other programs that need the device: section `give_way` of config.json.

A pure rule with hysteresis over readings that others take; measures nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection, check_names, check_number

SECTION: Final = "give_way"
LEAVE, USE, AFTER, BACK = "when_others_leave_gb", "when_others_use_percent", "after_seconds", "back_after_seconds"
AFTER_SECONDS, BACK_SECONDS = 5.0, 60.0
#: A worker returns when others leave this many times as much memory as made it give way, or use that much less time.
RETURN_FACTOR: Final = 1.1


@dataclass(frozen=True, slots=True)
class GivingWay:
    """The stored rule; off unless an amount of memory or a share of time is set."""

    when_others_leave_gb: float | None = None  #: GiB of the device's memory that other programs leave to wan22
    when_others_use_percent: float | None = None  #: share of the device's time that other programs may use
    after_seconds: float = AFTER_SECONDS  #: how long others must need that much before a worker gives way
    back_after_seconds: float = BACK_SECONDS  #: how long they must need clearly less before it returns

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return {
            LEAVE: self.when_others_leave_gb,
            USE: self.when_others_use_percent,
            AFTER: self.after_seconds,
            BACK: self.back_after_seconds,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> GivingWay:
        """Build the rule from JSON values; missing ones take their default.

        Raises:
            InvalidRequest: a value is out of range, or a name is unknown.
        """
        check_names(values, [LEAVE, USE, AFTER, BACK], "setting")
        leave, use = values.get(LEAVE), values.get(USE)
        return cls(
            None if leave is None else check_number(LEAVE, leave, 0.1, 10_000, "GiB"),
            None if use is None else check_number(USE, use, 1, 100, "percent"),
            check_number(AFTER, values.get(AFTER, AFTER_SECONDS), 0, 3600, "seconds"),
            check_number(BACK, values.get(BACK, BACK_SECONDS), 0, 86_400, "seconds"),
        )


class GiveWayRule:
    """Whether to give way now, decided from one reading after the other."""

    def __init__(self) -> None:
        self._gives_way = False
        self._since: float | None = None  # since when the readings speak against the current decision

    def decide(self, settings: GivingWay, *, pressed: bool, relaxed: bool, now: float) -> bool:
        """Take a reading at a time in seconds, and return whether to give way.

        Args:
            settings: how much patience there is.
            pressed: whether the reading speaks for giving way.
            relaxed: whether it clearly speaks for returning; neither may be true near the limit.
            now: seconds of a monotonic clock.
        """
        if not (relaxed if self._gives_way else pressed):
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
