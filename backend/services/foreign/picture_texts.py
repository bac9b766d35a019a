"""Reads the texts that a PNG or JPEG carries, without decoding a pixel.

Posters of this server have their clip's record as a comment; ComfyUI and others write graphs and parameters. Knows how
the files are built, not what the texts mean.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, Final

from backend.services.foreign.mp4_boxes import MAX_TEXT, Refused, Texts, plain

PNG_START: Final = b"\x89PNG\r\n\x1a\n"
JPEG_START: Final = b"\xff\xd8\xff"
#: Parts of a file that are looked at; a picture has some hundred.
_MAX_PARTS: Final = 4096
#: JPEG: start of the pixels, end of the file, comment, and the segments of Exif and of manifests.
_PIXELS, _END, _COMMENT, _APP1, _APP11 = 0xDA, 0xD9, 0xFE, 0xE1, 0xEB
_EXIF: Final = b"Exif\0\0"
#: Tags of Exif with texts, and the one that leads to the folder where the comment of users is.
_EXIF_TEXTS: Final = {0x010E: "description", 0x010F: "make", 0x0110: "model", 0x0131: "software", 0x9286: "comment"}
_EXIF_FOLDER: Final = 0x8769
_BYTES_OF: Final = {1: 1, 2: 1, 3: 2, 4: 4, 7: 1}  # of a value, by its type


def read_png(file: BinaryIO, size: int) -> Texts:
    """Read the texts of a PNG: plain, compressed, and international ones.

    Raises:
        Refused: it is cut off or no PNG.
    """
    texts, at = Texts(), len(PNG_START)
    for _ in range(_MAX_PARTS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            raise Refused("The picture was cut off")
        length, kind = struct.unpack(">I4s", head)
        if at + 12 + length > size:
            raise Refused("The picture was cut off")
        if kind == b"IEND":
            return texts
        if kind == b"caBX":
            texts.manifest = True
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            if length > MAX_TEXT:
                texts.notes.append(f"a text of {length} bytes was not read")
            else:
                _png_text(kind, file.read(length), texts)
        at += 12 + length
    raise Refused("The picture has too many parts")


def _png_text(kind: bytes, raw: bytes, texts: Texts) -> None:
    keyword, _, rest = raw.partition(b"\0")
    name = keyword.decode("latin-1")
    if kind == b"tEXt":
        texts.add(name, rest if _is_utf8(rest) else rest.decode("latin-1").encode())
        return
    packed = kind == b"zTXt" or rest[:1] == b"\1"
    # An international text stands behind its language and its translated keyword.
    content = rest[1:] if kind == b"zTXt" else rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    if packed:
        unpacked = _unpacked(content)
        if unpacked is None:
            texts.notes.append(f"the text {plain(name)} could not be unpacked, or is too long")
            return
        content = unpacked
    texts.add(name, content if kind == b"iTXt" or _is_utf8(content) else content.decode("latin-1").encode())


def _is_utf8(raw: bytes) -> bool:
    """Whether a text is UTF-8: the format says Latin-1, and many programs write UTF-8 all the same."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unpacked(packed: bytes) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MAX_TEXT + 1)
    except zlib.error:
        return None
    return text if len(text) <= MAX_TEXT else None


def read_jpeg(file: BinaryIO, size: int) -> Texts:
    """Read the comments of a JPEG, and the texts of its Exif data.

    Raises:
        Refused: it is cut off or no JPEG.
    """
    texts, at = Texts(), 2
    for _ in range(_MAX_PARTS):
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF:
            raise Refused("The picture was cut off")
        marker, (length,) = head[1], struct.unpack(">H", head[2:])
        if marker in (_PIXELS, _END):
            return texts
        if length < 2 or at + 2 + length > size:
            raise Refused("The picture was cut off")
        if marker in (_COMMENT, _APP1, _APP11):
            raw = file.read(length - 2)
            if marker == _COMMENT:
                texts.add("comment", raw)
            elif marker == _APP11:
                texts.manifest = texts.manifest or b"c2pa" in raw[:64]
            elif raw.startswith(_EXIF):
                _exif(raw[len(_EXIF) :], texts)
        at += 2 + length
    raise Refused("The picture has too many parts")


def _exif(raw: bytes, texts: Texts) -> None:
    """Read the two folders of Exif that have texts."""
    order = {b"II": "<", b"MM": ">"}.get(raw[:2])
    try:
        (at,) = struct.unpack_from(f"{order}I", raw, 4) if order else (0,)
        for _ in range(2):
            if not at:
                return
            (count,) = struct.unpack_from(f"{order}H", raw, at)
            folder, at = at + 2, 0
            for entry in range(min(count, 256)):
                tag, kind, number = struct.unpack_from(f"{order}HHI", raw, folder + entry * 12)
                (value,) = struct.unpack_from(f"{order}I", raw, folder + entry * 12 + 8)
                length = number * _BYTES_OF.get(kind, 0)
                if tag == _EXIF_FOLDER:
                    at = value
                elif tag in _EXIF_TEXTS and 4 < length <= len(raw):
                    content = raw[value : value + length]
                    texts.add(_EXIF_TEXTS[tag], _user_comment(content) if tag == 0x9286 else content)
    except struct.error:
        texts.notes.append("the Exif data could not be read")


def _user_comment(content: bytes) -> bytes:
    """Return a user's comment as UTF-8; it begins with eight bytes that name its characters."""
    kind, text = content[:8], content[8:]
    if kind.startswith(b"UNICODE"):
        # Programs do not agree on the order of the bytes. Most letters have a zero, and where it stands tells.
        big = text[::2].count(0) > text[1::2].count(0)
        return text.decode("utf-16-be" if big else "utf-16-le", "replace").encode()
    return text
