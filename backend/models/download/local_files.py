"""Finds files of other programs on this machine by the content that is wanted.

Searches the Hugging Face cache, which names files by content, and arbitrary folders within bounds. Reads, never writes.
A link is followed once; cycles, devices and unreadable folders are skipped.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from huggingface_hub import constants

from backend.models.download.extra_paths import follow
from backend.models.download.hub import RemoteFile
from backend.models.folder.integrity import digest_of

MAX_DEPTH = 12
MAX_ENTRIES = 500_000
#: Smaller files are downloaded faster than they are found.
_WORTH_BYTES = 2**20
_CACHED_REPOSITORY, _BLOBS = "models--", "blobs"
_CONTENT_NAME = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass
class Walk:
    """One walk through folders: their regular files, and which folders could not be read."""

    roots: tuple[Path, ...]
    unreadable: list[Path] = field(default_factory=list)
    cut_short: bool = False  #: the folders hold more, or go deeper, than the bounds allow
    _seen: set[tuple[int, int]] = field(default_factory=set)
    _entries: int = 0

    def files(self) -> Iterator[Path]:
        """Yield every regular file by each of its names; dangling links are skipped."""
        for root in self.roots:
            yield from self._folder(root, 0)

    def _folder(self, folder: Path, depth: int) -> Iterator[Path]:
        try:
            status = folder.stat()
            if stat.S_ISREG(status.st_mode):
                yield folder
                return
            if not stat.S_ISDIR(status.st_mode) or (status.st_dev, status.st_ino) in self._seen:
                return
            self._seen.add((status.st_dev, status.st_ino))
            paths = sorted(folder.iterdir())
        except OSError:
            self.unreadable.append(folder)
            return
        folders = []
        for path in paths:
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                self.cut_short = True
                return
            try:
                mode = path.stat().st_mode
            except OSError:
                continue
            if stat.S_ISREG(mode):
                yield path
            elif stat.S_ISDIR(mode):
                folders.append(path)
        for path in folders:
            if depth >= MAX_DEPTH:
                self.cut_short = True
            else:
                yield from self._folder(path, depth + 1)


def content_name(path: Path) -> str:
    """Return the content name (SHA-256 or git's blob id) of a file in a Hugging Face cache; else an empty string."""
    real = path.resolve()
    return real.name if real.parent.name == _BLOBS and _CONTENT_NAME.fullmatch(real.name) else ""


def hugging_face_cache() -> Path:
    """Return the cache folder of huggingface_hub (`HF_HUB_CACHE`, `HF_HOME`)."""
    return Path(constants.HF_HUB_CACHE)


class LocalFiles:
    """Finds wanted contents in a Hugging Face cache, in further folders, and in those named by ComfyUI's file there."""

    def __init__(self, roots: Iterable[Path] = (), cache: Path | None = None) -> None:
        self._roots = tuple(roots)
        self._cache = cache
        self._digests: dict[tuple[Path, int, int], str | None] = {}

    def candidates(self, file: RemoteFile) -> Iterator[Path]:
        """Yield files that may have this content, likeliest first; the caller has to verify them."""
        yield from self._cached(file)
        if file.size >= _WORTH_BYTES:
            yield from self._by_size.get(file.size, ())

    def digest(self, path: Path, on_read: Callable[[int], None]) -> str | None:
        """Return a file's SHA-256, read once and cached; None when it cannot be read."""
        try:
            status = path.stat()
        except OSError:
            return None
        key = (path, status.st_size, status.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = digest_of(path, on_read)
        return self._digests[key]

    def _cached(self, file: RemoteFile) -> Iterator[Path]:
        if self._cache is None or not _CONTENT_NAME.fullmatch(file.etag):
            return
        try:
            repositories = sorted(self._cache.glob(f"{_CACHED_REPOSITORY}*"))
        except OSError:
            return
        for repository in repositories:
            path = repository / _BLOBS / file.etag
            try:
                status = path.stat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size == file.size:
                yield path

    @cached_property
    def _by_size(self) -> dict[int, list[Path]]:
        found: dict[int, list[Path]] = {}
        for path in Walk((*self._roots, *follow(self._roots).folders)).files():
            try:
                size = path.stat().st_size
            except OSError:
                continue
            if size >= _WORTH_BYTES:
                found.setdefault(size, []).append(path)
        return found
