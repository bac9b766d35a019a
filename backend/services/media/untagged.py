"""A copy of a clip that says nothing about how it was made: the same packets, packed again without any tag."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import av

from backend.core.errors.lookups import OutputFileMissing
from backend.core.files import storage_errors
from backend.services.media.video_encoder import open_video, source_of

_CHUNK_BYTES: Final = 256 * 1024
#: `bitexact` leaves out the note about the program that packed it.
_OPTIONS: Final = {"movflags": "+faststart", "fflags": "+bitexact"}


def untagged(path: Path) -> tuple[int, Iterator[bytes]]:
    """Return the size of the copy in bytes, and its content; the copy is gone once it has been read.

    Raises:
        OutputFileMissing: the file is no video.
        StorageFull: there is no room for the copy.
    """
    with storage_errors():
        handle, name = tempfile.mkstemp(prefix="wan22-", suffix=".mp4")
    os.close(handle)
    copy = Path(name)
    try:
        _pack(path, copy)
        return copy.stat().st_size, _read(copy)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise


def _pack(path: Path, copy: Path) -> None:
    try:
        with (
            open_video(path) as source,
            av.open(source_of(copy), "w", format="mp4", options=_OPTIONS) as target,
        ):
            streams = {one.index: target.add_stream_from_template(one) for one in source.streams.video}
            for stream in streams.values():
                stream.metadata.clear()
            for packet in source.demux(*source.streams.video):
                if packet.dts is not None:
                    packet.stream = streams[packet.stream_index]
                    target.mux(packet)
    except (av.FFmpegError, ValueError, IndexError) as error:
        raise OutputFileMissing(f"The video {path.name} cannot be read") from error


def _read(copy: Path) -> Iterator[bytes]:
    try:
        with copy.open("rb") as file:
            with suppress(PermissionError):  # Windows keeps an open file; it goes at the end
                copy.unlink()
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    finally:
        copy.unlink(missing_ok=True)
