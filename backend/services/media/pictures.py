"""Decodes client images into upright, opaque sRGB pixels and fits them to a size.

Depth, range, transparency and colours follow what the file declares. Knows nothing about requests or storage.
"""

from __future__ import annotations

import hashlib
import io
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pi_heif
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from backend.core.errors.requests import InvalidImage
from backend.core.requests.forms import Fit
from backend.services.media.colours import (
    ADOBE_RGB,
    HDR_TRANSFERS,
    ColourSpace,
    coded_space,
    lab_to_srgb,
    measured_space,
    through_profile,
)
from backend.services.media.png_file import GREY, SIGNATURE, PngFile, read_png

pi_heif.register_heif_opener()

MIN_SIDE = 64  #: pixels
MAX_SIDE = 4096  #: pixels; larger pictures are reduced to this
MAX_PIXELS = 80_000_000  #: larger pictures are refused before they are decoded
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF", "HEIF")
ACCEPTED = "JPEG, PNG, WebP, AVIF, HEIC, BMP or TIFF"
#: Colour behind transparent pixels.
BACKGROUND = (255, 255, 255)
#: Colour of the bars around a padded image.
BARS = (0, 0, 0)

#: Pictures above this are decoded one at a time, so that memory stays bounded.
_LARGE_PIXELS = 16_000_000
_one_large_picture = threading.Lock()
#: Beginnings of files that are pictures, but of no accepted format: offset, bytes, name.
_OTHER_FORMATS = (
    (0, b"GIF8", "GIF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"\0\0\1\0", "Windows icon"),
    (0, b"DDS ", "DirectDraw"),
    (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"),
    (8, b"crx ", "Canon raw"),
)
#: Beginnings of files of the accepted formats.
_OWN_FORMATS = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, SIGNATURE, "PNG"),
    (8, b"WEBP", "WebP"),
    (8, b"avif", "AVIF"),
    (8, b"avis", "AVIF"),
    (8, b"hei", "HEIC"),
    (8, b"mif1", "HEIF or AVIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
)
_BITS, _PHOTOMETRIC, _EXTRA_SAMPLES, _SAMPLE_FORMAT, _SMALLEST, _LARGEST = 258, 262, 338, 339, 340, 341  # TIFF tags
_WHITE_IS_ZERO = 0
_SIGNED, _FLOAT = 2, 3  # sample formats of TIFF

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture, and one sentence for each thing that was changed or chosen."""

    pixels: Pixels  #: uint8 RGB [height, width, 3]
    notes: tuple[str, ...]


def read_picture(raw: bytes, field: str) -> Picture:
    """Read an image file: upright, in sRGB, transparency on white, at most `MAX_SIDE` pixels a side.

    Args:
        raw: a file of an accepted format.
        field: its name in the request, for errors and notes.

    Raises:
        InvalidImage: unsupported format, damaged, too small or too large.
    """
    details = {"field": field}
    if not raw:
        raise InvalidImage(f"The file sent as `{field}` is empty (0 bytes)", details=details)
    png = read_png(raw) if raw.startswith(SIGNATURE) else None
    try:
        with Image.open(io.BytesIO(raw if png is None else png.data), formats=FORMATS) as image:
            _check_size(image.size, details)
            notes: list[str] = []
            with _one_large_picture if image.width * image.height > _LARGE_PIXELS else nullcontext():
                pixels = np.asarray(_decoded(image, raw, png, notes))
            return Picture(pixels, tuple(f"{field} {note}" for note in notes))
    except InvalidImage as error:
        raise InvalidImage(error.message, details=details) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidImage(
            f"The image is too large; at most {MAX_PIXELS // 10**6} megapixels can be read", details=details
        ) from error
    except UnidentifiedImageError as error:
        raise InvalidImage(_unreadable(raw), details=details) from error
    except MemoryError:
        raise
    except Exception as error:  # boundary: decoders of foreign bytes raise whatever their parsers trip over
        raise InvalidImage(_unreadable(raw), details=details) from error


def name_of(pixels: Pixels) -> str:
    """Name a picture by its pixels (SHA-256, hexadecimal), so that the name does not depend on the encoder version."""
    height, width = pixels.shape[:2]
    return hashlib.sha256(f"{width}x{height}\n".encode() + pixels.tobytes()).hexdigest()


def to_png(pixels: Pixels) -> bytes:
    """Encode a picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def fit_image(pixels: Pixels, width: int, height: int, fit: Fit) -> Pixels:
    """Resize an image, uint8 RGB [h, w, 3], to uint8 RGB [height, width, 3].

    `crop` fills the frame from the centre, `pad` adds black bars, `stretch` ignores the aspect ratio.
    """
    image, size = Image.fromarray(pixels), (width, height)
    if image.size == size:
        return pixels
    if fit is Fit.STRETCH:
        fitted = image.resize(size, Image.Resampling.LANCZOS)
    elif fit is Fit.PAD:
        fitted = ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=BARS)
    else:
        fitted = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return np.asarray(fitted)


