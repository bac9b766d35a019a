"""How full a machine may be before people are warned, and before nothing more should be started on it.

Kept in the section `constraints` of the home's config.json. Measures nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from backend.core.config_file import ConfigFile
from backend.core.errors import InvalidRequest
from backend.core.kept_section import KeptSection
from backend.core.memory_level import Limits, Place

SECTION: Final = "constraints"
LOWEST, HIGHEST = 0.1, 1.0


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
KeptLimits = KeptSection[ResourceLimits]


def kept_limits(file: ConfigFile) -> KeptLimits:
    """Return the limits that this file keeps."""
    return KeptSection(file, SECTION, ResourceLimits.from_json)


def _share(name: str, value: object) -> float:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    if not LOWEST <= number <= HIGHEST:  # also: not a number
        raise InvalidRequest(
            f"{name} must be between {LOWEST} and {HIGHEST}",
            details={"field": name, "minimum": LOWEST, "maximum": HIGHEST},
        )
    return float(number)
