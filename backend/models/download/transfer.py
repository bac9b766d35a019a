"""Transfers one file from the hub to the disk: resumes from existing bytes, and succeeds only with the right digest.

The bytes grow in `NAME.part`, beside a note that identifies their content. Both survive `kill -9`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from backend.core.errors.models import HubUnreachable
from backend.core.files import PART_SUFFIX, read_json, storage_errors, sync_folder, write_json
from backend.core.formats.weights import SAFETENSORS_SUFFIX
from backend.models.download.hub import Hub, RemoteFile, unreachable
from backend.models.download.retries import Retries, Transient
from backend.models.folder.integrity import header_reads

#: Error message for a full disk.
KEPT = "The disk is full; what has arrived of the model is kept"
NOTE_SUFFIX = ".part.json"
MAX_REDIRECTS = 5
MAX_RESTARTS = 3  # of one file, with a server that cannot resume it
_READ_BYTES = 4 * 2**20
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
CONNECT_SECONDS = 15.0
STALL_SECONDS = 30.0  # without a byte, on an open connection


class WrongContent(Exception):
    """All bytes arrived, but not those that the hub announced; they are in the part file."""


class FileTransfer:
    """Transfers files over one pool of connections."""

    def __init__(
        self,
        hub: Hub,
        retries: Retries,
        check: Callable[[], None],
        pace: Callable[[int], None],
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        """`check` is called between chunks and raises to stop; `pace` receives their sizes and may wait."""
        self._hub = hub
        self._retries = retries
        self._check = check
        self._pace = pace
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(stall_seconds, connect=CONNECT_SECONDS), follow_redirects=False
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def fetch(self, file: RemoteFile, url: str, target: Path, on_bytes: Callable[[int, bool], None]) -> str:
        """Transfer a file to `target` and return its SHA-256.

        `on_bytes` receives the number of bytes added, and whether they came over the network just now.

        Raises:
            WrongContent: the digest of the bytes is not the hub's.
            StorageFull: the disk is full.
            WanError: the hub refuses, or fails for too long; or what `check` raises. The bytes are kept.
        """
        part, note = target.with_name(target.name + PART_SUFFIX), target.with_name(target.name + NOTE_SUFFIX)
        with storage_errors(KEPT):
            target.parent.mkdir(parents=True, exist_ok=True)
            if not _belongs(part, note, file):
                part.unlink(missing_ok=True)
                write_json(note, {"etag": file.etag, "size": file.size})
            digest = _Digest(file)
            with part.open("ab+", buffering=0) as sink:
                sink.seek(0)
                while chunk := sink.read(_READ_BYTES):
                    self._check()
                    digest.update(chunk)
                    on_bytes(len(chunk), False)
                restarts = 0
                while digest.length < file.size:
                    try:
                        self._receive(file, url, sink.write, digest, on_bytes)
                    except _StartAnew:
                        restarts += 1
                        if restarts > MAX_RESTARTS:
                            raise HubUnreachable(f"The model hub does not let {file.name} be continued") from None
                        sink.truncate(0)
                        on_bytes(-digest.length, False)
                        digest = _Digest(file)
                    except Transient as error:
                        self._retries.failed(error)
                os.fsync(sink.fileno())
            if not digest.fits() or (target.suffix == SAFETENSORS_SUFFIX and not header_reads(part)):
                raise WrongContent(file.name)
            part.replace(target)
            sync_folder(target.parent)
            note.unlink(missing_ok=True)
        return digest.sha256

    def _receive(
        self,
        file: RemoteFile,
        url: str,
        write: Callable[[bytes], int | None],
        digest: _Digest,
        on_bytes: Callable[[int, bool], None],
    ) -> None:
        """Append what one connection delivers to the file."""
        with self._answer(file, url, digest.length) as response:
            try:
                for chunk in response.iter_raw():
                    self._check()
                    wanted = memoryview(chunk)[: file.size - digest.length]
                    while wanted:
                        written = write(bytes(wanted)) or 0
                        digest.update(wanted[:written])
                        on_bytes(written, True)
                        wanted = wanted[written:]
                    self._retries.progressed()
                    if digest.length == file.size:
                        return
                    self._pace(len(chunk))
            except httpx2.TransportError as error:
                raise unreachable(error) from error
        if digest.length < file.size:
            raise Transient(HubUnreachable(f"The model hub ends {file.name} too early, again and again"))

    @contextmanager
    def _answer(self, file: RemoteFile, url: str, start: int) -> Iterator[httpx2.Response]:
        """Request a file from a byte offset, following redirects by hand: our token goes to the hub alone."""
        here = httpx2.URL(url)
        for _ in range(MAX_REDIRECTS + 1):
            self._check()
            headers = {"Accept-Encoding": "identity", **self._hub.authorization(here)}
            if start:
                headers["Range"] = f"bytes={start}-"
            try:
                response = self._client.send(self._client.build_request("GET", here, headers=headers), stream=True)
            except httpx2.TransportError as error:
                raise unreachable(error) from error
            try:
                if response.status_code in _REDIRECTS and "Location" in response.headers:
                    here = self._next(here, response.headers["Location"])
                    continue
                self._judge(response, file, start)
                yield response
                return
            finally:
                response.close()
        raise HubUnreachable("The model hub redirects in a circle")

    @staticmethod
    def _next(here: httpx2.URL, location: str) -> httpx2.URL:
        try:
            there = here.join(location)
        except httpx2.InvalidURL:
            raise HubUnreachable("The model hub redirects to an invalid address") from None
        if there.scheme not in {"http", "https"} or (here.scheme == "https" and there.scheme != "https"):
            raise HubUnreachable("The model hub redirects to a connection that is not encrypted")
        return there

    def _judge(self, response: httpx2.Response, file: RemoteFile, start: int) -> None:
        status = response.status_code
        if status == 206 and start:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise _StartAnew
            return
        if status == 200:
            if start:
                raise _StartAnew  # this server does not support ranges
            return
        if status == 416 and start:
            raise _StartAnew
        if status in {401, 403, 404} and not self._hub.owns(response.url):
            # An expired address of the delivery network; the hub gives a new one.
            raise Transient(HubUnreachable(f"The delivery network of the model hub refuses {file.name} ({status})"))
        self._hub.refuse(status, response.headers, file.name)


class _StartAnew(Exception):
    """This answer cannot resume the bytes on the disk."""


class _Digest:
    """The digests of the bytes so far: SHA-256, and git's blob id where the hub has no SHA-256."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        # The object header of git: type, length, NUL.
        self._git = None if file.sha256 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
        self.length = 0

    def update(self, chunk: bytes | memoryview) -> None:
        """Add the next bytes."""
        self._sha256.update(chunk)
        if self._git is not None:
            self._git.update(chunk)
        self.length += len(chunk)

    @property
    def sha256(self) -> str:
        """SHA-256 of the bytes so far, in hexadecimal."""
        return self._sha256.hexdigest()

    def fits(self) -> bool:
        """Whether these are the bytes that the hub announced."""
        if self.length != self._file.size:
            return False
        return (self._file.sha256 or self._file.blob_id) == (
            self._git.hexdigest() if self._git is not None else self.sha256
        )


