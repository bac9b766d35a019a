"""Two records inside a model folder: the manifest of verified files, and when each of them was last seen whole.

The manifest grows during a download, so that the next process knows what is finished, and stays afterwards, so that
the folder can be checked without the hub. Folders of adopted files have one, too; a folder from elsewhere has none.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from backend.core.files import read_json, write_json

MANIFEST_FILE = "wan22-manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_NAME_CHARS = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\\:]")
LAST_SEEN_FILE = "wan22-last-seen.json"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file whose content was verified."""

    size: int  #: bytes
    sha256: str
    etag: str  #: the hub's name for this content: SHA-256 of large files, git's blob id of small ones


@dataclass(slots=True)
class Manifest:
    """The verified files of one folder, by their names relative to it."""

    model: str
    repository: str
    commit: str  #: empty for adopted files that were never completed from the hub
    files: dict[str, FileRecord] = field(default_factory=dict)
    #: Components whose files are the user's own instead of the repository's; they are not requested from the hub.
    adopted: list[str] = field(default_factory=list)

    def files_of(self, component: str) -> dict[str, FileRecord]:
        """Return the files of one component."""
        return {name: record for name, record in self.files.items() if name.startswith(f"{component}/")}

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(record.size for record in self.files.values())

    def write(self, folder: Path) -> None:
        """Write it into the folder, atomically."""
        write_json(folder / MANIFEST_FILE, asdict(self))


def read_manifest(folder: Path) -> Manifest | None:
    """Return a folder's manifest, or None when it is missing or malformed."""
    try:
        value = read_json(folder / MANIFEST_FILE)
        files = {str(name): FileRecord(**entry) for name, entry in value["files"].items()}
        adopted = [str(component) for component in value.get("adopted", [])]
        manifest = Manifest(str(value["model"]), str(value["repository"]), str(value["commit"]), files, adopted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    sound = all(
        is_inside(name) and type(record.size) is int and record.size >= 0 and _SHA256.fullmatch(str(record.sha256))
        for name, record in files.items()
    )
    return manifest if sound else None


def is_inside(name: str) -> bool:
    """Whether a relative file name, with forward slashes, stays inside the folder that it is joined to."""
    parts = name.split("/")
    return (
        not _CONTROL.search(name)
        and len(name) <= _MAX_NAME_CHARS
        and not PurePosixPath(name).is_absolute()
        and all(part not in {"", ".", ".."} for part in parts)
    )


@dataclass(frozen=True, slots=True)
class LastSeen:
    """When the files of one model folder were last seen whole, by file name."""

    folder: Path
    moments: dict[str, datetime]

    def of(self, name: str) -> datetime:
        """Return when a file was last seen whole: at its last check, or else when it was downloaded."""
        return self.moments.get(name, _written(self.folder / MANIFEST_FILE))

    def oldest(self, manifest: Manifest) -> datetime | None:
        """Return the oldest of these moments over all files; None without files."""
        return min((self.of(name) for name in manifest.files), default=None)

    def due(self, manifest: Manifest, now: datetime, days: float) -> list[str]:
        """Return the files that were last seen whole at least `days` days ago, oldest first."""
        old = [name for name in manifest.files if self.of(name) <= now - timedelta(days=days)]
        return sorted(old, key=lambda name: (self.of(name), name))

    def saw(self, name: str, moment: datetime) -> None:
        """Record that a file is whole."""
        self.moments[name] = moment
        write_json(self.folder / LAST_SEEN_FILE, {name: at.isoformat() for name, at in sorted(self.moments.items())})


def read_last_seen(folder: Path) -> LastSeen:
    """Read the record of a folder; malformed records, and entries older than the manifest, are ignored."""
    since = _written(folder / MANIFEST_FILE)
    try:
        entries = read_json(folder / LAST_SEEN_FILE)
        moments = {str(name): datetime.fromisoformat(text) for name, text in entries.items()}
        return LastSeen(folder, {name: at for name, at in moments.items() if at >= since})
    except (OSError, ValueError, TypeError, AttributeError):
        return LastSeen(folder, {})


def _written(path: Path) -> datetime:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return datetime.min.replace(tzinfo=UTC)
