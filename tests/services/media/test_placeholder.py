"""Placeholders are ThumbHashes: the same bytes as the encoder of the format's authors makes."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from backend.services.media.placeholder import encode_pixels, placeholder_of


def rings(width: int, height: int) -> NDArray[np.uint8]:
    """A picture with much in it, the same everywhere."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([(x * x + y * y) * 7 % 256, x * y * 5 % 256, (x * 3 + y * 11) % 256], -1).astype(np.uint8)


# Made by `rgbaToThumbHash` of the npm package thumbhash 0.1.1 from the same pixels, opaque.
@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (100, 56, "1f08020c82078545755776746093f645a9fcb8"),
        (56, 100, "1f080204025081543763466482164b70f6abc8"),
        (64, 64, "e007060f0266667766877777766776785707534c0fcf7f0c"),
    ],
)
def test_the_bytes_are_those_of_the_reference(width: int, height: int, expected: str) -> None:
    assert encode_pixels(rings(width, height)).hex() == expected


def test_a_picture_of_one_colour_has_no_waves() -> None:
    assert encode_pixels(np.zeros((9, 16, 3), np.uint8)).hex() == "00080204800000000000000000000000000000"
    plain = encode_pixels(np.full((10, 10, 3), (200, 30, 90), np.uint8))
    assert plain[5:] == bytes(len(plain) - 5)
    assert len(plain) <= 25


def test_a_large_picture_looks_like_a_small_one(tmp_path: Path) -> None:
    large = Image.fromarray(rings(64, 36)).resize((1280, 720), Image.Resampling.BICUBIC)
    large.save(tmp_path / "thumb.jpg", quality=95)
    content = (tmp_path / "thumb.jpg").read_bytes()
    found = placeholder_of(tmp_path / "thumb.jpg")
    assert found is not None
    assert found == placeholder_of(content)
    small = encode_pixels(rings(64, 36))
    assert found[4] == small[4], "the proportions"
    means = [int.from_bytes(one[:3], "little") & 63 for one in (found, small)]
    assert abs(means[0] - means[1]) <= 2, "the mean lightness"


def test_what_is_no_jpeg_has_none(tmp_path: Path) -> None:
    png = BytesIO()
    Image.fromarray(rings(8, 8)).save(png, "PNG")
    for content in (b"", b"\xff\xd8\xff", png.getvalue()):
        assert placeholder_of(content) is None
    assert placeholder_of(tmp_path / "absent.jpg") is None
