"""Image files written byte by byte, and colour arithmetic of its own: what pictures are compared with."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Array = npt.NDArray[Any]

WHITE_D65, WHITE_D50 = (0.3127, 0.3290), (0.3457, 0.3585)


def srgb_to_light(signal: Array) -> Array:
    """Return the light of an sRGB signal."""
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def light_to_srgb(light: Array) -> Array:
    """Return the sRGB signal of a light."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)


def power(exponent: float) -> Callable[[Array], Array]:
    """Return the curve of a gamma."""
    return lambda signal: signal**exponent


#: Coordinates of white, red, green and blue, and the light of a signal from 0 to 1.
SPACES: dict[str, tuple[tuple[float, ...], Callable[[Array], Array]]] = {
    "sRGB": ((*WHITE_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06), srgb_to_light),
    "Display P3": ((*WHITE_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06), srgb_to_light),
    "Adobe RGB": ((*WHITE_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06), power(563 / 256)),
    "Rec. 2020": ((*WHITE_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046), power(2.4)),
    "Apple RGB": ((*WHITE_D65, 0.625, 0.34, 0.28, 0.595, 0.155, 0.07), power(1.8)),
    "eciRGB": ((*WHITE_D50, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08), power(1.8)),
    "swapped": ((*WHITE_D65, 0.15, 0.06, 0.30, 0.60, 0.64, 0.33), srgb_to_light),
}


def to_xyz(primaries: tuple[float, ...]) -> Array:
    """Return the matrix from light in RGB to XYZ adapted to D65."""
    columns = []
    for x, y in zip(primaries[0::2], primaries[1::2], strict=True):
        columns.append((x / y, 1.0, (1 - x - y) / y))
    white, red, green, blue = np.array(columns)
    unscaled = np.array([red, green, blue]).T
    matrix = unscaled @ np.diag(np.linalg.inv(unscaled) @ white)
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    target = np.array([WHITE_D65[0] / WHITE_D65[1], 1, (1 - sum(WHITE_D65)) / WHITE_D65[1]])
    return np.linalg.inv(cones) @ np.diag((cones @ target) / (cones @ white)) @ cones @ matrix


def in_srgb(pixels: Array, primaries: tuple[float, ...], curve: Callable[[Array], Array]) -> Array:
    """Convert 8-bit pixels of a space to 8-bit sRGB."""
    light = np.clip(curve(pixels / 255.0), 0, 1) @ to_xyz(primaries).T
    signal = light_to_srgb(light @ np.linalg.inv(to_xyz(SPACES["sRGB"][0])).T)
    return np.rint(np.clip(signal, 0, 1) * 255)


