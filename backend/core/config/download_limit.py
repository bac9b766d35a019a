"""How fast models may come: one limit that each download of a home keeps to, whoever runs it.

Kept in the section `downloads` of the home's config.json, so every process sees a change at once. Waits for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection, check_names
from backend.core.errors import InvalidRequest

SECTION: Final = "downloads"
BANDWIDTH: Final = "bandwidth_limit_mbps"
HIGHEST_MBPS: Final = 1e6
#: How soon a running download sees a change, in seconds.
LOOK_SECONDS: Final = 0.5
_MB: Final = 1e6

#: Asked for the bytes per second that are allowed now; None = as fast as it goes.
Limit = Callable[[], float | None]


def no_limit() -> float | None:
    """Allow everything."""
    return None


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """What is kept about downloads."""

    bandwidth_limit_mbps: float | None = None  #: megabytes (10^6 bytes) per second of each download; None = no limit

    @property
    def bytes_per_second(self) -> float | None:
        """The same in bytes."""
        return None if self.bandwidth_limit_mbps is None else self.bandwidth_limit_mbps * _MB

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return {BANDWIDTH: self.bandwidth_limit_mbps}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DownloadSettings:
        """Build the settings from JSON values; what is left out is the default.

        Raises:
            InvalidRequest: a value is no rate above zero, or there is a name that means nothing.
        """
        check_names(values, [BANDWIDTH], "setting")
        limit = values.get(BANDWIDTH)
        if limit is None:
            return cls()
        number = limit if isinstance(limit, int | float) and not isinstance(limit, bool) else 0.0
        if not 0.0 < number <= HIGHEST_MBPS:  # also: not a number
            raise InvalidRequest(
                f"{BANDWIDTH} must be above 0 and at most {HIGHEST_MBPS:g}",
                details={"field": BANDWIDTH, "maximum": HIGHEST_MBPS},
            )
        return cls(float(number))


#: The settings as a file keeps them.
StoredDownloads = StoredSection[DownloadSettings]


def stored_downloads(file: ConfigFile) -> StoredDownloads:
    """Return the settings that this file keeps."""
    return StoredSection(file, SECTION, DownloadSettings.from_json)


def bandwidth_limit(file: ConfigFile, own: float | None = None) -> Limit:
    """Return a limit that follows the file while a download runs; `own` is a second one, and the lower of both counts.

    The file is read again when it has changed, and looked at every `LOOK_SECONDS`: chunks come much more often.
    """
    kept = stored_downloads(file)
    mark, looked, limit = file.mark, time.monotonic(), kept.current().bytes_per_second

    def now() -> float | None:
        nonlocal mark, looked, limit
        if time.monotonic() - looked >= LOOK_SECONDS:
            looked = time.monotonic()
            if file.mark != mark:
                mark, limit = file.mark, kept.current().bytes_per_second
        return min((one for one in (limit, own) if one is not None), default=None)

    return now
