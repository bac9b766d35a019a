"""How full a memory is, from which share on people are told, and what they are told.

Measures nothing: readings come from `engine.device_memory` or a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from backend.core.hardware import in_gib

#: A level ends only when the memory is this much emptier than where it began, so that one edge is not told many times.
HYSTERESIS = 0.05


class Place(StrEnum):
    """Whose memory."""

    VRAM = "vram"  #: the card's
    RAM = "ram"  #: this worker's part of what it may use of the machine's


class Level(StrEnum):
    """How full; the words of alerts."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Limits:
    """From which share of a memory on people are told."""

    warning: float
    critical: float

    def level(self, share: float, before: Level | None) -> Level | None:
        """Return the level of a share, given the one that was in force."""
        for level, limit in ((Level.CRITICAL, self.critical), (Level.WARNING, self.warning)):
            stays = before is Level.CRITICAL or before is level
            if share >= limit - (HYSTERESIS if stays else 0.0):
                return level
        return None


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """One memory at one moment; bytes."""

    place: Place
    used: int
    total: int

    @property
    def share(self) -> float:
        """How full it is, 0 to 1."""
        return self.used / self.total


@dataclass(frozen=True, slots=True)
class MemoryPeaks:
    """The most that was in use over a time, in bytes; None = unknown."""

    vram: int | None = None
    ram: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryAlert:
    """A memory that has become fuller than it should."""

    level: Level
    reading: MemoryReading

    @property
    def sentence(self) -> str:
        """As people read it."""
        reading = self.reading
        whose = {Place.VRAM: "The card's memory", Place.RAM: "The memory that this worker may use"}[reading.place]
        return f"{whose} is {100 * reading.share:.0f} % full ({in_gib(reading.used)} of {in_gib(reading.total)})"

    def to_json(self) -> dict[str, Any]:
        """As an event holds it."""
        return {
            "alert_type": "memory",
            "severity": self.level.value,
            "message": self.sentence,
            "place": self.reading.place.value,
            "used_bytes": self.reading.used,
            "total_bytes": self.reading.total,
        }
