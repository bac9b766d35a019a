"""The contact sheet of a model: one row of frames per case, with the caption above it.

An input image is first in its row and an end image last, each separated by a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.evaluation.cases import Case
from training.world.observation import Frames

#: Number of frames shown per clip, from the first to the last, and the grid of cases.
SHOWN_FRAMES = 5
ROWS, COLUMNS = 6, 2
_CAPTION_HEIGHT, _GAP, _SMALL_GAP = 20, 12, 6
_PAPER, _INK = (250, 250, 250), (30, 30, 34)


def draw(cases: Sequence[Case], clips: Sequence[Frames], path: Path) -> None:
    """Draw the first twelve clips, without selection, and save the image."""
    strips = [_strip(case, clip) for case, clip in zip(cases, clips, strict=True)][: ROWS * COLUMNS]
    size = clips[0].shape[1]
    width = strips[0].shape[1] + _GAP
    height = size + _CAPTION_HEIGHT + _GAP
    sheet = Image.new("RGB", (COLUMNS * width + _GAP, ROWS * height + _GAP), _PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for index, (case, strip) in enumerate(zip(cases, strips, strict=False)):
        left = _GAP + (index % COLUMNS) * width
        top = _GAP + (index // COLUMNS) * height
        pen.text((left, top), case.scene.caption, fill=_INK, font=font)
        sheet.paste(Image.fromarray(strip), (left, top + _CAPTION_HEIGHT))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def _strip(case: Case, clip: Frames) -> Frames:
    gap = np.empty((clip.shape[1], _SMALL_GAP, 3), dtype=np.uint8)
    gap[:] = _PAPER
    before = [] if case.image is None else [case.image, gap]
    after = [] if case.end_image is None else [gap, case.end_image]
    shown = np.linspace(0, len(clip) - 1, SHOWN_FRAMES).round().astype(int)
    strip: Frames = np.concatenate([*before, *clip[shown], *after], axis=1)
    return strip