def content_of(path: Path, file: RemoteFile, check: Callable[[], None], on_read: Callable[[int], None]) -> str | None:
    """Return the SHA-256 of a file on disk when its content is what the hub announces, else None."""
    digest = _Digest(file)
    with path.open("rb") as source:
        while chunk := source.read(_READ_BYTES):
            check()
            digest.update(chunk)
            on_read(len(chunk))
    return digest.sha256 if digest.fits() else None


def part_size(target: Path, file: RemoteFile) -> int:
    """Number of bytes of a file that are on the disk and can be resumed."""
    part, note = target.with_name(target.name + PART_SUFFIX), target.with_name(target.name + NOTE_SUFFIX)
    return part.stat().st_size if _belongs(part, note, file) else 0


def _belongs(part: Path, note: Path, file: RemoteFile) -> bool:
    """Whether the bytes on the disk are the beginning of this content."""
    try:
        value = read_json(note)
        return value == {"etag": file.etag, "size": file.size} and part.stat().st_size <= file.size
    except (OSError, ValueError):
        return False


def discard_part(target: Path) -> None:
    """Delete the partial bytes of a file."""
    for suffix in (PART_SUFFIX, NOTE_SUFFIX):
        with suppress(FileNotFoundError):
            target.with_name(target.name + suffix).unlink()
