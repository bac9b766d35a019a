"""The bandwidth limit that every download of a home folder respects, in whichever process it runs.

Stored in section `downloads` of config.json, so every process sees a change at once. Throttles nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from backend.core.config.definition import Number, plain, read_settings, setting
from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection

SECTION: Final = "downloads"
BANDWIDTH: Final = "bandwidth_limit_mbps"
HIGHEST_MBPS: Final = 1e6
#: Interval between checks for a changed limit during a download, in seconds.
LOOK_SECONDS: Final = 0.5
_MB: Final = 1e6

#: Returns the bytes per second that are allowed now; None = unlimited.
Limit = Callable[[], float | None]


def no_limit() -> float | None:
    """Return no limit."""
    return None


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """The stored settings of downloads."""

    bandwidth_limit_mbps: float | None = setting(
        None,
        "Megabytes (10^6 bytes) per second of each download; null is no limit",
        Number(0, HIGHEST_MBPS, "megabytes per second", optional=True, above=True),
    )

    @property
    def bytes_per_second(self) -> float | None:
        """The limit in bytes per second."""
        return None if self.bandwidth_limit_mbps is None else self.bandwidth_limit_mbps * _MB

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return plain(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DownloadSettings:
        """Build the settings from JSON values; missing ones take their default.

        Raises:
            InvalidRequest: a value is not a rate above zero, or a name is unknown.
        """
        return read_settings(cls, values)


#: The settings as stored in a config file.
StoredDownloads = StoredSection[DownloadSettings]


def stored_downloads(file: ConfigFile) -> StoredDownloads:
    """Return the settings stored in this file."""
    return StoredSection(file, SECTION, DownloadSettings.from_json)


def bandwidth_limit(file: ConfigFile, own: float | None = None) -> Limit:
    """Return a limit that follows the file during a download; `own` is a second limit, and the lower one applies.

    The file is checked every `LOOK_SECONDS`, because chunks arrive far more often, and read again when it has changed.
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
