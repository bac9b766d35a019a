"""Whether this worker makes way now: outside its hours, or because other programs need the device's memory.

Looks once a second in its own thread; the worker asks before every claim and at every layer of a running model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from backend.core.config.file import ConfigFile
from backend.core.config.giving_way import GiveWayRule, stored_giving_way
from backend.core.config.schedule import Schedule, stored_schedule
from backend.core.domain import utcnow
from backend.core.planning.memory_level import MemoryReading
from backend.core.repeating import Repeating

#: Interval between two looks, in seconds. With `after_seconds` and one layer of the model, it is the reaction time.
LOOK_SECONDS: Final = 1.0
_GIB: Final = 1024**3


class Yielding:
    """What `schedule` and `give_way` in config.json ask of this worker; changes of the file apply at once."""

    def __init__(
        self,
        file: ConfigFile,
        others: Callable[[], MemoryReading | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        """`others` measures the device's memory that other programs use; None = not measurable now."""
        self._schedule = stored_schedule(file)
        self._giving_way = stored_giving_way(file)
        self._others = others
        self._clock = clock
        self._now = now
        self._rule = GiveWayRule()
        self._opens: tuple[Schedule, datetime | None] | None = None  # the next opening, once it has been searched for
        self._thread = Repeating("yielding", self.look, LOOK_SECONDS)
        self.reason: str | None = None  #: why this worker makes way, in one sentence; None = it does not

    def start(self) -> None:
        """Look now, and from now on."""
        self.look()
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._thread.stop()

    def look(self) -> None:
        """Look at the clock and at the memory."""
        self.reason = self._outside_hours() or self._others_need_it()

    def _outside_hours(self) -> str | None:
        schedule, now = self._schedule.current(), self._now()
        if schedule.is_open(now):
            self._opens = None
            return None
        if self._opens is None or self._opens[0] != schedule or (self._opens[1] or now) < now:
            self._opens = schedule, schedule.opens_at(now)
        hours = f"Videos are generated only in these hours: {', '.join(schedule.texts)}"
        opens = self._opens[1]
        return hours if opens is None else f"{hours}; the next begin {opens:%A %H:%M}"

    def _others_need_it(self) -> str | None:
        settings = self._giving_way.current()
        if settings.when_others_leave_gb is None:
            self._rule = GiveWayRule()
            return None
        reading = self._others()
        if reading is None:
            return None
        left = max(0, reading.total - reading.used)
        if not self._rule.decide(settings, left, self._clock()):
            return None
        return (
            f"Other programs leave {left / _GIB:.1f} of {reading.total / _GIB:.1f} GiB memory of the device; wan22 "
            f"gives way below {settings.when_others_leave_gb:g} GiB"
        )
