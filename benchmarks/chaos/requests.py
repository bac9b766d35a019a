"""The requests of a campaign: small clips in every mode, drawn from a seed; equal seeds give equal requests.

Knows the API's fields; knows neither servers nor kills.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image

#: Words of the tiny models' vocabulary.
_COLOURS: Final = ("red", "green", "blue", "yellow")
_SHAPES: Final = ("circle", "square", "triangle")
_MOTIONS: Final = ("moving left", "moving right", "spinning", "growing")
_GROUNDS: Final = ("navy", "teal", "black", "gray")
#: What one clip costs: a second or two on one core.
_SIZES: Final = ("64x64", "96x64", "64x96")
_FRAMES: Final = (5, 9)
_STEPS: Final = (8, 12, 16, 20)


@dataclass(frozen=True, slots=True)
class ClipRequest:
    """One clip to be made."""

    mode: str  #: in words, for the table
    fields: dict[str, Any]
    image: bytes | None = None  #: a PNG to start from
    end_image: bytes | None = None  #: a PNG to end with
    uploads_first: bool = False  #: whether the image is stored first and then named by its id
    extends: int | None = None  #: number of the request whose clip this one continues


#: The modes, in the order in which they take turns; the first six cover every kind of input.
MODES: Final = (
    "t2v",
    "i2v",
    "ti2v",
    "ti2v, image",
    "t2v, LoRA",
    "extension",
    "t2v, preset",
    "i2v, end image",
)


def draw_requests(count: int, seed: int) -> list[ClipRequest]:
    """Return this many requests, the modes in turn; an extension continues an earlier clip of its own draw."""
    chance = random.Random(f"requests {seed}")  # noqa: S311 - reproducible, not secret
    return [_draw(MODES[number % len(MODES)], number, chance) for number in range(count)]


def _draw(mode: str, number: int, chance: random.Random) -> ClipRequest:
    prompt = f"a {chance.choice(_COLOURS)} {chance.choice(_SHAPES)} {chance.choice(_MOTIONS)}"
    size = chance.choice(_SIZES)
    fields: dict[str, Any] = {
        "model_type": "tiny-t2v-a14b",
        "prompt": f"{prompt} on a {chance.choice(_GROUNDS)} background",
        "resolution": size,
        "num_frames": chance.choice(_FRAMES),
        "steps": chance.choice(_STEPS),
        "seed": chance.randrange(2**31),
    }
    first, last = _picture(chance, size), _picture(chance, size)
    if mode == "t2v, LoRA":
        one = {"id": chance.choice(("tiny_chalk", "tiny_drift")), "strength": chance.choice((0.5, 1.0))}
        return ClipRequest(mode, fields | {"loras": [one]})
    if mode == "t2v, preset":
        del fields["steps"]  # the preset brings its own
        return ClipRequest(mode, fields | {"preset": "tiny_lightning"})
    if mode == "i2v":
        return ClipRequest(mode, fields | {"model_type": "tiny-i2v-a14b"}, image=first)
    if mode == "i2v, end image":
        return ClipRequest(mode, fields | {"model_type": "tiny-i2v-a14b"}, image=first, end_image=last)
    if mode.startswith("ti2v"):
        fields |= {"model_type": "tiny-ti2v-5b"}
        return ClipRequest(mode, fields, image=first if "image" in mode else None, uploads_first=True)
    if mode == "extension":
        del fields["resolution"], fields["prompt"]  # those of the earlier clip
        return ClipRequest(mode, fields | {"model_type": "tiny-i2v-a14b"}, extends=chance.randrange(number))
    return ClipRequest(mode, fields)


def _picture(chance: random.Random, size: str) -> bytes:
    """Return a PNG of two colours that run into each other."""
    width, height = map(int, size.split("x"))
    ends = np.array([[chance.randrange(256) for _ in range(3)] for _ in range(2)], dtype=np.float64)
    along = np.linspace(0.0, 1.0, width)[None, :, None]
    pixels = np.broadcast_to((1 - along) * ends[0] + along * ends[1], (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()
