"""Frames of a video as one picture, for players that show where in a clip the pointer is.

Made when it is first asked for, and kept beside the video like its thumbnail.
"""

from __future__ import annotations

import io
import math
import threading
from pathlib import Path
from typing import Final

from backend.core.files import storage_errors, write_bytes

#: Tiles in a row.
COLUMNS: Final = 5
#: Most frames in one picture: five rows. A clip with fewer frames has a tile for each of them.
MAX_TILES: Final = 25
#: Long side of a tile, in pixels.
TILE_SIDE: Final = 192
_QUALITY: Final = 85
#: One at a time: decoding a clip takes all the cores that it can get.
_AT_WORK: Final = threading.Lock()


def spritesheet(video: Path, frames: int, kept: Path) -> Path:
    """Return the path of the picture, and make it where it is missing or older than the video.

    The tiles are evenly spaced from the first frame to the last, in rows from the top left. The time it takes is that
    of decoding the video once.

    Args:
        video: the file.
        frames: how many frames it has.
        kept: where the picture is kept.

    Raises:
        OutputFileMissing: the file is gone or not a video.
        StorageFull: the disk is full.
    """
    with _AT_WORK:
        if not kept.is_file() or kept.stat().st_mtime < video.stat().st_mtime:
            content = _drawn(video, max(1, frames))
            with storage_errors():
                write_bytes(kept, content)
    return kept


def chosen_frames(frames: int) -> list[int]:
    """Return the numbers of the frames that are shown, of a video with so many."""
    tiles = min(MAX_TILES, frames)
    return [round(tile * (frames - 1) / max(1, tiles - 1)) for tile in range(tiles)]


def _drawn(video: Path, frames: int) -> bytes:
    from PIL import Image  # with the codecs, loaded only when needed

    from backend.services.media.video_encoder import read_frames

    wanted = chosen_frames(frames)
    sheet = None
    for number, pixels in enumerate(read_frames(video)):
        if number not in wanted:
            continue
        tile = Image.fromarray(pixels)
        tile.thumbnail((TILE_SIDE, TILE_SIDE), Image.Resampling.LANCZOS)
        if sheet is None:
            columns = min(COLUMNS, len(wanted))
            sheet = Image.new("RGB", (columns * tile.width, math.ceil(len(wanted) / columns) * tile.height))
        row, column = divmod(wanted.index(number), min(COLUMNS, len(wanted)))
        sheet.paste(tile, (column * tile.width, row * tile.height))
    buffer = io.BytesIO()
    (sheet or Image.new("RGB", (TILE_SIDE, TILE_SIDE))).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
