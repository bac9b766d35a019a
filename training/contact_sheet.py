"""A picture of what the model makes: one row of frames per caption, with the caption above it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.observation import Frames
from training.world import Scene

PLACE = Path(__file__).parent.parent / "docs" / "images" / "tiny-t2v-a14b.png"
#: The frames shown of each clip, and how many captions, in two columns.
SHOWN_FRAMES = (0, 4, 8, 12, 16)
ROWS, COLUMNS = 6, 2
_CAPTION_HEIGHT, _GAP = 20, 12
_PAPER, _INK = (250, 250, 250), (30, 30, 34)


def draw(scenes: Sequence[Scene], clips: Sequence[Frames], place: Path) -> None:
    """Draw the first twelve clips, unselected, and save the picture."""
    shown = list(zip(scenes, clips, strict=True))[: ROWS * COLUMNS]
    size = clips[0].shape[1]
    width = len(SHOWN_FRAMES) * size + _GAP
    height = size + _CAPTION_HEIGHT + _GAP
    sheet = Image.new("RGB", (COLUMNS * width + _GAP, ROWS * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for index, (scene, clip) in enumerate(shown):
        left = _GAP + (index % COLUMNS) * width
        top = _GAP + (index // COLUMNS) * height
        pen.text((left, top), scene.caption, fill=_INK, font=font)
        row = np.concatenate([clip[frame] for frame in SHOWN_FRAMES], axis=1)
        sheet.paste(Image.fromarray(row), (left, top + _CAPTION_HEIGHT))
    place.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(place, optimize=True)
