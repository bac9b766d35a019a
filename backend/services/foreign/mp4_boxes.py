"""Reads what an MP4 file says of itself, without any decoder, and refuses what is not a plain clip.

The boxes of ISO 14496-12, each of a kind that is known to be harmless, in a file whose parts lie inside it. What this
module lets through is the only thing that a decoder ever sees. Knows neither pixels nor settings.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

#: Codecs of pictures that are decoded, by the four letters of their sample entry.
VIDEO_CODECS: Final = {"avc1": "h264", "avc3": "h264", "hvc1": "hevc", "hev1": "hevc", "av01": "av1", "vp09": "vp9"}
#: Codecs of sound that may be beside it; sound is never decoded.
SOUND_CODECS: Final = frozenset({"mp4a", "Opus", "fLaC", "ac-3", "ec-3", "alac", "sowt", "twos", "lpcm"})
MAX_SIDE: Final = 4096  #: pixels; the limit of H.264 level 5.2
MIN_SIDE: Final = 16  #: pixels
MAX_FRAMES: Final = 7200
MAX_PIXELS: Final = 20_000_000_000  #: of all frames: 7,200 frames of 1920x1080 are 15 thousand million
MAX_TRACKS: Final = 4
#: Bytes of the index of a file, which is read whole.
MAX_INDEX: Final = 16 * 2**20
#: Bytes of a text in a file; ComfyUI's graphs are a few hundred thousand.
MAX_TEXT: Final = 2**20
MAX_TEXTS: Final = 64
_ALL_TEXTS: Final = 4 * MAX_TEXT
_MAX_BOXES: Final = 4096
_MAX_DEPTH: Final = 12
_MAX_RATE: Final = 240.0

_WHOLE: Final = frozenset({"ftyp", "moov", "mdat", "free", "skip", "wide", "uuid", "udta", "meta", "pdin", "styp"})
#: The boxes that each box may have; the letters of others make the file be refused.
_INSIDE: Final = {
    "moov": frozenset({"mvhd", "trak", "udta", "meta", "iods", "free", "skip", "uuid"}),
    "trak": frozenset({"tkhd", "edts", "mdia", "udta", "meta", "tref", "tapt", "load", "free", "skip", "uuid"}),
    "mdia": frozenset({"mdhd", "hdlr", "minf", "elng", "udta", "free", "skip"}),
    "minf": frozenset({"vmhd", "smhd", "nmhd", "gmhd", "hdlr", "dinf", "stbl", "free", "skip"}),
    "dinf": frozenset({"dref"}),
    "stbl": frozenset(
        {
            *("stsd", "stts", "ctts", "cslg", "stss", "stps", "stsc", "stsz", "stz2", "stco", "co64"),
            *("sdtp", "sbgp", "sgpd", "stdp", "free", "skip"),
        }
    ),
}
#: What a sample entry of pictures may have behind its fixed part.
_IN_ENTRY: Final = frozenset(
    {
        *("avcC", "hvcC", "av1C", "vpcC", "colr", "pasp", "btrt", "clap", "fiel", "gama", "clli", "mdcv", "SmDm"),
        *("CoLL", "chrm", "free", "uuid", "amve", "cclv", "st3d", "sv3d"),
    }
)
_ENTRY_HEAD: Final = 78  # bytes of a sample entry of pictures before its own boxes
#: Marks a manifest of the origin of a file, by C2PA 2.1, 9.1.1.
_C2PA: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
#: Tags of other programs by the names that people know.
_KNOWN_TAGS: Final = {
    **{"©nam": "title", "©cmt": "comment", "©too": "encoder", "©des": "description", "desc": "description"},
    **{"©ART": "artist", "©day": "date", "©swr": "software", "©inf": "information", "ldes": "synopsis"},
}


class Refused(Exception):
    """The file is not read; the text is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Track:
    """The pictures of a clip, as its header describes them."""

    codec: str
    width: int  #: pixels
    height: int  #: pixels
    frames: int
    fps: float


