"""Reads the chunks of a PNG that decide its pixels, and drops the rest before the decoder sees them.

Text, times and damaged notes never decide whether a picture can be read. Knows nothing about pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2  #: colour types whose transparency is one colour

#: Ancillary chunks that the decoder gets: the alpha of a palette, and the orientation.
_DECODED = (b"tRNS", b"eXIf")
#: Text chunks in which programs store the orientation.
_ORIENTATION_TEXTS = (b"Raw profile type exif", b"XML:com.adobe.xmp")
#: Largest colour profile and largest text with an orientation, in bytes after decompression.
_MAX_PROFILE = 16 * 1024**2
_MAX_TEXT = 512 * 1024
_END = b"\0\0\0\0IEND\xaeB`\x82"
_HEADER = struct.Struct(">IIBB")


@dataclass(frozen=True, slots=True)
class PngFile:
    """A PNG without the chunks that do not concern its pixels, and what it declares about them."""

    data: bytes  #: a PNG with the same pixels; the transparent colour of grey and RGB pictures is taken out
    depth: int  #: bits per channel
    colour_type: int
    transparent: tuple[int, ...] | None  #: the colour that is transparent, at the depth of the file
    frames: int  #: frames of an animation; 0 for a still picture
    still_apart: bool  #: whether the picture is not a frame of its animation
    profile: bytes | None  #: ICC profile
    profile_damaged: bool
    cicp: tuple[int, int] | None  #: primaries and transfer function, numbered as in ITU-T H.273
    srgb: bool  #: declared as sRGB
    gamma: float | None
    chromaticities: tuple[float, ...] | None  #: x and y of white, red, green and blue


def read_png(raw: bytes) -> PngFile | None:
    """Read the chunks; None if the header is not that of a PNG."""
    kept: list[bytes] = [SIGNATURE]
    found: dict[bytes, bytes] = {}
    for kind, body, whole in _chunks(raw):
        if kind == b"fcTL" and b"IDAT" not in found:
            found[b"frame"] = b""  # the picture is also the first frame
        first = kind not in found
        if first:
            found[kind] = b"" if kind == b"IDAT" else body
        if kind == b"tRNS" and found.get(b"IHDR", b"")[9:10] in (bytes([GREY]), bytes([RGB])):
            continue
        # Letter case in the name: capital for chunks that a decoder must know.
        if kind[:1].isupper() or (kind in _DECODED and first) or _tells_orientation(kind, body):
            kept.append(whole)
    if b"IEND" not in found and int.from_bytes(kept[-1][:4]) + 12 == len(kept[-1]):
        kept.append(_END)  # cut off, but not within a chunk of pixels
    header = found.get(b"IHDR", b"")
    if len(header) < 13:
        return None
    depth, colour_type = _HEADER.unpack_from(header)[2:]
    profile, animation = _profile(found.get(b"iCCP")), found.get(b"acTL", b"")
    cicp, gamma, chromaticities = found.get(b"cICP", b""), found.get(b"gAMA", b""), found.get(b"cHRM", b"")
    return PngFile(
        b"".join(kept),
        depth,
        colour_type,
        _transparent(found.get(b"tRNS", b""), depth, colour_type),
        frames=int.from_bytes(animation[:4]) if len(animation) >= 8 else 0,
        still_apart=b"frame" not in found,
        profile=profile,
        profile_damaged=profile is None and b"iCCP" in found,
        cicp=(cicp[0], cicp[1]) if len(cicp) >= 4 else None,
        srgb=b"sRGB" in found,
        gamma=int.from_bytes(gamma[:4]) / 1e5 if len(gamma) >= 4 else None,
        chromaticities=tuple(one / 1e5 for one in struct.unpack_from(">8I", chromaticities))
        if len(chromaticities) >= 32
        else None,
    )


def _chunks(raw: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield the name, the content and the whole of each chunk; of chunks that are cut off, only pixels."""
    at = len(SIGNATURE)
    while at + 8 <= len(raw):
        length = int.from_bytes(raw[at : at + 4])
        kind = raw[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(raw) and kind != b"IDAT":
            return
        yield kind, raw[at + 8 : end - 4], raw[at:end]
        if kind == b"IEND":
            return
        at = end


def _transparent(body: bytes, depth: int, colour_type: int) -> tuple[int, ...] | None:
    channels = {GREY: 1, RGB: 3}.get(colour_type, 0)
    if not channels or len(body) < 2 * channels:
        return None
    return tuple(one & (2**depth - 1) for one in struct.unpack_from(f">{channels}H", body))


def _profile(body: bytes | None) -> bytes | None:
    """Decompress the content of iCCP: a name, a zero, the method, the compressed profile."""
    return None if body is None else _decompress(body.partition(b"\0")[2][1:], _MAX_PROFILE)


def _tells_orientation(kind: bytes, body: bytes) -> bool:
    if kind not in (b"tEXt", b"zTXt", b"iTXt"):
        return False
    name, _, text = body.partition(b"\0")
    if name not in _ORIENTATION_TEXTS or len(body) > _MAX_TEXT:
        return False
    if kind == b"zTXt":
        return text[:1] == b"\0" and _decompress(text[1:], _MAX_TEXT) is not None
    if kind == b"iTXt" and text[:1] != b"\0":
        return _decompress(text[2:].split(b"\0", 2)[-1], _MAX_TEXT) is not None
    return True


def _decompress(data: bytes, limit: int) -> bytes | None:
    """Decompress zlib data; None if it is damaged or larger than the limit."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, limit)
    except zlib.error:
        return None
    return content if stream.eof else None
