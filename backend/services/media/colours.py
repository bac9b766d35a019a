"""Converts pictures to sRGB by the colour space that their file declares.

Every declaration becomes an ICC profile, and LittleCMS converts. Knows nothing about file formats beyond that.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

Floats = npt.NDArray[np.float64]
Curve = Callable[[Floats], Floats]

#: x and y of white, red, green and blue, by their number in ITU-T H.273.
PRIMARIES = {
    1: (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    4: (0.3100, 0.3160, 0.670, 0.330, 0.210, 0.710, 0.140, 0.080),
    5: (0.3127, 0.3290, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.3140, 0.3510, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
SRGB_PRIMARIES = PRIMARIES[1]
#: Luminance of diffuse white in HDR pictures, in cd/m² (ITU-R BT.2408).
_HDR_WHITE = 203.0
#: D50, the white point of ICC profiles, as XYZ, and the Bradford matrix that adapts to it.
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_CURVE_POINTS = 4096


@dataclass(frozen=True, slots=True)
class ColourSpace:
    """An RGB colour space: its primaries, and the light that a signal from 0 to 1 stands for."""

    primaries: tuple[float, ...]  #: x and y of white, red, green and blue
    curve: Curve

    def profile(self) -> bytes:
        """Return the space as an ICC profile (version 2, matrix and curves).

        Raises:
            ValueError: the primaries are not those of a colour space.
        """
        points = np.asarray(self.primaries, np.float64).reshape(4, 2)
        if not (points[:, 1] > 1e-4).all() or not (points < 2).all():
            raise ValueError("not chromaticities")
        x, y = points.T
        white, *_ = light = np.stack([x / y, np.ones(4), (1 - x - y) / y], axis=1)
        primaries = light[1:].T
        try:
            colorants = primaries * np.linalg.solve(primaries, white)
        except np.linalg.LinAlgError as error:
            raise ValueError("not primaries") from error
        cone = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
        adapted = np.linalg.inv(_BRADFORD) @ cone @ _BRADFORD @ colorants
        levels = np.clip(self.curve(np.linspace(0, 1, _CURVE_POINTS)), 0, 1)
        curve = b"curv" + struct.pack(">II", 0, _CURVE_POINTS) + np.rint(levels * 65535).astype(">u2").tobytes()
        tags = {b"desc": b"desc" + struct.pack(">II", 0, 1) + bytes(79), b"cprt": b"text" + bytes(8)}
        tags[b"wtpt"] = _xyz(_D50)
        tags |= {name: _xyz(adapted[:, at]) for at, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
        return _assembled(tags)


def gamma(exponent: float) -> Curve:
    """Return the curve of a display with this exponent."""
    return lambda signal: signal**exponent


def srgb_curve(signal: Floats) -> Floats:
    """Return the light of an sRGB signal (IEC 61966-2-1)."""
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _pq(signal: Floats) -> Floats:
    """Return the light of a PQ signal (SMPTE ST 2084), with diffuse white at 1."""
    root = signal ** (1 / 78.84375)
    return (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125) * 1e4 / _HDR_WHITE


def _hlg(signal: Floats) -> Floats:
    """Return the light of an HLG signal (ITU-R BT.2100) on a display of 1000 cd/m², with diffuse white at 1."""
    scene = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return scene**1.2 * 1000 / _HDR_WHITE


#: By number in H.273. Video curves (1, 6, 14, 15) are shown like sRGB by displays and browsers.
_CURVES: dict[int, Curve] = dict.fromkeys((1, 6, 13, 14, 15), srgb_curve) | {
    4: gamma(2.2),
    5: gamma(2.8),
    8: gamma(1.0),
    16: _pq,
    18: _hlg,
}
HDR_TRANSFERS = (16, 18)
ADOBE_RGB = ColourSpace((0.3127, 0.3290, 0.640, 0.330, 0.210, 0.710, 0.150, 0.060), gamma(563 / 256))


def coded_space(primaries: int, transfer: int) -> ColourSpace | None:
    """Return the colour space with these numbers in ITU-T H.273; None if they are unspecified or unknown."""
    if primaries not in PRIMARIES or transfer not in _CURVES:
        return None
    return ColourSpace(PRIMARIES[primaries], _CURVES[transfer])


def measured_space(file_gamma: float | None, chromaticities: tuple[float, ...] | None) -> ColourSpace | None:
    """Return the colour space that a PNG declares by gAMA and cHRM; None if it declares none."""
    if not file_gamma and chromaticities is None:
        return None
    # libpng's threshold: a gamma within 5 % of 1/2.2 stands for the curve of sRGB.
    curve = srgb_curve if not file_gamma or abs(file_gamma * 2.2 - 1) < 0.05 else gamma(1 / file_gamma)
    return ColourSpace(chromaticities or SRGB_PRIMARIES, curve)


def through_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Convert an image (L, RGB, CMYK or LAB) to sRGB; None if the profile is unreadable or for other channels.

    A profile that moves no colour by more than one level is that of sRGB, and the image stays as it is.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        image = _for_space(image, space)
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), image.mode, "RGB")
        if space in ("RGB", "GRAY") and _moves_nothing(transform, image.mode):
            return image.convert("RGB")
        return ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """Convert an image in CIELAB (D50) to sRGB."""
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
    converted = ImageCms.applyTransform(image, transform)
    return image if converted is None else converted


def _for_space(image: Image.Image, space: str) -> Image.Image:
    if space == "RGB" and image.mode in ("L", "RGB"):
        return image.convert("RGB")
    if space == "CMYK" and image.mode == "CMYK":
        return image
    if space == "Lab" and image.mode == "LAB":
        return image
    if space == "GRAY" and (image.mode == "L" or (image.mode == "RGB" and _is_grey(image))):
        return image.convert("L")
    raise ValueError("the profile is for other channels")


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = image.split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def _moves_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode == "L":
        levels = np.arange(256, dtype=np.uint8)[None]
        probe = Image.fromarray(levels)
    else:
        steps = np.linspace(0, 255, 18).astype(np.uint8)
        probe = Image.fromarray(np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(18, -1, 3))
    moved = ImageCms.applyTransform(probe, transform)
    before, after = np.asarray(probe.convert("RGB"), np.int16), np.asarray(moved, np.int16)
    return int(np.abs(before - after).max()) <= 1


def _xyz(value: Floats) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(one) * 65536) for one in value))


def _assembled(tags: dict[bytes, bytes]) -> bytes:
    """Put the tags of an ICC profile behind its header and table."""
    table, data, start = b"", b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        padded = content + bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(data), len(content))
        data += padded
    header = struct.pack(">I4sI", start + len(data), bytes(4), 0x02400000) + b"mntrRGB XYZ "
    header += struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + data
