"""Stores the input images of requests under the SHA-256 of their pixels.

Clients send files and get ids; no path or URL from a request is ever opened. Pillow and NumPy are loaded
with the first image, not at server start.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from backend.core.errors.lookups import InputMissing
from backend.core.errors.requests import InvalidImage
from backend.core.files import storage_errors, sync_folder, write_bytes
from backend.core.paths import Home
from backend.core.requests.forms import ImageRef
from backend.store.access.ownership import OwnedFiles

if TYPE_CHECKING:
    from backend.services.media.pictures import Pixels

MAX_IMAGE_BYTES = 10 * 1024**2
IMAGE_TOO_LARGE = "Image file too large. Maximum size is 10MB"
#: How long an unreferenced image is kept by default, in seconds: its request may be about to arrive.
SPARE_SECONDS = 3600.0

_ID = re.compile(r"[0-9a-f]{64}")
#: A PNG starts with an 8-byte signature, the length and name of the first chunk, then width and height.
_PNG_START = struct.Struct(">8s4s4sII")


class InputStore:
    """Stores images by content; duplicates are stored once, and belong to everybody who sent them."""

    def __init__(self, home: Home, spare_seconds: float = SPARE_SECONDS, owned: OwnedFiles | None = None) -> None:
        """`spare_seconds` is how long an image that no task uses is kept; without `owned` all belong to everybody."""
        self._home = home
        self._spare_seconds = spare_seconds
        self._owned = owned

    def store(self, raw: bytes, field: str = "image") -> ImageRef:
        """Validate an uploaded image file and store it, upright, opaque and in sRGB.

        Raises:
            InvalidImage: it is not a usable image, or the file is too large.
            StorageFull: the disk is full.
        """
        from backend.services.media.pictures import read_picture

        if len(raw) > MAX_IMAGE_BYTES:
            raise InvalidImage(IMAGE_TOO_LARGE, details={"field": field})
        picture = read_picture(raw, field)
        return replace(self.keep(picture.pixels), notes=picture.notes)

    def keep(self, pixels: Pixels) -> ImageRef:
        """Store a picture, uint8 RGB [height, width, 3].

        Raises:
            StorageFull: the disk is full.
        """
        from backend.services.media.pictures import name_of, to_png

        stored = ImageRef(name_of(pixels), width=pixels.shape[1], height=pixels.shape[0])
        if self._owned is not None:
            self._owned.take(stored.id)
        path = self._home.input_of(stored.id)
        if path.is_file():
            with storage_errors():
                path.touch()  # resets its age, so that `prune` keeps it
                sync_folder(path.parent)  # another upload may have renamed it a moment ago
            return stored
        with storage_errors():
            write_bytes(path, to_png(pixels))
        return stored

    def find(self, image_id: str) -> ImageRef:
        """Return the stored image with an id.

        Raises:
            InputMissing: the id is malformed or unknown.
        """
        path = self.path(image_id)
        with path.open("rb") as file:
            start = file.read(_PNG_START.size)
        if len(start) < _PNG_START.size:
            raise InputMissing
        path.touch()  # a request is about to reference it: `prune` must keep it
        width, height = _PNG_START.unpack(start)[3:]
        return ImageRef(image_id, width, height)

    def path(self, image_id: str) -> Path:
        """Return the path of a stored image.

        Raises:
            InputMissing: the id is malformed or unknown, or the image belongs to others.
        """
        if self._owned is not None and not self._owned.has(image_id[:64]):
            raise InputMissing
        if not _ID.fullmatch(image_id) or not (path := self._home.input_of(image_id)).is_file():
            raise InputMissing
        return path

    def load(self, image_id: str) -> Pixels:
        """Return an image as uint8 RGB [height, width, 3].

        Raises:
            InputMissing: it is unknown, damaged or was changed on disk.
        """
        from backend.services.media.pictures import name_of, read_picture

        try:
            pixels = read_picture(self.path(image_id).read_bytes(), "image").pixels
        except InvalidImage as error:
            raise InputMissing(f"The stored image {image_id[:12]} is damaged") from error
        if name_of(pixels) != image_id:
            raise InputMissing(f"The stored image {image_id[:12]} was changed on disk")
        return pixels

    def prune(self, in_use: Callable[[Set[str]], Set[str]]) -> int:
        """Delete images that are neither recent nor in use; return the number deleted.

        `in_use` returns which of the ids that it is given are used.
        """
        deadline = time.time() - self._spare_seconds
        old = [path for path in self._home.inputs.iterdir() if path.is_file() and path.stat().st_mtime < deadline]
        used = in_use({path.stem for path in old})
        spare = [path for path in old if path.stem not in used]
        for path in spare:
            path.unlink(missing_ok=True)
        if spare and self._owned is not None:
            self._owned.forget({path.stem for path in spare})
        return len(spare)
