"""What a downloaded model folder holds, as a file inside it: names, sizes and digests of verified files.

Grows while a download lasts, so that the next process knows what is finished, and stays afterwards, so that the
folder can be checked without the hub. Folders of adopted files have one too; one that a user put there has none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

MANIFEST_FILE = "wan22-manifest.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_NAME_CHARS = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\\:]")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file whose content was verified."""

    size: int  #: bytes
    sha256: str
    etag: str  #: how the hub names this content: SHA-256 of large files, git's blob id of small ones


@dataclass(slots=True)
class Manifest:
    """The verified files of one folder, by their names relative to it."""

    model: str
    repository: str
    commit: str  #: empty for a folder of adopted files that the hub has never completed
    files: dict[str, FileRecord] = field(default_factory=dict)
    #: Components whose files are the user's own and not those of the repository; the hub is not asked for them.
    adopted: list[str] = field(default_factory=list)

    def files_of(self, component: str) -> dict[str, FileRecord]:
        """Return the files of one component."""
        return {name: record for name, record in self.files.items() if name.startswith(f"{component}/")}

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(record.size for record in self.files.values())

    def write(self, folder: Path) -> None:
        """Put it into the folder, whole or not at all."""
        write_json(folder / MANIFEST_FILE, asdict(self))


def read_manifest(folder: Path) -> Manifest | None:
    """Return a folder's manifest, or None when it has none that can be trusted in form."""
    try:
        value = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
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


def write_json(path: Path, value: object) -> None:
    """Write a small file so that after any crash the old or the new content is there."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(value, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
