"""The hours in which workers generate: section `schedule` of config.json, in the local time of the machine.

Windows are of the wall clock: one that a change of the clock skips or repeats is open whenever its hours are shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from backend.core.config.definition import Custom, read_settings, setting
from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection
from backend.core.errors.requests import InvalidRequest

SECTION: Final = "schedule"
GENERATE: Final = "generate"
DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_WINDOW: Final = re.compile(
    r"(?:(?P<days>[A-Za-z]{3}(?:[-,][A-Za-z]{3})*) )?(?P<start>\d\d:\d\d)-(?P<end>\d\d:\d\d)", re.ASCII
)
_DAY_MINUTES: Final = 24 * 60
#: Every window opens within a week, and a change of the clock delays it by hours at most.
_HORIZON_MINUTES: Final = 8 * _DAY_MINUTES


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of a day; one that ends before it starts goes on into the next day."""

    start: int  #: minutes after midnight
    end: int  #: minutes after midnight, up to 24 h
    days: frozenset[int]  #: days on which it starts, 0 = Monday

    def contains(self, local: datetime) -> bool:
        """Whether the window is open at this local time."""
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


def _texts(name: str, value: object) -> tuple[str, ...]:
    texts = value or ()
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(f"{name} must be a list of windows", details={"field": name})
    for text in texts:
        _window(text)
    return tuple(texts)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The stored windows; without any, workers always generate."""

    generate: tuple[str, ...] = setting(
        (),
        "Hours in which videos are generated, in the local time of the worker's machine; empty is always",
        Custom('a list of windows such as `"22:00-07:00"` or `"Sat,Sun 00:00-24:00"`', _texts),
    )

    @property
    def windows(self) -> tuple[Window, ...]:
        """The windows."""
        return tuple(map(_window, self.generate))

    def is_open(self, moment: datetime) -> bool:
        """Whether tasks may run at this moment (aware)."""
        windows = self.windows
        return not windows or any(window.contains(moment.astimezone()) for window in windows)

    def opens_at(self, moment: datetime) -> datetime | None:
        """Return when tasks may run again, to the minute and in local time; None if not within a week."""
        minute = moment.replace(second=0, microsecond=0)
        for offset in range(_HORIZON_MINUTES):
            # Added to an instant, not to the wall clock, so that changes of the clock are passed as they happen.
            then = (minute + timedelta(minutes=offset)).astimezone()
            if self.is_open(then):
                return then
        return None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return {GENERATE: list(self.generate)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Schedule:
        """Build the schedule from JSON values.

        Raises:
            InvalidRequest: a window is not of the form `22:00-07:00` or `Mon-Fri 22:00-07:00`, or a name is unknown.
        """
        return read_settings(cls, values)


def stored_schedule(file: ConfigFile) -> StoredSection[Schedule]:
    """Return the schedule stored in this file."""
    return StoredSection(file, SECTION, Schedule.from_json)


@lru_cache(256)
def _window(text: str) -> Window:
    match = _WINDOW.fullmatch(" ".join(text.split()))
    start, end = (None, None) if match is None else (_minutes(match["start"]), _minutes(match["end"]))
    days = None if match is None else _days(match["days"])
    if start is None or end is None or days is None or start in (end, _DAY_MINUTES):
        raise InvalidRequest(
            f"{GENERATE} must have windows such as 22:00-07:00 or Mon-Fri 22:00-07:00", details={"field": GENERATE}
        )
    return Window(start, end, days)


def _minutes(text: str) -> int | None:
    hours, minutes = int(text[:2]), int(text[3:])
    total = hours * 60 + minutes
    return total if minutes < 60 and total <= _DAY_MINUTES else None


def _days(text: str | None) -> frozenset[int] | None:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        names = [name.capitalize() for name in part.split("-")]
        if len(names) > 2 or not {*names} <= {*DAYS}:
            return None
        first, last = DAYS.index(names[0]), DAYS.index(names[-1])
        found |= {day % 7 for day in range(first, last + 1 + (7 if last < first else 0))}
    return frozenset(found)
