"""When each file of a model was last seen whole, as a file beside the manifest, and which files are due again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backend.models.manifest import MANIFEST_FILE, Manifest, write_json

LAST_SEEN_FILE = "wan22-last-seen.json"


@dataclass(frozen=True, slots=True)
class LastSeen:
    """The moments of one model folder, by file name."""

    folder: Path
    moments: dict[str, datetime]

    def of(self, name: str) -> datetime:
        """Return when a file was last seen whole: when it was checked, or else when it was brought here."""
        return self.moments.get(name, _written(self.folder / MANIFEST_FILE))

    def oldest(self, manifest: Manifest) -> datetime | None:
        """Return the moment since which every file has been seen whole; None without files."""
        return min((self.of(name) for name in manifest.files), default=None)

    def due(self, manifest: Manifest, now: datetime, days: float) -> list[str]:
        """Return the files that were last seen whole at least so many days ago, the longest ago first."""
        old = [name for name in manifest.files if self.of(name) <= now - timedelta(days=days)]
        return sorted(old, key=lambda name: (self.of(name), name))

    def saw(self, name: str, moment: datetime) -> None:
        """Write down that a file is whole."""
        self.moments[name] = moment
        write_json(self.folder / LAST_SEEN_FILE, {name: at.isoformat() for name, at in sorted(self.moments.items())})


def read_last_seen(folder: Path) -> LastSeen:
    """Read the moments of a folder; those from before its manifest was written, and what cannot be read, count not."""
    since = _written(folder / MANIFEST_FILE)
    try:
        entries = json.loads((folder / LAST_SEEN_FILE).read_text(encoding="utf-8"))
        moments = {str(name): datetime.fromisoformat(text) for name, text in entries.items()}
        return LastSeen(folder, {name: at for name, at in moments.items() if at >= since})
    except (OSError, ValueError, TypeError, AttributeError):
        return LastSeen(folder, {})


def _written(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return datetime.min.replace(tzinfo=UTC)
