"""Encodes frames to an H.264 MP4 that any browser plays, with its full history embedded, and reads videos back.

Encoding runs in its own thread, to overlap with decoding latents; equal frames and metadata give equal bytes.
Writes to the given path without choosing a final name, and reads videos of the usual kinds; knows nothing about tasks.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation

from backend.core.errors.base import WanError
from backend.core.errors.generation import EncodingFailed
from backend.core.errors.lookups import OutputFileMissing
from backend.core.errors.surroundings import StorageFull
from backend.core.faults import fault_point
from backend.core.files import parse_json, storage_errors
from backend.core.requests.forms import DEFAULT_CRF

METADATA_KEY = "wan22"
#: Settings that make the bytes of a file depend on its frames alone.
#: Macroblock tree off: x264's AVX-512 code for it (`mbtree_propagate_list`) processes eight blocks at a time and
#: runs past the end of a row; unless the width is a multiple of 128, it reads uninitialised memory, which
#: occasionally changes the picture. Cost at 832x480: 25 % more bytes, the same time.
#: Thread count fixed: x264's decisions depend on it, and its default is 1.5 threads per core.
_X264 = {"preset": "medium", "mbtree": "0", "threads": "4"}
#: Threads that scale one frame: more gave the same pixels and took longer at 832x480.
_SCALING_THREADS = 1
#: Queue length in chunks of frames; more would only hold memory.
_WAITING_CHUNKS = 2
_POLL_SECONDS = 0.1
#: Exact rounding and all chroma samples: saturated colours survive within three levels.
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP

#: FFmpeg reads hundreds of formats, some with known faults; a file chooses none of them by its content.
_READING = {
    "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,gif",
    "codec_whitelist": "h264,hevc,libdav1d,av1,vp9,gif",
    "protocol_whitelist": "file",
    "enable_drefs": "0",
}

Frames = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.uint8]


class VideoEncoder:
    """Writes one MP4: H.264, yuv420p, BT.709 in TV range, index first, metadata as JSON under `wan22`.

    A context manager. `write` queues frames, `finish` completes the file and returns once it is on disk; leaving
    the block without `finish` abandons the file, and the caller removes it.
    """

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        fps: float,
        metadata: dict[str, Any] | None = None,
        *,
        crf: int = DEFAULT_CRF,
    ) -> None:
        """Prepare to write `path`.

        Args:
            path: the file.
            width: frame width in pixels.
            height: frame height in pixels.
            fps: frames per second.
            metadata: may be passed to `finish` instead, once complete.
            crf: x264's constant quality, from 1 (best) to 51; 17 is visually lossless for generated clips.
        """
        self._path = path
        self._crf = crf
        self._width, self._height = width, height
        self._rate = Fraction(fps).limit_denominator(1001)
        self._metadata = metadata or {}
        self._chunks: queue.Queue[Frames | None] = queue.Queue(_WAITING_CHUNKS)
        self._abandoned = threading.Event()
        self._failure: WanError | None = None
        self._written = False
        self._finished = False
        self._frames = 0
        self._thread = threading.Thread(target=self._run, name="video-encoder", daemon=True)

    def __enter__(self) -> VideoEncoder:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if not self._finished:
            self._abandoned.set()
            self._thread.join()

    def write(self, frames: Frames) -> None:
        """Queue frames, uint8 RGB [n, height, width, 3]; blocks while the encoder is behind.

        Raises:
            EncodingFailed: the encoder failed, or the frames have the wrong shape.
            StorageFull: the disk is full.
        """
        if frames.dtype != np.uint8 or frames.shape[1:] != (self._height, self._width, 3):
            raise EncodingFailed(f"Frames of shape {frames.shape} do not fit a {self._width}x{self._height} video")
        self._put(frames)

    def finish(self, metadata: dict[str, Any] | None = None) -> None:
        """Encode the queued frames, write the file and flush it to disk. Raises like `write`."""
        if metadata is not None:
            self._metadata = metadata
        self._put(None)
        self._thread.join()
        self._finished = True
        self._check()
        if not self._written:
            raise EncodingFailed("The encoder ended before the video did")

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _put(self, chunk: Frames | None) -> None:
        while self._thread.is_alive():
            try:
                self._chunks.put(chunk, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return
        self._check()
        raise EncodingFailed("The encoder is not running")

    def _run(self) -> None:
        try:
            with storage_errors():
                self._encode()
        except StorageFull as error:
            self._failure = error
        except (av.FFmpegError, OSError, ValueError, EncodingFailed) as error:
            self._failure = EncodingFailed(f"The video could not be encoded: {error}")
            self._failure.__cause__ = error

    def _encode(self) -> None:
        options = {"movflags": "+faststart+use_metadata_tags"}
        with av.open(source_of(self._path), "w", format="mp4", options=options) as container:
            stream = container.add_stream("libx264", rate=self._rate, options=_X264 | {"crf": str(self._crf)})
            stream.width, stream.height = self._width + self._width % 2, self._height + self._height % 2
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.colorspace = Colorspace.ITU709
            context.color_range = ColorRange.MPEG
            context.color_primaries = ColorPrimaries.BT709
            context.color_trc = ColorTrc.BT709
            # Packets are small and are kept until the end: the header with the metadata precedes the first of
            # them, and the metadata describes how the run went.
            packets = []
            while (chunk := self._next()) is not None:
                for frame in chunk:
                    packets += stream.encode(self._picture(frame))
            if self._abandoned.is_set():
                return
            if self._frames == 0:
                raise EncodingFailed("There are no frames")
            packets += stream.encode(None)
            container.metadata[METADATA_KEY] = json.dumps(self._metadata, ensure_ascii=False, allow_nan=False)
            container.mux(packets)
            fault_point("encode.part")
        self._flush(sum(packet.size for packet in packets))

    def _next(self) -> Frames | None:
        while not self._abandoned.is_set():
            try:
                return self._chunks.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
        return None

    def _picture(self, frame: Frames) -> Any:
        """Convert one RGB frame to a yuv420p picture with its timestamp."""
        # 4:2:0 needs even sides; repeat the last row or column rather than scale the whole picture.
        padded = np.pad(frame, ((0, self._height % 2), (0, self._width % 2), (0, 0)), mode="edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=_SCALING,
            threads=_SCALING_THREADS,
        )
        picture.pts = self._frames
        picture.time_base = 1 / self._rate
        self._frames += 1
        return picture

    def _flush(self, payload_bytes: int) -> None:
        with self._path.open("rb") as file:
            os.fsync(file.fileno())
        if self._path.stat().st_size < payload_bytes:
            raise EncodingFailed("The written file is shorter than the video in it")
        self._written = True


def open_video(path: Path) -> Any:
    """Open a video for reading; a context manager. Only the containers and codecs of clips are read, from files alone.

    Raises:
        av.FFmpegError, OSError, ValueError: it is none, or another.
    """
    return av.open(source_of(path), options=_READING, metadata_errors="replace")


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Return the JSON record inside a video, or None if it has none.

    Other containers change the case of a tag's name (Matroska writes capitals) or move it to a stream.
    """
    try:
        with open_video(path) as container:
            places = (container.metadata, *(stream.metadata for stream in container.streams))
            tags = [value for tags in places for name, value in tags.items() if name.lower() == METADATA_KEY]
    except (av.FFmpegError, OSError, ValueError):
        return None
    for tag in tags:
        with suppress(ValueError):
            record = parse_json(tag)
            if isinstance(record, dict):
                return record
    return None


def source_of(path: Path) -> str:
    """Return the path as FFmpeg takes it: absolute, because it reads `take:2.mp4` as a URL."""
    return str(path.absolute())


def read_frames(path: Path) -> Iterator[Pixels]:
    """Yield the frames of a video in order, uint8 RGB [height, width, 3].

    Raises:
        OutputFileMissing: the file is gone or not a video.
    """
    try:
        with open_video(path) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except (av.FFmpegError, OSError, IndexError) as error:
        raise OutputFileMissing(f"The video {path.name} cannot be read") from error


def last_frame(path: Path) -> Pixels:
    """Return the last frame of a video.

    Raises:
        OutputFileMissing: the file is gone, not a video, or has no frames.
    """
    newest = deque(read_frames(path), maxlen=1)
    if not newest:
        raise OutputFileMissing(f"The video {path.name} has no frames")
    return newest[0]
