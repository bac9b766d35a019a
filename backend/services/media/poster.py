"""The still picture of a video: a small JPEG, with the request that made the clip as its comment."""

from __future__ import annotations

import io
import json
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from backend.core.record import RunRecord

#: Long side of a still picture, in pixels.
SIDE: Final = 512
_QUALITY: Final = 88
#: Most bytes of a comment; a segment of a JPEG has 65,533.
_MOST_BYTES: Final = 60_000


def thumbnail(frame: npt.NDArray[np.uint8], record: RunRecord | None = None) -> bytes:
    """Encode one RGB frame [H, W, 3] as a JPEG of at most 512 pixels on its long side.

    The part of the record that says what was asked for goes with it, so that the picture alone gives the settings back.
    """
    image = Image.fromarray(frame)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    comment = b"" if record is None else json.dumps(record.brief()).encode()
    options: dict[str, Any] = {"comment": comment} if 0 < len(comment) <= _MOST_BYTES else {}
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, **options)
    return buffer.getvalue()
