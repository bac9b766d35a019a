"""Clips of every kind: good ones, and what somebody with bad intentions makes of them."""

from __future__ import annotations

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np

SIDES = 128, 96


def clip(
    path: Path,
    *,
    codec: str = "libx264",
    frames: int = 9,
    sides: tuple[int, int] = SIDES,
    tags: dict[str, str] | None = None,
    any_tag: bool = True,
    form: str = "mp4",
    movflags: str = "",
    sound: bool = False,
    noise: bool = False,
    **options: str,
) -> Path:
    """Write a clip of a gradient that moves; `any_tag` keeps tags under any name, as ComfyUI and we do."""
    flags = "+".join(filter(None, ("use_metadata_tags" if any_tag else "", movflags)))
    picture = np.tile(np.linspace(0, 255, sides[0]).astype(np.uint8)[None, :, None], (sides[1], 1, 3))
    if noise:
        picture = np.random.default_rng(0).integers(0, 256, (sides[1], sides[0], 3), np.uint8)

    def write() -> None:
        with av.open(
            str(path), "w", format=form, options={"movflags": flags} if flags and form == "mp4" else {}
        ) as file:
            stream = file.add_stream(codec, rate=16, options=options)
            stream.width, stream.height, stream.pix_fmt = *sides, "yuv420p"
            heard = file.add_stream("aac", rate=44100) if sound else None
            file.metadata.update(tags or {})
            for number in range(frames):
                frame = av.VideoFrame.from_ndarray(np.roll(picture, number, 1), format="rgb24")
                file.mux(stream.encode(frame.reformat(format="yuv420p")))
            file.mux(stream.encode(None))
            if heard is not None:
                silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
                silence.sample_rate = 44100
                file.mux(heard.encode(silence))
                file.mux(heard.encode(None))

    # In a thread of its own: for root, the encoder of AV1 makes the thread that calls it a real-time one.
    with ThreadPoolExecutor(1) as apart:
        apart.submit(write).result()
    return path


def own_record(request: dict[str, Any], **changes: Any) -> str:
    """Return the text of a record as this server writes it."""
    record = {
        "format": 1,
        "product": "wan22",
        "version": "1.0",
        "task_id": "00000000-0000-4000-8000-000000000001",
        "request": request,
        "model": {"id": request.get("model")},
        "libraries": {},
        "device": "cpu",
        "result": {"frames": 9, "seconds": {"denoise_high": 1.5}, "warnings": ["dark"]},
    }
    return json.dumps(record | changes)


def replaced(path: Path, old: bytes, new: bytes, count: int = -1) -> Path:
    """Replace bytes in a file by as many others."""
    raw = path.read_bytes()
    assert old in raw
    assert len(old) == len(new)
    path.write_bytes(raw.replace(old, new, count))
    return path


def with_sides(path: Path, width: int, height: int) -> Path:
    """Write other sides into the description of the pictures."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"avc1", raw.index(b"stsd")) + 4 + 24
    raw[at : at + 4] = struct.pack(">HH", width, height)
    path.write_bytes(raw)
    return path


def with_parameters_of(path: Path, width: int, height: int) -> Path:
    """Write a sequence parameter set of H.264 that claims other sides than the file does."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"avcC") + 4 + 6
    (length,) = struct.unpack_from(">H", raw, at)
    made = _parameters(width, height)
    assert len(made) <= length
    raw[at + 2 : at + 2 + length] = made.ljust(length, b"\0")
    path.write_bytes(raw)
    return path


def _parameters(width: int, height: int) -> bytes:
    """Return a baseline sequence parameter set (ITU-T H.264, 7.3.2.1.1)."""
    numbers = [0, 0, 2, 1, None, width // 16 - 1, height // 16 - 1]  # None: one bit, 0
    bits = "".join("0" if one is None else _coded(one) for one in numbers) + "110" + "01"
    bits += "0" * (-len(bits) % 8)
    return bytes([0x67, 66, 0, 62]) + int(bits, 2).to_bytes(len(bits) // 8, "big")


def _coded(number: int) -> str:
    binary = bin(number + 1)[2:]
    return "0" * (len(binary) - 1) + binary


def box(name: str, content: bytes) -> bytes:
    """Return a box of an MP4 file."""
    return struct.pack(">I4s", 8 + len(content), name.encode("latin-1")) + content


def with_box(path: Path, inside: str, added: bytes) -> Path:
    """Add a box at the end of the first box of a name, in a file whose index comes last."""
    raw = path.read_bytes()
    at = raw.index(inside.encode()) - 4
    end = at + struct.unpack_from(">I", raw, at)[0]
    path.write_bytes(_longer(raw, at, len(added))[:end] + added + raw[end:])
    return path


def _longer(raw: bytes, at: int, by: int) -> bytes:
    """Make the box at a place, and those around it, longer."""
    changed = bytearray(raw)
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        outer = raw.find(name) - 4
        if outer < 0:
            continue
        (length,) = struct.unpack_from(">I", raw, outer)
        if outer <= at < outer + length:
            struct.pack_into(">I", changed, outer, length + by)
    (own,) = struct.unpack_from(">I", raw, at)
    struct.pack_into(">I", changed, at, own + by)
    return bytes(changed)
