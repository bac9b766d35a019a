"""Receives LoRA files: a file appears under a safe name only once it is complete and checked.

Data is written to a part file, checked by its content, then linked into place; nothing in it is executed. NaN and
infinity are found without torch: all exponent bits of such a value are set, so a mask over the raw bytes suffices.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import secrets
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from backend.core.catalogue.spec import HIGH
from backend.core.errors.lookups import LoraExists
from backend.core.errors.requests import BodyTooLarge, InvalidRequest, LoraInvalid
from backend.core.files import storage_errors, sync_folder
from backend.core.formats.safetensors import SafetensorsHeader
from backend.core.formats.tensors import DTYPE_BYTES
from backend.core.lora.experts import hint_of
from backend.core.lora.match import read_lora
from backend.models.lora.files import LoraFileReader

SUFFIX = ".safetensors"
MAX_UPLOAD_BYTES = 500 * 2**20
MAX_NAME_CHARS = 100
_PART_PREFIX = ".upload-"
_STALE_SECONDS = 3600.0
_CHUNK_BYTES = 2**20
#: With the digest and the suffix, within the 255 bytes of most file systems.
_MAX_NAME_BYTES = 220
_DIGEST_CHARS = 8
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_FORBIDDEN = re.compile(r'[/\\:*?"<>|]')
#: Unicode categories of control characters, invisible ones (such as those that reverse a name), and half characters.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: The invisible characters inside emoji and in some scripts.
_JOINERS = "\u200c\u200d"
#: Device names reserved by Windows; a home folder may be on a disk that Windows also reads.
_DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
#: By type: the bits that are all set in NaN and infinity
#: (IEEE 754; E4M3 has no infinity, and its only NaN has every bit but the sign set).
_MASKS: dict[str, int] = {
    "F64": 0x7FF0000000000000,
    "F32": 0x7F800000,
    "F16": 0x7C00,
    "BF16": 0x7F80,
    "F8_E5M2": 0x7C,
    "F8_E4M3": 0x7F,
}
_CHUNK_VALUES = 2**22


@dataclass(frozen=True, slots=True)
class Received:
    """A file that is in place."""

    path: Path
    sha256: str
    new: bool  #: False if the same file was already installed


def safe_stem(name: str) -> str:
    """Return a name without folders, the suffix, and characters that are unsafe in a URL.

    A digest of the whole name follows when a character was dropped, so names in any script stay distinct.
    """
    stem = _own_stem(name)
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    safe = _UNSAFE.sub("-", plain).strip("-._")
    if not safe or _DEVICES.match(safe):
        return f"lora-{safe}{'-' if safe else ''}{_digest(stem)}"
    if stem.isascii() and len(safe) <= MAX_NAME_CHARS:
        return safe
    return f"{safe[: MAX_NAME_CHARS - _DIGEST_CHARS - 1].rstrip('-._')}-{_digest(stem)}"


def kept_stem(name: str) -> str:
    """Return the name that a file is stored under: its own, without folders, the suffix, and what systems reject."""
    stem = _own_stem(name)
    visible = "".join(char for char in stem if unicodedata.category(char) not in _INVISIBLE or char in _JOINERS)
    kept = _FORBIDDEN.sub("-", visible)
    while len(kept) > MAX_NAME_CHARS or len(kept.encode()) > _MAX_NAME_BYTES:
        kept = kept[:-1]
    whole = kept == stem
    kept = kept.strip().lstrip("-.").rstrip(". ")
    if not kept or _DEVICES.match(kept):
        return safe_stem(name)
    return kept if whole else f"{kept}-{_digest(stem)}"


def place_of(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder; an existing one may write the same name in another Unicode form."""
    path = folder / name
    same = (one for one in folder.glob(f"*{SUFFIX}") if unicodedata.normalize("NFC", one.name) == name)
    return path if path.exists() else next(same, path)


def _own_stem(name: str) -> str:
    last = unicodedata.normalize("NFC", re.split(r"[/\\]", name)[-1].strip())
    return re.sub(rf"{re.escape(SUFFIX)}$", "", last, flags=re.IGNORECASE)


def _digest(stem: str) -> str:
    return hashlib.sha256(stem.encode("utf-8", "replace")).hexdigest()[:_DIGEST_CHARS]


