"""A placeholder: a picture of a few colours in at most 25 bytes, to show in a list until the real one has come.

The format is ThumbHash, as its public description has it: the picture's lowest cosine frequencies, of lightness with
more of them than of the two colour axes, each in four bits. Web clients decode it with a known library of 1 kB.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Channel = NDArray[np.float64]

#: Most pixels of a side that are read; frequencies this low need no more.
_SIDE: Final = 100
#: Smaller amplitudes are what rounding leaves of none, in a picture of one colour.
_NOTHING: Final = 1e-9
#: Cosine frequencies along the longer side: of lightness, and of each colour axis.
_LIGHT, _COLOUR = 7, 3


def placeholder_of(picture: bytes | Path) -> bytes | None:
    """Return the placeholder of a JPEG that this server made; None for one that cannot be read."""
    try:
        with Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture, formats=("JPEG",)) as image:
            image.draft("RGB", (_SIDE, _SIDE))
            image.thumbnail((_SIDE, _SIDE))
            return encode_pixels(np.asarray(image.convert("RGB")))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def encode_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """Return the ThumbHash of an opaque picture, uint8 RGB [height, width, 3], with at most 100 pixels a side."""
    height, width, _ = pixels.shape
    red, green, blue = np.moveaxis(pixels.astype(np.float64) / 255.0, -1, 0)
    across, down = (max(1, _half_up(_LIGHT * side / max(width, height))) for side in (width, height))
    light = _frequencies((red + green + blue) / 3, max(3, across), max(3, down))
    yellow_blue = _frequencies((red + green) / 2 - blue, _COLOUR, _COLOUR)
    red_green = _frequencies(red - green, _COLOUR, _COLOUR)
    wide = width > height
    head = (
        _half_up(63 * light[0])
        | _half_up(31.5 + 31.5 * yellow_blue[0]) << 6
        | _half_up(31.5 + 31.5 * red_green[0]) << 12
        | _half_up(31 * light[1]) << 18
    )
    tail = (
        (down if wide else across)
        | _half_up(63 * yellow_blue[1]) << 3
        | _half_up(63 * red_green[1]) << 9
        | int(wide) << 15
    )
    steps = [_half_up(15 * value) for channel in (light, yellow_blue, red_green) for value in channel[2]]
    packed = [low | high << 4 for low, high in zip(steps[::2], [*steps[1::2], 0], strict=False)]
    return head.to_bytes(3, "little") + tail.to_bytes(2, "little") + bytes(packed)


def _frequencies(channel: Channel, across: int, down: int) -> tuple[float, float, list[float]]:
    """Return the mean of a channel, the largest amplitude, and all amplitudes relative to it, between 0 and 1."""
    height, width = channel.shape
    amplitudes = _waves(height, down) @ channel @ _waves(width, across).T / (width * height)
    kept = [
        float(amplitudes[y, x])
        for y in range(down)
        for x in range(across)
        if (x or y) and x * down < across * (down - y)
    ]
    scale = max(map(abs, kept), default=0.0)
    if scale < _NOTHING:
        return float(amplitudes[0, 0]), 0.0, [0.0] * len(kept)
    return float(amplitudes[0, 0]), scale, [0.5 + 0.5 * value / scale for value in kept]


def _waves(length: int, count: int) -> Any:
    places = (np.arange(length) + 0.5) * np.pi / length
    return np.cos(np.arange(count)[:, None] * places[None, :])


def _half_up(value: float) -> int:
    """Round as the description does; Python rounds halves to even numbers."""
    return int(np.floor(value + 0.5))
