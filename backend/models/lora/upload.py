"""Takes a LoRA file in: under a safe name, complete, checked, and visible only then.

What arrives is written beside its place as a part, judged by its content and renamed. Nothing in it is run.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from backend.core.errors import BodyTooLarge, InvalidRequest, LoraExists, LoraInvalid, StorageFull
from backend.core.formats.safetensors import read_header
from backend.core.lora.experts import hint_of
from backend.core.lora.keys import HIGH
from backend.models.lora.files import LoraFileReader

SUFFIX = ".safetensors"
MAX_UPLOAD_BYTES = 500 * 2**20
MAX_NAME_CHARS = 100
_PART_PREFIX = ".upload-"
_STALE_SECONDS = 3600.0
_CHUNK_BYTES = 2**20
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
#: Names that Windows keeps for devices; a home folder may lie on a disk that Windows reads too.
_DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Received:
    """A file that is in its place."""

    path: Path
    sha256: str
    new: bool  #: False when the very same file was here already


def safe_stem(name: str) -> str:
    """Return a name without folders, endings and characters that are no good in a file name or an address."""
    last = re.split(r"[/\\]", name)[-1]
    stem = re.sub(rf"{re.escape(SUFFIX)}$", "", last.strip(), flags=re.IGNORECASE)
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    safe = _UNSAFE.sub("-", plain).strip("-._")[:MAX_NAME_CHARS].rstrip("-._")
    if not safe or _DEVICES.match(safe):
        # Names in other scripts keep apart from each other by their digest.
        safe = f"lora-{safe}{'-' if safe else ''}{hashlib.sha256(last.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return safe


def target_name(filename: str, name: str | None) -> str:
    """Return the name under which an upload is kept: the one that was wished, or the file's own.

    A wished name for one half of a pair keeps the word that tells the halves apart.

    Raises:
        LoraInvalid: the file has the ending of another format.
        InvalidRequest: the wished name is too long.
    """
    if not filename.lower().endswith(SUFFIX):
        raise LoraInvalid(f"Only {SUFFIX} files are read; files of other formats can run code when they are opened")
    if name is None or not name.strip():
        return safe_stem(filename) + SUFFIX
    if len(name.strip()) > MAX_NAME_CHARS:
        raise InvalidRequest(f"name may have at most {MAX_NAME_CHARS} characters", details={"field": "name"})
    stem, hint = safe_stem(name), hint_of(safe_stem(filename))
    if hint is not None and hint.certain and hint_of(stem) is None:
        stem += "_high_noise" if hint.expert == HIGH else "_low_noise"
    return stem + SUFFIX


def receive(
    stream: IO[bytes], folder: Path, name: str, reader: LoraFileReader, limit: int = MAX_UPLOAD_BYTES
) -> Received:
    """Write a stream to `folder/name`, which appears only when it is a complete LoRA.

    Raises:
        BodyTooLarge: it is longer than `limit` bytes.
        LoraInvalid: it is no safetensors file, damaged, holds no LoRA for Wan, or holds NaN.
        LoraExists: another file has this name.
        StorageFull: the disk is full.
    """
    part = folder / f"{_PART_PREFIX}{secrets.token_hex(8)}.part"
    with _storage_errors():
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(folder)
        try:
            sha256 = _write(stream, part, limit)
            check_content(part, reader)
            return Received(folder / name, sha256, _put(part, folder / name, sha256))
        finally:
            reader.forget(part)
            part.unlink(missing_ok=True)


def check_content(path: Path, reader: LoraFileReader) -> None:
    """Look at all of a file, header and numbers.

    Raises:
        LoraInvalid: it is no safetensors file, damaged, holds no LoRA for Wan, or holds NaN.
    """
    header = read_header(path)
    known = reader.read(path)
    if known is None or known.problem is not None:
        raise LoraInvalid("The file went away" if known is None else (known.problem or ""))
    from backend.models.lora.numbers import check_numbers  # loads NumPy, which the server starts without

    check_numbers(path, header)


def same_or_refuse(target: Path, sha256: str) -> None:
    """Accept that a name is taken by the very same content.

    Raises:
        LoraExists: it is taken by another one.
    """
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise LoraExists(f"A LoRA file {target.name} is already here, with other content")


def discard_dangling(target: Path) -> None:
    """Free a name that only a link has whose file is gone."""
    if target.is_symlink() and not target.exists():
        target.unlink(missing_ok=True)


def remove_stale_parts(folder: Path) -> None:
    """Delete what uploads left that were cut off long ago."""
    for part in folder.glob(f"{_PART_PREFIX}*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                part.unlink()


def _write(stream: IO[bytes], part: Path, limit: int) -> str:
    digest, total = hashlib.sha256(), 0
    with part.open("xb") as file:
        while chunk := stream.read(_CHUNK_BYTES):
            total += len(chunk)
            if total > limit:
                raise BodyTooLarge(f"A LoRA file may have at most {limit // 2**20} MiB")
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _put(part: Path, target: Path, sha256: str) -> bool:
    """Give the part its name unless that is taken; return whether the file is new."""
    discard_dangling(target)
    try:
        os.link(part, target)  # unlike a rename, this never replaces what is there
    except FileExistsError:
        same_or_refuse(target, sha256)
        return False
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


@contextlib.contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull from error
        raise
