"""Memory levels: the operator's limits, when a reading crosses one, and the alert that it raises.

The limits are stored in the section `constraints` of the home's config.json. Measures nothing: readings come from
`engine.memory.readings` or a test.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection, check_names, check_number
from backend.core.errors.requests import InvalidRequest
from backend.core.planning.hardware import in_gib

SECTION: Final = "constraints"
#: A level ends only this share below the limit where it began, so that usage near the limit does not alert repeatedly.
HYSTERESIS: Final = 0.05
#: Range of every limit.
LOWEST, HIGHEST = 0.1, 1.0


class Place(StrEnum):
    """The memory that a reading is about."""

    VRAM = "vram"  #: the card's
    RAM = "ram"  #: the part of the host's memory that this worker may use


class MemoryLevel(StrEnum):
    """Severity of an alert."""

    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Limits:
    """Shares of one memory at which alerts start."""

    warning: float
    critical: float

    def level(self, share: float, before: MemoryLevel | None) -> MemoryLevel | None:
        """Return the level at this share, given the previous level."""
        for level, limit in ((MemoryLevel.CRITICAL, self.critical), (MemoryLevel.WARNING, self.warning)):
            stays = before is MemoryLevel.CRITICAL or before is level
            if share >= limit - (HYSTERESIS if stays else 0.0):
                return level
        return None


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """Usage of one memory at one moment, in bytes."""

    place: Place
    used: int
    total: int

    @property
    def share(self) -> float:
        """The share in use, 0 to 1."""
        return self.used / self.total


@dataclass(frozen=True, slots=True)
class MemoryPeaks:
    """Peak usage over a period, in bytes; None = unknown."""

    vram: int | None = None
    ram: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryAlert:
    """A memory that crossed one of its limits."""

    level: MemoryLevel
    reading: MemoryReading

    @property
    def sentence(self) -> str:
        """The alert in words."""
        reading = self.reading
        whose = {Place.VRAM: "The card's memory", Place.RAM: "The memory that this worker may use"}[reading.place]
        return f"{whose} is {100 * reading.share:.0f} % full ({in_gib(reading.used)} of {in_gib(reading.total)})"

    def to_json(self) -> dict[str, Any]:
        """Return the data of the event."""
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
    """Limits as shares of each resource, 0.1 to 1.0."""

    vram_warning_threshold: float = 0.75
    vram_critical_threshold: float = 0.90
    cpu_warning_threshold: float = 0.90
    ram_warning_threshold: float = 0.75
    ram_critical_threshold: float = 0.90

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return asdict(self)

    def of(self, place: Place) -> Limits:
        """Return the limits of one memory."""
        if place is Place.VRAM:
            return Limits(self.vram_warning_threshold, self.vram_critical_threshold)
        return Limits(self.ram_warning_threshold, self.ram_critical_threshold)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ResourceLimits:
        """Build the limits from JSON values; missing names get their default.

        Raises:
            InvalidRequest: a name is unknown, a value out of range, or a warning limit above its critical limit.
        """
        merged = cls().to_json() | values
        check_names(merged, cls.__slots__, "limit")
        limits = cls(**{name: check_number(name, value, LOWEST, HIGHEST) for name, value in merged.items()})
        for kind in ("vram", "ram"):
            if merged[f"{kind}_warning_threshold"] > merged[f"{kind}_critical_threshold"]:
                raise InvalidRequest(
                    f"{kind}_warning_threshold must not be above {kind}_critical_threshold",
                    details={"field": f"{kind}_warning_threshold", "maximum": merged[f"{kind}_critical_threshold"]},
                )
        return limits


StoredLimits = StoredSection[ResourceLimits]


def stored_limits(file: ConfigFile) -> StoredLimits:
    """Return the limits stored in this file."""
    return StoredSection(file, SECTION, ResourceLimits.from_json)