def patches(seed: int, low: int = 0, high: int = 255, channels: int = 3, side: int = 16) -> Array:
    """Draw 64x80 pixels of coloured squares."""
    squares = np.random.default_rng(seed).integers(low, high + 1, (64 // side, 80 // side, channels))
    return squares.repeat(side, 0).repeat(side, 1)


def on_white(colour: Array, alpha: Array) -> Array:
    """Lay colours with an alpha of 0 to 1 on white."""
    return np.rint(colour * alpha + 255.0 * (1 - alpha))


def saved(pixels: Array, kind: str, mode: str | None = None, **options: Any) -> bytes:
    """Encode 8-bit pixels as well as the format can."""
    best: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True, "exact": True},
        "AVIF": {"quality": 100, "subsampling": "4:4:4", "speed": 10},
    }
    image = Image.fromarray(pixels.astype(np.uint8))
    if mode is not None:
        image = Image.frombytes(mode, image.size, pixels.astype(np.uint8).tobytes())
    file = io.BytesIO()
    image.save(file, kind, **best.get(kind, {}) | options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Build one chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples: Array, depth: int, colour: int, *chunks: bytes, after: bytes = b"") -> bytes:
    """Build a PNG from samples [height, width, channels] of any depth."""
    height, width, _ = samples.shape
    rows = samples.reshape(height, -1)
    if depth == 16:
        packed = rows.astype(">u2").view(np.uint8).reshape(height, -1)
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        packed = np.packbits(bits.reshape(height, -1), axis=-1)
    # The filter Sub for every second row, so that the decoder has to filter.
    step, lines = max(1, samples.shape[2] * depth // 8), []
    for at, row in enumerate(packed):
        shifted = np.concatenate([np.zeros(step, np.uint8), row[:-step]])
        lines.append(bytes([at % 2]) + ((row - shifted) if at % 2 else row).astype(np.uint8).tobytes())
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(lines)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + body + after + chunk(b"IEND", b"")


def tiff(samples: Array, photometric: int, kind: int, *, order: str = "<", extra: list[Any] | None = None) -> bytes:
    """Build a TIFF from samples [height, width, channels]; their type is the depth, `kind` the sample format."""
    height, width, channels = samples.shape
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    bits = samples.dtype.itemsize * 8
    tags: list[tuple[int, str, list[Any]]] = [
        (256, "I", [width]), (257, "I", [height]), (258, "H", [bits] * channels), (259, "H", [1]),
        (262, "H", [photometric]), (273, "I", [8]), (277, "H", [channels]), (278, "I", [height]),
        (279, "I", [len(data)]), (339, "H", [kind] * channels), *(extra or []),
    ]  # fmt: skip
    tags.sort(key=lambda tag: tag[0])
    directory = 8 + len(data) + len(data) % 2
    spill, entries = b"", b""
    for tag, code, values in tags:
        content = struct.pack(f"{order}{len(values)}{code}", *values)
        number = {"H": 3, "I": 4, "f": 11, "i": 9}[code]
        if len(content) > 4:
            content, place = b"", directory + 6 + 12 * len(tags) + len(spill)
            spill += struct.pack(f"{order}{len(values)}{code}", *values)
            content = struct.pack(f"{order}I", place)
        entries += struct.pack(f"{order}HHI", tag, number, len(values)) + content.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    body = mark + struct.pack(f"{order}I", directory) + data + bytes(len(data) % 2)
    return body + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + spill


def bmp(pixels: Array, bits: int, masks: tuple[int, ...] = (), *, upright: bool = False, profile: bytes = b"") -> bytes:
    """Build a BMP of BGR or BGRA pixels, with a header of version 5 if it has masks or a profile."""
    height, width, _ = pixels.shape
    rows = pixels if upright else pixels[::-1]
    data = rows.astype(np.uint8).tobytes()
    size = 124 if masks or profile else 40
    head = struct.pack("<IiiHHIIiiII", size, width, -height if upright else height, 1, bits, 3 if masks else 0,
                       len(data), 2835, 2835, 0, 0)  # fmt: skip
    if size == 124:
        head += struct.pack("<4I", *masks) if masks else bytes(16)
        head += b"DEBM" if profile else b"BGRs"
        head += bytes(48) + struct.pack("<4I", 4, 124 + len(data) if profile else 0, len(profile), 0)
    total = 14 + size + len(data) + len(profile)
    return b"BM" + struct.pack("<IHHI", total, 0, 0, 14 + size) + head[:size] + data + profile


def icc(space: bytes, tags: list[tuple[bytes, bytes]], kind: bytes = b"mntr", pcs: bytes = b"XYZ ") -> bytes:
    """Build an ICC profile of version 2 around its tags."""
    white = struct.pack(">3i", 63190, 65536, 54061)
    all_tags = [
        (b"desc", b"desc" + struct.pack(">II", 0, 2) + b"t\0" + bytes(78)),
        (b"cprt", b"text" + bytes(8)),
        (b"wtpt", b"XYZ " + bytes(4) + white),
        *tags,
    ]
    table, data, start = b"", b"", 132 + 12 * len(all_tags)
    for name, content in all_tags:
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI", start + len(data), bytes(4), 0x02400000) + kind + space + pcs
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + white
    return head.ljust(128, b"\0") + struct.pack(">I", len(all_tags)) + table + data


def rgb_profile(name: str) -> bytes:
    """Build the ICC profile of one of the spaces."""
    primaries, curve = SPACES[name]
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    old = cones @ np.array([WHITE_D65[0] / WHITE_D65[1], 1, (1 - sum(WHITE_D65)) / WHITE_D65[1]])
    new = cones @ np.array([0.9642, 1, 0.8249])
    columns = (np.linalg.inv(cones) @ np.diag(new / old) @ cones @ to_xyz(primaries)).T
    levels = np.rint(curve(np.linspace(0, 1, 1024)) * 65535).astype(">u2").tobytes()
    response = b"curv" + struct.pack(">II", 0, 1024) + levels
    tags = [
        (b"%cXYZ" % letter, b"XYZ " + bytes(4) + struct.pack(">3i", *np.rint(column * 65536).astype(int)))
        for letter, column in zip(b"rgb", columns, strict=True)
    ]
    return icc(b"RGB ", tags + [(b"%cTRC" % letter, response) for letter in b"rgb"])


def grey_profile(exponent: float) -> bytes:
    """Build the ICC profile of a grey with a gamma."""
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(exponent * 256))
    return icc(b"GRAY", [(b"kTRC", curve)])