@dataclass(slots=True)
class Texts:
    """The texts that a file carries, each by its name, and what is to be said about them."""

    values: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    manifest: bool = False  #: whether it has a C2PA manifest, which nobody verified

    def add(self, name: str, raw: bytes) -> None:
        """Keep a text, unless it is too long or there are too many."""
        if len(raw) > MAX_TEXT:
            self.notes.append(f"the text {plain(name)} was not read: it has {len(raw)} bytes")
        elif len(self.values) >= MAX_TEXTS or sum(map(len, self.values.values())) + len(raw) > _ALL_TEXTS:
            self.notes.append("there are more texts in the file than are read")
        elif name not in self.values:
            self.values[name] = raw.decode("utf-8", "replace").replace("\x00", "")


@dataclass(slots=True)
class _Found:
    entry: str | None = None
    kind: str | None = None
    size: tuple[int, int] = (0, 0)
    rate: tuple[int, int] = (0, 0)  #: units in a second, and units of all frames
    samples: int = 0
    timed: int = 0  #: samples with a time
    bytes: int = 0
    farthest: int = 0  #: the offset of the last chunk


_Reader = Callable[[bytes, _Found], None]


@dataclass(frozen=True, slots=True)
class _Box:
    name: str
    start: int  #: of its content
    end: int


def read_clip(file: BinaryIO, size: int) -> tuple[Track, Texts]:
    """Read the header of an MP4 file.

    Args:
        file: the file, which can seek.
        size: its length in bytes.

    Raises:
        Refused: it is no plain MP4 clip.
    """
    index, texts = None, Texts()
    for box in _outermost(file, size):
        if box.name == "moov":
            if index is not None:
                raise Refused("The file has two indexes")
            index = _content(file, box)
        elif box.name == "uuid" and _read(file, box.start, 16) == _C2PA:
            texts.manifest = True
    if index is None:
        raise Refused("The file has no index; it was cut off, or is not finished")
    tracks: list[_Found] = []
    for box in _boxes(index, 0, len(index), "moov"):
        if box.name == "trak":
            tracks.append(_track(index, box))
            if len(tracks) > MAX_TRACKS:
                raise Refused(f"The file has more than {MAX_TRACKS} tracks")
        elif box.name in ("udta", "meta"):
            _read_texts(index, box, texts)
    return _pictures(tracks, size), texts


def plain(text: str) -> str:
    """Return a text of a file as it can stand in a sentence: printable, and not long."""
    return "".join(one if one.isprintable() else "?" for one in text)[:80]


def _pictures(tracks: list[_Found], size: int) -> Track:
    """Check the tracks; return the only one with pictures."""
    shown = [one for one in tracks if one.kind == "vide"]
    if len(shown) != 1:
        raise Refused("A clip has one track of pictures; this file has " + ("none" if not shown else str(len(shown))))
    for one in tracks:
        if one.kind == "soun" and one.entry not in SOUND_CODECS:
            raise Refused(f"The sound has a codec that is not read: {plain(str(one.entry))}")
        if one.bytes > size or one.farthest >= size:
            raise Refused("The file was cut off: its index names parts that are not there")
    (track,) = shown
    if track.entry not in VIDEO_CODECS:
        raise Refused(f"The pictures have a codec that is not read: {plain(str(track.entry))}")
    width, height = track.size
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise Refused(f"A clip has {MIN_SIDE} to {MAX_SIDE} pixels a side; this one has {width}x{height}")
    if not track.samples:
        raise Refused("The clip has no frames")
    if track.samples > MAX_FRAMES or track.samples * width * height > MAX_PIXELS:
        raise Refused(f"The clip is too long: {track.samples} frames of {width}x{height}")
    units, length = track.rate
    if track.timed != track.samples or not units or not length:
        raise Refused("The index of the file contradicts itself")
    fps = track.samples * units / length
    if not 0.1 <= fps <= _MAX_RATE:
        raise Refused(f"The clip has {fps:g} frames per second")
    return Track(VIDEO_CODECS[track.entry], width, height, track.samples, round(fps, 3))


