"""Whether this worker makes way now: outside its hours, or because other programs need the device.

Looks once a second in its own thread; the worker asks before every claim and at every layer of a running model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

from backend.core.config.file import ConfigFile
from backend.core.config.giving_way import RETURN_FACTOR, GiveWayRule, GivingWay, stored_giving_way
from backend.core.config.schedule import Schedule, stored_schedule
from backend.core.domain import utcnow
from backend.core.planning.memory_level import MemoryReading
from backend.core.repeating import Repeating

#: Interval between two looks, in seconds. With `after_seconds` and one layer of the model, it is the reaction time.
LOOK_SECONDS: Final = 1.0
_GIB: Final = 1024**3


class Others(Protocol):
    """Measures what other programs do with the device (`engine/memory/others.py`)."""

    def memory(self) -> MemoryReading | None:
        """Return the memory they hold; None = it cannot be read now."""

    def load(self) -> float | None:
        """Return the share of its time that they use, in percent; None = it cannot be read now."""


class Yielding:
    """What `schedule` and `give_way` in config.json ask of this worker; changes of the file apply at once."""

    def __init__(
        self,
        file: ConfigFile,
        others: Callable[[], Others | None],
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        """`others` returns what measures other programs; None = nothing does yet."""
        self._schedule = stored_schedule(file)
        self._giving_way = stored_giving_way(file)
        self._others = others
        self._clock = clock
        self._now = now
        self._memory, self._load = GiveWayRule(), GiveWayRule()
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
        """Look at the clock and at the device."""
        self.reason = self._outside_hours() or self._others_need_it()

    def _outside_hours(self) -> str | None:
        schedule, now = self._schedule.current(), self._now()
        if schedule.is_open(now):
            self._opens = None
            return None
        if self._opens is None or self._opens[0] != schedule or (self._opens[1] or now) < now:
            self._opens = schedule, schedule.opens_at(now)
        hours = f"Videos are generated only in these hours: {', '.join(schedule.generate)}"
        opens = self._opens[1]
        return hours if opens is None else f"{hours}; the next begin {opens:%A %H:%M}"

    def _others_need_it(self) -> str | None:
        settings, others, now = self._giving_way.current(), self._others(), self._clock()
        return self._of_memory(settings, others, now) or self._of_load(settings, others, now)

    def _of_memory(self, settings: GivingWay, others: Others | None, now: float) -> str | None:
        if settings.when_others_leave_gb is None:
            self._memory = GiveWayRule()
            return None
        reading = None if others is None else others.memory()
        if reading is None:
            return None
        left, limit = max(0, reading.total - reading.used), settings.when_others_leave_gb * _GIB
        if not self._memory.decide(settings, pressed=left < limit, relaxed=left >= limit * RETURN_FACTOR, now=now):
            return None
        return (
            f"Other programs leave {left / _GIB:.1f} of {reading.total / _GIB:.1f} GiB memory of the device; wan22 "
            f"gives way below {settings.when_others_leave_gb:g} GiB"
        )

    def _of_load(self, settings: GivingWay, others: Others | None, now: float) -> str | None:
        if settings.when_others_use_percent is None:
            self._load = GiveWayRule()
            return None
        used, limit = None if others is None else others.load(), settings.when_others_use_percent
        if used is None:
            return None
        if not self._load.decide(settings, pressed=used > limit, relaxed=used <= limit / RETURN_FACTOR, now=now):
            return None
        return f"Other programs use {used:.0f} % of the device's time; wan22 gives way above {limit:g} %"
