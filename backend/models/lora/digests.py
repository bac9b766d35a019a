"""SHA-256 of LoRA files, read once as long as a file keeps its size and time; remembered across restarts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import threading
from pathlib import Path

from backend.core.errors import LoraNotFound


class DigestCache:
    """Digests by file; many threads and processes may use the same cache file."""

    def __init__(self, file: Path) -> None:
        """Keep what is known in `file`; without it, or when it cannot be read, files are read again."""
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[str, list[object]] | None = None

    def of(self, path: Path) -> str:
        """Return the digest of a file as 64 hexadecimal digits.

        Raises:
            LoraNotFound: the file is gone or cannot be read.
        """
        try:
            stat = path.stat()
            mark: list[object] = [stat.st_size, stat.st_mtime_ns]
            known = self._load().get(str(path))
            if known is not None and known[:2] == mark and isinstance(known[-1], str):
                return known[-1]
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise LoraNotFound(f"The file {path.name} is not here any more") from error
        self.remember(path, (stat.st_size, stat.st_mtime_ns), digest)
        return digest

    def remember(self, path: Path, mark: tuple[int, int], digest: str) -> None:
        """Note the digest of a file of this size and time."""
        with self._lock:
            known = self._known if self._known is not None else {}
            known[str(path)] = [*mark, digest]
            self._known = {name: value for name, value in known.items() if Path(name).exists()}
            part = self._file.with_name(f"{self._file.name}.{secrets.token_hex(4)}.part")
            # Only a memory: without it, files are read once more.
            with contextlib.suppress(OSError):
                part.write_text(json.dumps(self._known))
                part.replace(self._file)

    def _load(self) -> dict[str, list[object]]:
        with self._lock:
            if self._known is None:
                try:
                    values = json.loads(self._file.read_text())
                except (OSError, ValueError):
                    values = {}
                self._known = {
                    name: value
                    for name, value in (values.items() if isinstance(values, dict) else ())
                    if isinstance(value, list) and len(value) == 3
                }
            return self._known