def cmyk_profile(lab_of_corners: Array) -> bytes:
    """Build an ICC profile of a press from the Lab of its 16 full inks [c, m, y, k], a table of 2 points a side."""
    encoded = lab_of_corners * (2.55, 1, 1) + (0, 128, 128)
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *np.eye(3, dtype=int).ravel() * 65536)
    table += bytes(range(256)) * 4 + np.rint(encoded).astype(np.uint8).tobytes() + bytes(range(256)) * 3
    return icc(b"CMYK", [(b"A2B0", table)], kind=b"prtr", pcs=b"Lab ")


def lab_to_srgb(lab: Array) -> Array:
    """Convert Lab (D50) to 8-bit sRGB."""
    height = (lab[..., 0] + 16) / 116
    roots = np.stack([height + lab[..., 1] / 500, height, height - lab[..., 2] / 200], axis=-1)
    xyz = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * 3 * (6 / 29) ** 2) * (0.9642, 1, 0.8249)
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    new = cones @ np.array([WHITE_D65[0] / WHITE_D65[1], 1, (1 - sum(WHITE_D65)) / WHITE_D65[1]])
    adapt = np.linalg.inv(cones) @ np.diag(new / (cones @ np.array([0.9642, 1, 0.8249]))) @ cones
    light = xyz @ adapt.T @ np.linalg.inv(to_xyz(SPACES["sRGB"][0])).T
    return np.rint(np.clip(light_to_srgb(light), 0, 1) * 255)


#: HEIC, which no library of the product writes: 128x64, RED on the left and BLUE on the right.
RED, BLUE = (220, 40, 40), (50, 90, 230)
HEIC_TURNED = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAaFtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ADRpbG9jAAAAAERAAAIAAQAAAAABxQABAAAAAAAAACwAAgAAAAAB8QABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAA"
    "AAABAABodmMxAAAAABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA4GlwcnAAAADAaXBjbwAAAHhodmNDAQNwAAAA"
    "kAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoBAgQWW6"
    "kkprm4CGgwIAAAMAMgAAAwACEGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAACAAAAAQAAAABBw"
    "aXhpAAAAAAMICAgAAAAJaXJvdAMAAAAYaXBtYQAAAAAAAAABAAEFgQIDBIUAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAFht"
    "ZGF0AAAAKCgBrwT4QTJp2/+sj///60R9l/b3hpPRxgzrufI/0jmP//KX92MIYvgAAAAGRXhpZgAATU0AKgAAAAgAAQESAAMAAAAB"
    "AAYAAAAAAAA="
)
HEIC_P3 = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ACJpbG9jAAAAAERAAAEAAQAAAAABegABAAAAAAAAACwAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRt"
    "AAAAAAABAAAA1mlwcnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMA"
    "AAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoBAgQWW6kkprm4YGgwIAAAMAMgAAAwACEGIAAQAHRAHBcrAiQAAAABNjb2xy"
    "bmNseAAMAA0ABoAAAAAUaXNwZQAAAAAAAACAAAAAQAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAADRt"
    "ZGF0AAAAKCgBrwT4QTJp2/+sj///60R9l/b3hpPRxgzrufI/0jmP//KX92MIYvg="
)
HEIC_SECOND = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAhBtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAA"
    "ADRpbG9jAAAAAERAAAIAAQAAAAACNAABAAAAAAAAACwAAgAAAAACYAABAAAAAAAAAB4AAAA4aWluZgAAAAAAAgAAABVpbmZlAgAA"
    "AAABAABodmMxAAAAABVpbmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAACAAABaWlwcnAAAAFDaXBjbwAAAHhodmNDAQNwAAAA"
    "kAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoBAgQWW6"
    "kkprm4CGgwIAAAMAMgAAAwACEGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAACAAAAAQAAAABBw"
    "aXhpAAAAAAMICAgAAAB4aHZjQwEDcAAAAJAAAAAAAB7wAPz9+PgAAA8DYAABABhAAQwB//8DcAAAAwCQAAADAAADAB66AkBhAAEA"
    "K0IBAQNwAAADAJAAAAMAAAMAHqAggQWW6kkprm4CGgwIAAADAMgAAAMACEBiAAEAB0QBwXKwIkAAAAAUaXNwZQAAAAAAAABAAAAA"
    "QAAAAB5pcG1hAAAAAAAAAAIAAQSBAgMEAAIEhQIGBAAAAFJtZGF0AAAAKCgBrwT4QTJp2/+sj///60R9l/b3hpPRxgzrufI/0jmP"
    "//KX92MIYvgAAAAaKAGvBPhBMmnb/wu////axz//9prik9HGDb8="
)