def _check_size(size: tuple[int, int], details: dict[str, Any]) -> None:
    """Refuse before decoding: a small file may declare enormous dimensions."""
    width, height = size
    if width * height > MAX_PIXELS:
        reason = f"it is too large; at most {MAX_PIXELS // 10**6} megapixels can be read"
    elif min(size) < MIN_SIDE:
        reason = f"each side needs at least {MIN_SIDE}"
    elif min(_reduced(size)) < MIN_SIDE:
        reason = f"it is too narrow: reduced to {MAX_SIDE} on the long side, the short side keeps less than {MIN_SIDE}"
    else:
        return
    raise InvalidImage(f"The image has {width}x{height} pixels; {reason}", details=details)


def _reduced(size: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, MAX_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _unreadable(raw: bytes) -> str:
    """Say what the file is, as far as its first bytes tell, and what to do."""
    for offset, start, name in _OTHER_FORMATS:
        if raw.startswith(start, offset):
            return f"Invalid image format. This is a {name} file, which cannot be read. Use {ACCEPTED}"
    for offset, start, name in _OWN_FORMATS:
        if raw.startswith(start, offset):
            return (
                f"This {name} file cannot be read: it is damaged, cut off, or of a variant that is not supported. "
                "Save it as PNG or JPEG, with 8 bits per channel"
            )
    return f"Invalid image file. Use {ACCEPTED}"


def _decoded(image: Image.Image, raw: bytes, png: PngFile | None, notes: list[str]) -> Image.Image:
    """Return the picture in 8-bit sRGB and add what was changed to the notes."""
    _note_frames(image, png, notes)
    image.load()
    colour, alpha = _separated(image, raw, png, notes)
    colour = _in_srgb(colour, image, raw, png, notes)
    if alpha is not None:
        colour = Image.composite(colour, Image.new("RGB", colour.size, BACKGROUND), alpha)
    colour.info = {}  # the metadata of the file, which may be damaged
    colour.getexif()[ExifTags.Base.Orientation] = _orientation(image)
    upright = ImageOps.exif_transpose(colour)
    size = _reduced(upright.size)
    if size == upright.size:
        return upright
    notes.append(f"of {upright.width}x{upright.height} was reduced to {size[0]}x{size[1]}")
    return upright.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _note_frames(image: Image.Image, png: PngFile | None, notes: list[str]) -> None:
    if png is not None and png.frames and png.still_apart:
        notes.append("contains an animation; the still picture of the file is used, not a frame")
    elif (png is not None and png.frames > 1) or getattr(image, "is_animated", False):
        notes.append(f"contains several frames or pages; number {image.tell() + 1} is used")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # boundary: damaged metadata never decides whether a picture can be read
        return 1
    return value if isinstance(value, int) else 1


def _separated(
    image: Image.Image, raw: bytes, png: PngFile | None, notes: list[str]
) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours (L, RGB, CMYK or LAB, 8 bits) and the alpha channel, if anything is transparent."""
    mode = image.mode
    if png is not None and png.transparent is not None:
        return _to_8_bits(image, png, notes), _all_but(png.transparent, image, png)
    clear_entries = "transparency" in image.info or (image.palette is not None and image.palette.mode == "RGBA")
    if mode in ("PA", "RGBa") or (mode == "P" and clear_entries):
        image = image.convert("RGBA")
    elif mode == "La":
        image = image.convert("LA")
    if image.mode in ("LA", "RGBA"):
        alpha = image.getchannel("A")
        # Windows programs leave the fourth byte at 0; TIFF names the meaning of further channels, or should.
        unused = image.format == "BMP" or (image.format == "TIFF" and not _tags(image).get(_EXTRA_SAMPLES))
        if unused and alpha.getextrema() == (0, 0):
            return image.convert(image.mode[:-1]), None
        return image.convert(image.mode[:-1]), alpha
    return _to_8_bits(image, png, notes), None


def _all_but(transparent: tuple[int, ...], image: Image.Image, png: PngFile) -> Image.Image:
    """Return an alpha channel for a PNG with one transparent colour, compared at the depth of the file."""
    if png.colour_type == GREY:
        key = transparent[0] * 255 // (2**png.depth - 1) if png.depth < 8 else transparent[0]
        match = np.asarray(image if png.depth == 16 else image.convert("L")) == key
    elif png.depth == 16:
        # The decoder keeps the high bytes; the low bytes come from a second pass.
        with Image.open(io.BytesIO(png.data), formats=("PNG",)) as low:
            low.tile = [tile._replace(args="RGB;16L") for tile in low.tile]
            low.load()
            match = np.ones((image.height, image.width), np.bool_)
            for channel, key in enumerate(transparent):
                match &= np.asarray(image.getchannel(channel)) == key >> 8
                match &= np.asarray(low.getchannel(channel)) == key & 255
    else:
        match = (np.asarray(image) == np.array(transparent)).all(axis=-1)
    return Image.fromarray(np.where(match, 0, 255).astype(np.uint8))


def _to_8_bits(image: Image.Image, png: PngFile | None, notes: list[str]) -> Image.Image:
    """Bring an image without alpha to L, RGB, CMYK or LAB with 8 bits, by its declared depth and range."""
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image.convert("RGB")
    tags = _tags(image)
    values = np.asarray(image)
    black, white = (0.0, float(2**png.depth - 1)) if png is not None else _range(tags)
    if image.mode == "I" and white == 2**32 - 1:  # the decoder has no unsigned mode
        values = values.view(np.uint32)
    levels = (values.astype(np.float32) - np.float32(black)) / np.float32(white - black)
    if image.mode == "F":
        levels = _bounded(levels, notes)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = 1 - levels
    return Image.fromarray(np.rint(np.clip(levels, 0, 1) * 255).astype(np.uint8))


def _range(tags: dict[int, Any]) -> tuple[float, float]:
    """Return the values of black and white in a grey TIFF: as declared, or by its depth.

    Raises:
        InvalidImage: signed integers without a declared range.
    """
    kind, bits = _first(tags, _SAMPLE_FORMAT, 1), int(_first(tags, _BITS, 16))
    low, high = _first(tags, _SMALLEST, None), _first(tags, _LARGEST, None)
    declared = low is not None and high is not None and low < high and np.isfinite((low, high)).all()
    if kind == _FLOAT:
        # Extremes within 0 to 1 describe this picture, not its scale.
        return (float(low), float(high)) if declared and (low < 0 or high > 1) else (0.0, 1.0)
    if kind != _SIGNED:
        return 0.0, float(2**bits - 1)
    if not declared:
        raise InvalidImage(
            "This TIFF stores signed integers and does not declare which values are black and white. "
            "Save it with 8 or 16 bits per channel, unsigned"
        )
    return float(low), float(high)


def _bounded(levels: npt.NDArray[np.float32], notes: list[str]) -> npt.NDArray[np.float32]:
    """Replace what is no number by black, and report values beyond black and white.

    Raises:
        InvalidImage: most of the picture lies beyond them, so its scale is another one.
    """
    levels = np.nan_to_num(levels, nan=0.0, posinf=1.0, neginf=0.0)
    beyond = float((np.abs(levels - 0.5) > 0.501).mean())
    if beyond > 0.5:
        raise InvalidImage(
            f"This TIFF stores floating-point values from {levels.min():g} to {levels.max():g} and does not declare "
            "which are black and white. Save it with values from 0 to 1, or with 8 or 16 bits per channel"
        )
    if beyond:
        notes.append(f"exceeds black or white in {max(beyond, 0.001):.1%} of its pixels; they were cut")
    return levels


def _tags(image: Image.Image) -> dict[int, Any]:
    return dict(getattr(image, "tag_v2", {}))


def _first(tags: dict[int, Any], tag: int, default: Any) -> Any:
    value = tags.get(tag, default)
    return (value[0] if value else default) if isinstance(value, tuple) else value


def _in_srgb(colour: Image.Image, image: Image.Image, raw: bytes, png: PngFile | None, notes: list[str]) -> Image.Image:
    """Convert colours to sRGB by the profile or colour space that the file declares."""
    profile = _declared_profile(image, raw, png, notes)
    if profile is not None:
        converted = through_profile(colour, profile)
        if converted is not None:
            return converted
        notes.append("has a colour profile that cannot be used; its colours may differ")
    if colour.mode == "LAB":
        return lab_to_srgb(colour)
    if colour.mode == "CMYK":
        notes.append("is CMYK without a usable colour profile; its colours are approximate")
    return colour.convert("RGB")


def _declared_profile(image: Image.Image, raw: bytes, png: PngFile | None, notes: list[str]) -> bytes | None:
    """Return the declaration that takes precedence, as an ICC profile; None for sRGB and no declaration."""
    if png is not None:
        return _png_profile(png, notes)
    embedded = image.info.get("icc_profile") or _bmp_profile(raw)
    if embedded:
        return bytes(embedded)
    if image.format in ("AVIF", "HEIF"):
        # The box `colr` of the picture: primaries and transfer function, 16 bits each.
        at = raw.find(b"colrnclx", 0, 65536)
        if at >= 0:
            return _coded(int.from_bytes(raw[at + 8 : at + 10]), int.from_bytes(raw[at + 10 : at + 12]), notes)
    return ADOBE_RGB.profile() if _is_dcf_adobe(image) else None


def _png_profile(png: PngFile, notes: list[str]) -> bytes | None:
    """Follow the order of the PNG specification: cICP, iCCP, sRGB, then gAMA and cHRM."""
    if png.cicp is not None and coded_space(*png.cicp) is not None:
        return _coded(*png.cicp, notes)
    if png.profile is not None:
        return png.profile
    if png.profile_damaged:
        notes.append("has a damaged colour profile; its colours may differ")
    if png.srgb:
        return None
    return _as_profile(measured_space(png.gamma, png.chromaticities))


def _coded(primaries: int, transfer: int, notes: list[str]) -> bytes | None:
    if transfer in HDR_TRANSFERS:
        notes.append("is HDR; what is brighter than diffuse white became white")
    return _as_profile(coded_space(primaries, transfer))


def _as_profile(space: ColourSpace | None) -> bytes | None:
    try:
        return None if space is None else space.profile()
    except ValueError:  # no colours have these coordinates
        return None


def _bmp_profile(raw: bytes) -> bytes | None:
    """Return the profile embedded in a BMP with a header of version 5."""
    if raw[:2] != b"BM" or int.from_bytes(raw[14:18], "little") < 124 or raw[70:74] != b"DEBM":
        return None
    start, size = int.from_bytes(raw[126:130], "little"), int.from_bytes(raw[130:134], "little")
    return raw[14 + start : 14 + start + size] or None


def _is_dcf_adobe(image: Image.Image) -> bool:
    """Whether a camera declares Adobe RGB by its Exif interoperability index alone."""
    try:
        return str(image.getexif().get_ifd(ExifTags.IFD.Interop).get(1, "")).strip("\0 ") == "R03"
    except Exception:  # boundary: damaged metadata never decides whether a picture can be read
        return False
