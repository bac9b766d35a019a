"""Copies of a finished clip for other purposes: enlarged, as a looping GIF, as a few small stills.

Reads frames from the file and writes beside it; knows neither tasks nor terminals. An enlarged copy keeps the record,
with the enlargement added.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import av
import numpy as np
from PIL import Image

from backend.core.errors.lookups import OutputFileMissing
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import BadSettings
from backend.core.files import replacing, storage_errors
from backend.services.media.video_encoder import Pixels, VideoEncoder, open_video, read_frames, read_metadata

#: Longest side of an enlarged picture in pixels; H.264 level 5.2, which browsers decode, allows 4096.
MAX_SIDE = 4096
#: Method of the enlargement, as the record names it.
METHOD = "lanczos"
#: Shortest and longest time of a frame in a GIF, in milliseconds; browsers slow down below 20.
_GIF_MS = (20, 1000)


def check_factor(factor: int, width: int, height: int) -> None:
    """Check an enlargement.

    Raises:
        InvalidRequest: the picture would be too large.
    """
    if factor * max(width, height) > MAX_SIDE:
        fitting = max(1, MAX_SIDE // max(width, height))
        raise InvalidRequest(
            f"{width}x{height} enlarged {factor} times is larger than {MAX_SIDE} pixels",
            suggestions=(f"Use --upscale {fitting}." if fitting > 1 else "Leave --upscale out.",),
        )


def enlarge(path: Path, factor: int) -> tuple[int, int]:
    """Replace a clip by one with `factor` times its width and height; return the new size.

    The record inside it stays, with `enlarged` added: the frames that it describes are those before the enlargement.

    Raises:
        InvalidRequest: the picture would be too large.
        OutputFileMissing: the file is no video.
        EncodingFailed, StorageFull: it could not be written; the clip is as it was.
    """
    frames = read_frames(path)
    first = next(frames)
    height, width = first.shape[0] * factor, first.shape[1] * factor
    check_factor(factor, first.shape[1], first.shape[0])
    record = (read_metadata(path) or {}) | {"enlarged": {"factor": factor, "method": METHOD}}
    rate = frame_rate(path)
    with replacing(path, durable=False) as part, VideoEncoder(part, width, height, rate, record) as encoder:
        for frame in chain((first,), frames):
            encoder.write(np.asarray(_resized(frame, width, height))[None])
        encoder.finish()
    return width, height


def save_gif(path: Path, target: Path) -> Path:
    """Write a clip as a GIF that loops for ever, and return its path.

    Raises:
        OutputFileMissing: the file is no video.
        BadSettings: the GIF cannot be written.
        StorageFull: the disk is full.
    """
    first, *others = (Image.fromarray(frame) for frame in read_frames(path))
    milliseconds = min(max(round(1000 / frame_rate(path)), _GIF_MS[0]), _GIF_MS[1])
    try:
        with storage_errors(), replacing(target, durable=False) as part:
            first.save(part, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    except OSError as error:
        raise BadSettings(f"{target} cannot be written: {error.strerror}") from error
    return target


def stills(path: Path, count: int, height: int) -> list[Pixels]:
    """Return frames spread over a clip, the first and the last among them, scaled to a height in pixels.

    Raises:
        OutputFileMissing: the file is no video.
    """
    frames = list(read_frames(path))
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int)
    width = max(1, round(height * frames[0].shape[1] / frames[0].shape[0]))
    return [np.asarray(_resized(frames[index], width, height)) for index in chosen]


def frame_rate(path: Path) -> float:
    """Return the frames per second of a file, 16 where it does not say.

    Raises:
        OutputFileMissing: the file is no video.
    """
    try:
        with open_video(path) as container:
            rate = container.streams.video[0].average_rate
    except (av.FFmpegError, OSError, IndexError) as error:
        raise OutputFileMissing(f"The video {path.name} cannot be read") from error
    return float(rate) if rate else 16.0


def _resized(frame: Pixels, width: int, height: int) -> Image.Image:
    return Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
