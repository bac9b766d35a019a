"""The machine as the last start of the server found it, so that a card that is gone or a smaller limit is noticed.

One small JSON file in the home folder. Decides nothing.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from backend.core.hardware import HardwareProfile


def last_profile(path: Path) -> HardwareProfile | None:
    """Return what the last start wrote; None when there was none, or one of another version."""
    try:
        return HardwareProfile.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remember(path: Path, profile: HardwareProfile) -> list[str]:
    """Write down the machine of this start, and say in words what changed since the last one.

    A disk that takes no file is reported elsewhere; it does not keep a server from starting.
    """
    before = last_profile(path)
    fresh = path.with_suffix(".part")
    with suppress(OSError):
        fresh.write_text(json.dumps(profile.to_json(), indent=1))
        fresh.replace(path)
    return [] if before is None else profile.changes_since(before)
