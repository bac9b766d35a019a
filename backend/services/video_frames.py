"""Frames out of a finished video file.

Reads what `VideoEncoder` wrote, or any other video that FFmpeg knows; writes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from backend.core.errors import OutputFileMissing

Pixels = npt.NDArray[np.uint8]


def read_frames(path: Path) -> Iterator[Pixels]:
    """Yield the pictures of a video in their order, uint8 RGB [height, width, 3].

    Raises:
        OutputFileMissing: the file is gone or no video.
    """
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError, IndexError) as error:
        raise OutputFileMissing(f"The video {path.name} cannot be read") from error


def last_frame(path: Path) -> Pixels:
    """Return the last picture of a video.

    Raises:
        OutputFileMissing: the file is gone, no video, or has no picture.
    """
    newest = deque(read_frames(path), maxlen=1)
    if not newest:
        raise OutputFileMissing(f"The video {path.name} has no frames")
    return newest[0]