def _outermost(file: BinaryIO, size: int) -> Iterator[_Box]:
    """Yield the boxes of the file itself, by their headers alone."""
    at, count = 0, 0
    while at < size:
        count += 1
        head = _read(file, at, 16)
        box = _head(head, at, size)
        if count == 1 and box.name != "ftyp":
            raise Refused("Only MP4 clips are read, and this file is none")
        if box.name in ("moof", "sidx", "mfra"):
            raise Refused("The clip is in fragments; write it as a plain MP4 first")
        if box.name not in _WHOLE or count > _MAX_BOXES:
            raise Refused(f"The file has a part that is not read: {plain(box.name)}")
        yield box
        at = box.end


def _head(head: bytes, at: int, end: int) -> _Box:
    """Read the head of a box that begins at `at` and must end before `end`."""
    if len(head) < 8:
        raise Refused("The file was cut off")
    length, name = struct.unpack(">I4s", head[:8])
    start = at + 8
    if length == 1:
        if len(head) < 16:
            raise Refused("The file was cut off")
        (length,) = struct.unpack(">Q", head[8:16])
        start = at + 16
    elif length == 0:
        length = end - at
    if not start <= at + length <= end:
        raise Refused("The file was cut off: a part of it does not lie inside it")
    return _Box(name.decode("latin-1"), start, at + length)


def _content(file: BinaryIO, box: _Box) -> bytes:
    if box.end - box.start > MAX_INDEX:
        raise Refused(f"The index of the file has more than {MAX_INDEX // 2**20} MiB")
    return _read(file, box.start, box.end - box.start)


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)


def _boxes(raw: bytes, start: int, end: int, inside: str | None = None, depth: int = 0) -> Iterator[_Box]:
    """Yield the boxes between two places; those of a box of the table must be known."""
    at, count = start, 0
    while at < end:
        count += 1
        box = _head(raw[at : min(at + 16, end)], at, end)
        if count > _MAX_BOXES or depth > _MAX_DEPTH:
            raise Refused("The index of the file has too many parts")
        if inside is not None and box.name not in _INSIDE[inside]:
            what = (
                "is encrypted" if box.name in ("sinf", "pssh", "senc", "saiz", "saio") else "has a part not read here"
            )
            raise Refused(f"The clip {what}: {plain(box.name)}")
        yield box
        at = box.end


def _track(raw: bytes, trak: _Box) -> _Found:
    found = _Found()
    waiting = [trak]
    while waiting:
        outer = waiting.pop()
        for box in _boxes(raw, outer.start, outer.end, outer.name):
            if box.name in _INSIDE:
                waiting.append(box)
            elif box.name in _READERS:
                try:
                    _READERS[box.name](raw[box.start : box.end], found)
                except struct.error:
                    raise Refused("The index of the file contradicts itself") from None
    return found


def _media_header(raw: bytes, found: _Found) -> None:
    (scale,) = struct.unpack_from(">I", raw, 20 if raw[:1] == b"\x01" else 12)
    found.rate = scale, found.rate[1]


def _handler(raw: bytes, found: _Found) -> None:
    if found.kind is None:  # QuickTime has a second one, of the data
        found.kind = raw[8:12].decode("latin-1")


def _data_references(raw: bytes, _found: _Found) -> None:
    (count,) = struct.unpack_from(">I", raw, 4)
    for number, box in enumerate(_boxes(raw, 8, len(raw))):
        (flags,) = struct.unpack_from(">I", raw, box.start)
        if number >= count or not flags & 1:
            raise Refused("The clip refers to another file")


