"""Memory levels: the operator's limits, when a reading crosses one, and the alert that it raises.

The limits are stored in the section `constraints` of the home's config.json. Measures nothing: readings come from
`engine.memory.readings` or a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from backend.core.config.definition import Number, plain, read_settings, setting
from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection
from backend.core.errors.requests import InvalidRequest
from backend.core.planning.hardware import in_gib

SECTION: Final = "constraints"
#: A level ends only this share below the limit where it began, so that usage near the limit does not alert repeatedly.
HYSTERESIS: Final = 0.05
#: Range of every limit.
_SHARE: Final = Number(0.1, 1.0)


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

    vram_warning_threshold: float = setting(0.75, "Share of the card's memory from which a warning is given", _SHARE)
    vram_critical_threshold: float = setting(0.90, "Share of the card's memory at which it counts as full", _SHARE)
    cpu_warning_threshold: float = setting(0.90, "Share of the processor's time from which it counts as busy", _SHARE)
    ram_warning_threshold: float = setting(0.75, "Share of the host's memory from which a warning is given", _SHARE)
    ram_critical_threshold: float = setting(0.90, "Share of the host's memory at which it counts as full", _SHARE)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return plain(self)

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
        limits = read_settings(cls, values, "limit")
        shares = limits.to_json()
        for kind in ("vram", "ram"):
            if shares[f"{kind}_warning_threshold"] > shares[f"{kind}_critical_threshold"]:
                raise InvalidRequest(
                    f"{kind}_warning_threshold must not be above {kind}_critical_threshold",
                    details={"field": f"{kind}_warning_threshold", "maximum": shares[f"{kind}_critical_threshold"]},
                )
        return limits


StoredLimits = StoredSection[ResourceLimits]


def stored_limits(file: ConfigFile) -> StoredLimits:
    """Return the limits stored in this file."""
    return StoredSection(file, SECTION, ResourceLimits.from_json)
