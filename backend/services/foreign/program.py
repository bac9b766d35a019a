"""Reads one foreign file and says what it is: `python -m backend.services.foreign.program clip|texts`.

A process of its own, confined before it looks at the first byte. The file comes as standard input, the answer goes to
standard output: one line of JSON, and behind it the raw pixels of a small picture. Decodes what the box reader let
through, and nothing else.
"""

from __future__ import annotations

import codecs
import importlib
import json
import os
import pkgutil
import sys
from typing import Any, BinaryIO, Final

from backend.services.foreign.confinement import confine, end
from backend.services.foreign.mp4_boxes import MAX_SIDE, Refused, Texts, Track, read_clip
from backend.services.foreign.picture_texts import JPEG_START, PNG_START, read_jpeg, read_png

#: What is wanted: the texts alone, or also that every frame can be decoded.
TEXTS, CLIP = "texts", "clip"
#: Long side of the picture in the answer, in pixels.
PICTURE_SIDE: Final = 512
DEMUXER: Final = "mp4"
_DECODERS: Final = "h264,hevc,libdav1d,av1,vp9"


def answer_about(file: BinaryIO, wish: str) -> tuple[dict[str, Any], bytes]:
    """Return what is to be said about a file, and the pixels of its middle frame, RGB.

    Raises:
        Refused: it is not read.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    start = file.read(12)
    if start.startswith((PNG_START, JPEG_START)):
        if wish == CLIP:
            raise Refused("A picture cannot be put into the gallery; its settings can be read")
        texts = (read_png if start.startswith(PNG_START) else read_jpeg)(file, size)
        return {"kind": "picture"} | _described(texts), b""
    if start[4:8] != b"ftyp":
        raise Refused("Only MP4 clips, and PNG or JPEG pictures, are read; this file is something else")
    track, texts = read_clip(file, size)
    about = {"kind": "clip", "codec": track.codec, "frames": track.frames, "fps": track.fps}
    about |= {"width": track.width, "height": track.height} | _described(texts)
    if wish != CLIP:
        return about, b""
    width, height, pixels = _decoded(file, track)
    return about | {"picture": [width, height]}, pixels


def _described(texts: Texts) -> dict[str, Any]:
    return {"texts": texts.values, "notes": texts.notes[:16], "manifest": texts.manifest}


def _decoded(file: BinaryIO, track: Track) -> tuple[int, int, bytes]:
    """Decode every frame; return the middle one, reduced.

    Raises:
        Refused: a frame cannot be decoded, or there are others than the header says.
    """
    import av

    file.seek(0)
    options = {
        "protocol_whitelist": "none",  # the file is read by this process; nothing else is opened
        "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2",
        "codec_whitelist": _DECODERS,
        "enable_drefs": "0",
        "ignore_editlist": "1",
        "max_pixels": str(MAX_SIDE * MAX_SIDE),
        "threads": "1",
    }
    count, middle = 0, None
    try:
        with av.open(file, "r", format=DEMUXER, options=options, metadata_errors="replace") as container:
            (stream,) = container.streams.video
            stream.codec_context.options = {"max_pixels": options["max_pixels"]}
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = "NONE"
            for frame in container.decode(stream):
                if (frame.width, frame.height) != (track.width, track.height):
                    raise Refused("The frames have another size than the index says")
                if count == track.frames // 2:
                    middle = _reduced(frame)
                count += 1
                if count > track.frames:
                    break
    except (av.FFmpegError, ValueError, OSError, IndexError) as error:
        raise Refused(f"Frame {count + 1} of {track.frames} cannot be decoded") from error
    if count != track.frames or middle is None:
        raise Refused(f"The file was cut off: {track.frames} frames were to be decoded, and {count} were")
    return middle


def _reduced(frame: Any) -> tuple[int, int, bytes]:
    scale = min(1.0, PICTURE_SIDE / max(frame.width, frame.height))
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    small = frame.reformat(width=width, height=height, format="rgb24", threads=1)  # no thread can be started here
    return width, height, small.to_ndarray().tobytes()


def _load(wish: str) -> None:
    """Load whatever is loaded only when it is needed, while files can still be opened."""
    for encoding in ("latin-1", "utf-16-le", "utf-16-be"):
        codecs.lookup(encoding)
    if wish == CLIP:
        import av
        import numpy  # noqa: F401 - PyAV loads it with the first picture

        for module in pkgutil.walk_packages(av.__path__, "av."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


def main(wish: str, memory_bytes: int, cpu_seconds: int) -> None:
    """Confine this process, read standard input, answer, end."""
    _load(wish)
    about: dict[str, Any]
    confined = confine(memory_bytes, cpu_seconds)
    pixels = b""
    try:
        about, pixels = answer_about(sys.stdin.buffer, wish)
    except Refused as refusal:
        about = {"refused": str(refusal)}
    except MemoryError:
        about = {"refused": "Reading the file takes too much memory"}
    about["confined"] = confined
    try:
        out = memoryview(json.dumps(about).encode() + b"\n" + pixels)
        while out:
            out = out[os.write(1, out) :]
    except MemoryError:
        end(3)
    end(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
