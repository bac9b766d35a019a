"""When workers make way for other programs that need the device: section `give_way` of config.json.

A pure rule with hysteresis over readings that others take; measures nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from backend.core.config.definition import Number, plain, read_settings, setting
from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection

SECTION: Final = "give_way"
#: A worker returns when others leave this many times as much memory as made it give way, or use that much less time.
RETURN_FACTOR: Final = 1.1


@dataclass(frozen=True, slots=True)
class GivingWay:
    """The stored rule; off unless an amount of memory or a share of time is set."""

    when_others_leave_gb: float | None = setting(
        None,
        "GiB of the device's memory that other programs must leave to wan22; null is off",
        Number(0.1, 10_000, "GiB", optional=True),
    )
    when_others_use_percent: float | None = setting(
        None,
        "Share of the device's time that other programs may use; null is off",
        Number(1, 100, "percent", optional=True),
    )
    after_seconds: float = setting(
        5.0, "How long others must need that much before a worker gives way", Number(0, 3600, "seconds")
    )
    back_after_seconds: float = setting(
        60.0, "How long they must need clearly less before it returns", Number(0, 86_400, "seconds")
    )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return plain(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> GivingWay:
        """Build the rule from JSON values; missing ones take their default.

        Raises:
            InvalidRequest: a value is out of range, or a name is unknown.
        """
        return read_settings(cls, values)


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
