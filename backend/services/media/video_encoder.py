"""Frames to an H.264 MP4 that any browser plays, with its whole history inside.

Encoding runs in a thread of its own, so that it overlaps with decoding latents. Equal frames and metadata give
equal bytes. Writes the file it is told to write and gives it no final name; knows nothing about tasks.

Frames out of a finished video file.

Reads what `VideoEncoder` wrote, or any other video that FFmpeg knows; writes nothing.
"""

from __future__ import annotations

import io
import json
import os
import queue
import threading
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, Interpolation
from PIL import Image

from backend.core.errors import EncodingFailed, OutputFileMissing, StorageFull, WanError
from backend.core.faults import fault_point
from backend.core.files import storage_errors
from backend.core.requests import DEFAULT_CRF

METADATA_KEY = "wan22"
#: What makes the bytes of a file depend on its frames alone:
#: The macroblock tree is off, because x264's AVX-512 code for it (`mbtree_propagate_list`) takes eight blocks at a
#: time and does not stop at the end of a row: where the width is no multiple of 128, it reads memory that nobody
#: wrote, and now and then the picture changes with it. Price at 832x480: a quarter more bytes, the same time.
#: The number of threads is fixed, because x264 decides differently with another number; by itself it takes one and a
#: half for each core.
_X264 = {"preset": "medium", "mbtree": "0", "threads": "4"}
#: One frame is scaled in one thread: more gave the same pixels and took longer at 832x480.
_SCALING_THREADS = 1
#: Chunks of frames that may wait; more would only hold memory.
_WAITING_CHUNKS = 2
_POLL_SECONDS = 0.1
_THUMBNAIL_SIDE = 512
_THUMBNAIL_QUALITY = 88
#: Exact rounding and all chroma samples: saturated colours come back within three levels.
_SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP

Frames = npt.NDArray[np.uint8]
Pixels = npt.NDArray[np.uint8]


class VideoEncoder:
    """Writes one MP4: H.264, yuv420p, BT.709 in TV range, index in front, metadata as JSON under `wan22`.

    A context manager. `write` takes frames, `finish` ends the file and returns when it is on disk; leaving
    the block without `finish` gives the file up, and whoever named it removes it.
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
            width: of the frames, in pixels.
            height: of the frames, in pixels.
            fps: frames per second.
            metadata: may also be given to `finish`, when more is known.
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
        """Queue frames, uint8 RGB [n, height, width, 3]; waits while the encoder is behind.

        Raises:
            EncodingFailed: the encoder gave up, or the frames have another shape.
            StorageFull: the disk is full.
        """
        if frames.dtype != np.uint8 or frames.shape[1:] != (self._height, self._width, 3):
            raise EncodingFailed(f"Frames of shape {frames.shape} do not fit a {self._width}x{self._height} video")
        self._put(frames)

    def finish(self, metadata: dict[str, Any] | None = None) -> None:
        """Encode what waits, write the file and flush it to disk. Raises like `write`."""
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
        with av.open(str(self._path), "w", format="mp4", options=options) as container:
            stream = container.add_stream("libx264", rate=self._rate, options=_X264 | {"crf": str(self._crf)})
            stream.width, stream.height = self._width + self._width % 2, self._height + self._height % 2
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.colorspace = Colorspace.ITU709
            context.color_range = ColorRange.MPEG
            context.color_primaries = ColorPrimaries.BT709
            context.color_trc = ColorTrc.BT709
            # Packets are kept (they are small) until the end: the header that carries the metadata is written
            # before the first of them, and the metadata tells how the run went.
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
        """Turn one RGB frame into a yuv420p picture with the time of its turn."""
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


def read_metadata(path: Path) -> dict[str, Any] | None:
    """Return the JSON record inside a video, or None when the file is no video of ours."""
    try:
        with av.open(str(path)) as container:
            record = json.loads(container.metadata.get(METADATA_KEY, "null"))
    except (av.FFmpegError, OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def thumbnail(frame: Frames) -> bytes:
    """Turn one RGB frame [H, W, 3] into a JPEG of at most 512 pixels on its long side."""
    image = Image.fromarray(frame)
    image.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_THUMBNAIL_QUALITY)
    return buffer.getvalue()


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