def _sample_entries(raw: bytes, found: _Found) -> None:
    entries = list(_boxes(raw, 8, len(raw)))
    if len(entries) != 1 or struct.unpack_from(">I", raw, 4) != (1,):
        raise Refused("A track has one kind of samples; this file has several in one")
    (entry,) = entries
    found.entry = entry.name
    if entry.name in ("encv", "enca", "drmi"):
        raise Refused("The clip is encrypted")
    if entry.name in VIDEO_CODECS:
        found.size = struct.unpack_from(">HH", raw, entry.start + 24)
        for box in _boxes(raw, entry.start + _ENTRY_HEAD, entry.end):
            if box.name not in _IN_ENTRY:
                raise Refused(f"The pictures are described by a part that is not read: {plain(box.name)}")


def _times(raw: bytes, found: _Found) -> None:
    (count,) = struct.unpack_from(">I", raw, 4)
    if count * 8 + 8 > len(raw):
        raise Refused("The index of the file contradicts itself")
    pairs = list(struct.iter_unpack(">II", raw[8 : 8 + count * 8]))
    found.timed = sum(samples for samples, _ in pairs)
    found.rate = found.rate[0], sum(samples * length for samples, length in pairs)


def _sizes(raw: bytes, found: _Found) -> None:
    each, found.samples = struct.unpack_from(">II", raw, 4)
    if found.samples > MAX_FRAMES and found.kind == "vide":
        raise Refused(f"The clip is too long: {found.samples} frames")
    if not each and found.samples * 4 + 12 > len(raw):
        raise Refused("The index of the file contradicts itself")
    found.bytes = (
        each * found.samples if each else sum(struct.unpack_from(f">{found.samples}I", raw, 12)) if found.samples else 0
    )


def _chunks(form: str, width: int) -> _Reader:
    def read(raw: bytes, found: _Found) -> None:
        (count,) = struct.unpack_from(">I", raw, 4)
        if count * width + 8 > len(raw):
            raise Refused("The index of the file contradicts itself")
        found.farthest = max(struct.unpack_from(f">{count}{form}", raw, 8), default=0)

    return read


_READERS: Final[dict[str, _Reader]] = {
    "mdhd": _media_header,
    "hdlr": _handler,
    "dref": _data_references,
    "stsd": _sample_entries,
    "stts": _times,
    "stsz": _sizes,
    "stco": _chunks("I", 4),
    "co64": _chunks("Q", 8),
}


def _read_texts(raw: bytes, outer: _Box, texts: Texts) -> None:
    """Read the texts below `udta` or `meta`; what is no text there is passed over."""
    try:
        if outer.name == "udta":
            for box in _boxes(raw, outer.start, outer.end):
                if box.name == "meta":
                    _read_items(raw, box, texts)
                elif box.name[:1] == "©" and box.end - box.start >= 4:
                    (length,) = struct.unpack_from(">H", raw, box.start)
                    texts.add(_KNOWN_TAGS.get(box.name, box.name), raw[box.start + 4 : box.start + 4 + length])
        else:
            _read_items(raw, outer, texts)
    except (Refused, struct.error, IndexError):
        texts.notes.append("some texts in the file could not be read")


def _read_items(raw: bytes, meta: _Box, texts: Texts) -> None:
    # QuickTime has no version before its boxes, ISO has.
    start = meta.start if raw[meta.start + 4 : meta.start + 8] == b"hdlr" else meta.start + 4
    names: list[str] = []
    for box in _boxes(raw, start, meta.end):
        if box.name == "keys":
            names = [raw[one.start : one.end].decode("utf-8", "replace") for one in _boxes(raw, box.start + 8, box.end)]
        elif box.name == "ilst":
            for item in _boxes(raw, box.start, box.end):
                number = int.from_bytes(item.name.encode("latin-1"), "big")
                known = names[number - 1] if 0 < number <= len(names) else _KNOWN_TAGS.get(item.name, item.name)
                for data in _boxes(raw, item.start, item.end):
                    if data.name == "data" and raw[data.start : data.start + 4] in (b"\0\0\0\1", b"\0\0\0\0"):
                        texts.add(known, raw[data.start + 8 : data.end])
