"""How full a memory is, from which share on people are told, and what they are told.

Measures nothing: readings come from `engine.device_memory` or a test.

How full a machine may be before people are warned, and before nothing more should be started on it.

Kept in the section `constraints` of the home's config.json. Measures nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection
from backend.core.errors import InvalidRequest
from backend.core.planning.hardware import in_gib

#: A level ends only when the memory is this much emptier than where it began, so that one edge is not told many times.
HYSTERESIS = 0.05
SECTION: Final = "constraints"
LOWEST, HIGHEST = 0.1, 1.0


class Place(StrEnum):
    """Whose memory."""

    VRAM = "vram"  #: the card's
    RAM = "ram"  #: this worker's part of what it may use of the machine's


class MemoryLevel(StrEnum):
    """How full; the words of alerts."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Limits:
    """From which share of a memory on people are told."""

    warning: float
    critical: float

    def level(self, share: float, before: MemoryLevel | None) -> MemoryLevel | None:
        """Return the level of a share, given the one that was in force."""
        for level, limit in ((MemoryLevel.CRITICAL, self.critical), (MemoryLevel.WARNING, self.warning)):
            stays = before is MemoryLevel.CRITICAL or before is level
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

    level: MemoryLevel
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


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Shares of what is there, 0.1 to 1.0."""

    vram_warning_threshold: float = 0.75
    vram_critical_threshold: float = 0.90
    cpu_warning_threshold: float = 0.90
    ram_warning_threshold: float = 0.75
    ram_critical_threshold: float = 0.90

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return asdict(self)

    def of(self, place: Place) -> Limits:
        """Return from which shares of a memory on people are told."""
        if place is Place.VRAM:
            return Limits(self.vram_warning_threshold, self.vram_critical_threshold)
        return Limits(self.ram_warning_threshold, self.ram_critical_threshold)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ResourceLimits:
        """Build the limits from JSON values; what is left out is the default.

        Raises:
            InvalidRequest: a value is no share, or a warning would come after its limit.
        """
        merged = cls().to_json() | values
        if set(merged) - set(cls.__slots__):
            raise InvalidRequest(f"There is no limit of this name; there are {', '.join(cls.__slots__)}")
        limits = cls(**{name: _share(name, value) for name, value in merged.items()})
        for kind in ("vram", "ram"):
            if merged[f"{kind}_warning_threshold"] > merged[f"{kind}_critical_threshold"]:
                raise InvalidRequest(
                    f"{kind}_warning_threshold must not be above {kind}_critical_threshold",
                    details={"field": f"{kind}_warning_threshold", "maximum": merged[f"{kind}_critical_threshold"]},
                )
        return limits


#: The limits as a file keeps them.
StoredLimits = StoredSection[ResourceLimits]


def stored_limits(file: ConfigFile) -> StoredLimits:
    """Return the limits that this file keeps."""
    return StoredSection(file, SECTION, ResourceLimits.from_json)


def _share(name: str, value: object) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    if not LOWEST <= number <= HIGHEST:  # also: not a number
        raise InvalidRequest(
            f"{name} must be between {LOWEST} and {HIGHEST}",
            details={"field": name, "minimum": LOWEST, "maximum": HIGHEST},
        )
    return float(number)
