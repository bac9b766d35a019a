"""Decodes client images into upright, opaque pixels and fits them to a size.

Pure pixel work; knows nothing about requests or storage.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from backend.core.errors import InvalidImage
from backend.core.requests import Fit

MIN_SIDE = 64  #: pixels
MAX_SIDE = 4096  #: pixels
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
#: Colour behind transparent pixels.
BACKGROUND = (255, 255, 255)
#: Colour of the bars around a padded image.
BARS = (0, 0, 0)

Pixels = npt.NDArray[np.uint8]


def read_picture(raw: bytes, field: str) -> Pixels:
    """Read an image file as uint8 RGB [height, width, 3]: EXIF rotation applied, transparency on white.

    Args:
        raw: a JPEG, PNG, WebP, BMP or TIFF; the first frame of an animation is used.
        field: its name in the request, for error details.

    Raises:
        InvalidImage: unsupported format, truncated, too small or too large.
    """
    details = {"field": field}
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            width, height = image.size
            # Checked before decoding: a small file may declare enormous dimensions.
            if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
                raise InvalidImage(
                    f"The image has {width}x{height} pixels; sides of {MIN_SIDE} to {MAX_SIDE} can be used",
                    details=details,
                )
            image.load()
            return np.asarray(_opaque(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError as error:
        raise InvalidImage("Invalid image file. Use JPEG, PNG, WebP, BMP or TIFF", details=details) from error
    except Image.DecompressionBombError as error:
        raise InvalidImage(
            f"The image is too large; sides of at most {MAX_SIDE} can be used", details=details
        ) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidImage("Invalid image file: it is damaged or cut off", details=details) from error


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


def _opaque(image: Image.Image) -> Image.Image:
    """Return the image as 8-bit RGB, with transparency on white."""
    if image.mode in ("I", "I;16", "I;16B", "F"):  # 16-bit grey; a plain conversion would clip it to white
        levels = np.asarray(image, np.float64)
        image = Image.fromarray(np.clip(levels / 257 if levels.max() > 255 else levels, 0, 255).astype(np.uint8))
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    under = Image.new("RGBA", image.size, (*BACKGROUND, 255))
    return Image.alpha_composite(under, image.convert("RGBA")).convert("RGB")
