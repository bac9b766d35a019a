"""Checks a model folder against its manifest: offline, file by file.

Knows digests, sizes and the headers of safetensors files, and moves what has changed out of the folder; knows neither
the meaning of the weights nor the hub.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from filelock import FileLock, Timeout

from backend.core.catalogue.table import ModelSpec
from backend.core.formats.safetensors import read_header
from backend.core.formats.tensors import UnreadableWeights, UnsupportedWeights
from backend.core.formats.weights import SAFETENSORS_SUFFIX
from backend.core.paths import Home
from backend.models.folder.manifest import FileRecord, Manifest, read_manifest

_CHUNK_BYTES = 4 * 2**20


class FileState(StrEnum):
    """The condition of one file."""

    OK = "ok"
    MISSING = "missing"
    TRUNCATED = "truncated"  # shorter than it was
    CORRUPTED = "corrupted"  # other bytes, or more of them


@dataclass(frozen=True, slots=True)
class FileFinding:
    """One file of the manifest as it is now."""

    name: str
    state: FileState
    size: int  #: expected, in bytes


#: Receives a file name and the bytes of it that were read since the last call; may raise to stop the check.
OnRead = Callable[[str, int], None]


def check_quick(folder: Path, manifest: Manifest) -> list[FileFinding]:
    """Compare sizes and read the headers of the weights; wrong bytes of the right length go unnoticed."""
    return [
        FileFinding(name, quick_state(folder / name, record.size), record.size)
        for name, record in sorted(manifest.files.items())
    ]


def check_full(folder: Path, manifest: Manifest, on_read: OnRead = lambda _name, _count: None) -> list[FileFinding]:
    """Read every byte and compare its SHA-256."""
    findings = []
    for name, record in sorted(manifest.files.items()):
        state = quick_state(folder / name, record.size)
        if state is FileState.OK:
            digest = digest_of(folder / name, lambda count, name=name: on_read(name, count))  # type: ignore[misc]
            state = FileState.OK if digest == record.sha256 else FileState.CORRUPTED
        findings.append(FileFinding(name, state, record.size))
    return findings


def size_state(path: Path, size: int) -> FileState:
    """Judge one file by its size alone."""
    try:
        found = path.stat().st_size
    except OSError:
        return FileState.MISSING
    if found != size:
        return FileState.TRUNCATED if found < size else FileState.CORRUPTED
    return FileState.OK


def quick_state(path: Path, size: int) -> FileState:
    """Judge one file by its size, and a safetensors file by its header, too."""
    state = size_state(path, size)
    if state is FileState.OK and path.suffix == SAFETENSORS_SUFFIX and not header_reads(path):
        return FileState.CORRUPTED
    return state


def header_reads(path: Path) -> bool:
    """Whether a safetensors file's header is readable and matches the file's length; a type may be unsupported."""
    try:
        read_header(path)
    except UnsupportedWeights:
        return True
    except UnreadableWeights:
        return False
    return True


def digest_of(path: Path, on_read: Callable[[int], None] = lambda _count: None) -> str | None:
    """Return the SHA-256 of a file, read in chunks; None when the file cannot be read completely."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                total.update(chunk)
                on_read(len(chunk))
    except OSError:
        return None
    return total.hexdigest()


def move_to_quarantine(folder: Path, name: str, quarantine: Path) -> None:
    """Move a file from a model folder into the quarantine, replacing an earlier one of the same name."""
    target = quarantine / name
    target.parent.mkdir(parents=True, exist_ok=True)
    (folder / name).replace(target)


def is_ours(spec: ModelSpec, folder: Path) -> bool:
    """Whether a model's folder belongs to the home: nothing is changed in one that the user keeps elsewhere."""
    return spec.folder is None and not spec.embedded and not folder.is_symlink()


def put_away(home: Home, spec: ModelSpec, folder: Path, name: str, record: FileRecord) -> bool:
    """Move a changed file to the quarantine, unless another process is changing or has changed the folder."""
    try:
        with FileLock(home.model_lock_of(spec.id), timeout=0, thread_local=False):
            manifest = read_manifest(folder)
            if manifest is None or manifest.files.get(name) != record or not (folder / name).exists():
                return False
            move_to_quarantine(folder, name, home.quarantine_of(spec.id))
            return True
    except Timeout:
        return False