def target_name(filename: str, name: str | None) -> str:
    """Return the name under which an upload is stored: the requested one, or the file's own.

    A requested name for one half of a pair keeps the word that tells the halves apart.

    Raises:
        LoraInvalid: the file has the suffix of another format.
        InvalidRequest: the requested name is too long.
    """
    if not filename.lower().endswith(SUFFIX):
        raise LoraInvalid(f"Only {SUFFIX} files are read; files of other formats can run code when they are opened")
    if name is None or not name.strip():
        return kept_stem(filename) + SUFFIX
    if len(name.strip()) > MAX_NAME_CHARS:
        raise InvalidRequest(f"name may have at most {MAX_NAME_CHARS} characters", details={"field": "name"})
    stem, hint = kept_stem(name), hint_of(kept_stem(filename))
    if hint is not None and hint.certain and hint_of(stem) is None:
        stem += "_high_noise" if hint.expert == HIGH else "_low_noise"
    return stem + SUFFIX


def receive(
    stream: IO[bytes], folder: Path, name: str, reader: LoraFileReader, limit: int = MAX_UPLOAD_BYTES
) -> Received:
    """Write a stream to `folder/name`, which appears only once it is a complete LoRA.

    Raises:
        BodyTooLarge: the stream is longer than `limit` bytes.
        LoraInvalid: it is not a safetensors file, is damaged, holds no LoRA for Wan, or holds NaN.
        LoraExists: another file has this name.
        StorageFull: the disk is full.
    """
    part = folder / f"{_PART_PREFIX}{secrets.token_hex(8)}.part"
    with storage_errors():
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale_parts(folder)
        try:
            sha256 = _write(stream, part, limit)
            check_content(part, reader)
            target = place_of(folder, name)
            return Received(target, sha256, _put(part, target, sha256))
        finally:
            reader.forget(part)
            part.unlink(missing_ok=True)


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
    """Link the part into place unless the name is taken; return whether the file is new."""
    discard_dangling(target)
    try:
        os.link(part, target)  # unlike a rename, this never replaces an existing file
    except FileExistsError:
        same_or_refuse(target, sha256)
        return False
    sync_folder(target.parent)
    return True


def check_content(path: Path, reader: LoraFileReader) -> None:
    """Check a whole file, header and values.

    Raises:
        LoraInvalid: it is not a safetensors file, is damaged, holds no LoRA for Wan, or holds NaN.
    """
    header = read_lora(path)
    known = reader.read(path)
    if known is None:
        raise LoraInvalid("The file was deleted during the check")
    if known.problem is not None:
        raise known.error(known.problem)
    _check_numbers(path, header)


def _check_numbers(path: Path, header: SafetensorsHeader) -> None:
    """Check every floating-point tensor.

    Raises:
        LoraInvalid: a tensor holds NaN or infinity, or the file cannot be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            for name, info in header.tensors.items():
                if info.dtype in _MASKS and _has_nonfinite(view, header.spans[name], info.dtype):
                    raise LoraInvalid(f"The tensor {name[:120]} holds values that are not numbers")
    except OSError as error:
        raise LoraInvalid(f"The file cannot be read ({type(error).__name__})") from error


def _has_nonfinite(view: mmap.mmap, span: tuple[int, int], dtype: str) -> bool:
    import numpy as np  # not loaded at server start

    width, mask = DTYPE_BYTES[dtype], _MASKS[dtype]
    begin, end = span
    for at in range(begin, end, _CHUNK_VALUES * width):
        # A copy, because a view would keep the map open.
        raw = view[at : min(end, at + _CHUNK_VALUES * width)]
        values = np.frombuffer(raw, dtype=f"<u{width}")
        if bool(((values & mask) == mask).any()):
            return True
    return False


def same_or_refuse(target: Path, sha256: str) -> None:
    """Accept a taken name if its content is the same.

    Raises:
        LoraExists: the content differs.
    """
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise LoraExists(f"A LoRA file {target.name} is already installed, with different content")


def discard_dangling(target: Path) -> None:
    """Remove a link whose target no longer exists."""
    if target.is_symlink() and not target.exists():
        target.unlink(missing_ok=True)


def remove_stale_parts(folder: Path) -> None:
    """Delete part files of uploads interrupted long ago."""
    for part in folder.glob(f"{_PART_PREFIX}*.part"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > _STALE_SECONDS:
                part.unlink()
