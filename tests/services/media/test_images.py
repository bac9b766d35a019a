"""Images as clients send them: what is stored, what is refused, and how one becomes the first frame."""

from __future__ import annotations

import io
import os
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.core.errors.lookups import InputMissing
from backend.core.errors.requests import InvalidImage
from backend.core.paths import Home
from backend.core.requests.forms import Fit
from backend.services.media.images import MAX_IMAGE_BYTES, SPARE_SECONDS, InputStore
from backend.services.media.pictures import fit_image

RED, BLUE = (220, 40, 40), (50, 90, 230)


@pytest.fixture
def store(tmp_path: Path) -> InputStore:
    return InputStore(Home(tmp_path).create())


def two_halves(width: int = 96, height: int = 64) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def as_file(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "JPEG"])
def test_every_format_is_read(store: InputStore, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    stored = store.store(as_file(two_halves(), kind, **options))
    assert (stored.width, stored.height) == (96, 64)
    assert store.find(stored.id) == stored
    pixels = store.load(stored.id).astype(int)
    assert pixels.shape == (64, 96, 3)
    tolerance = 12 if kind == "JPEG" else 0
    assert np.abs(pixels[:, :40] - RED).max() <= tolerance
    assert np.abs(pixels[:, 56:] - BLUE).max() <= tolerance


def test_the_same_picture_is_stored_once_whatever_its_file_format(store: InputStore, tmp_path: Path) -> None:
    first = store.store(as_file(two_halves(), "PNG"))
    again = store.store(as_file(two_halves(), "BMP"))
    other = store.store(as_file(two_halves(98), "PNG"))
    assert first == again
    assert other.id != first.id
    assert sorted(path.name for path in (tmp_path / "inputs").iterdir()) == sorted(
        f"{one.id}.png" for one in (first, other)
    )


def test_an_accepted_image_survives_a_power_cut(
    store: InputStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its content is on disk before it has its name, and its name before anybody is told of it."""
    done: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(handle: int) -> None:
        fsync(handle)
        done.append(("sync", Path(f"/proc/self/fd/{handle}").readlink().name))

    def renamed(part: Path, target: Path) -> Path:
        done.append(("rename", part.name))
        return replace(part, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    stored = store.store(as_file(two_halves(), "PNG"))
    part = done[0][1]
    assert part.startswith(f"{stored.id}.png.")
    assert done == [("sync", part), ("rename", part), ("sync", "inputs")]
    done.clear()
    store.store(as_file(two_halves(), "PNG"))
    assert done == [("sync", "inputs")], "the first upload may have been renamed a moment ago"


def test_a_sideways_photo_is_rotated_upright(store: InputStore) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees clockwise"
    stored = store.store(as_file(two_halves(96, 64), "JPEG", exif=exif, quality=95))
    assert (stored.width, stored.height) == (64, 96)
    pixels = store.load(stored.id).astype(int)
    assert np.abs(pixels[:40] - RED).max() < 12
    assert np.abs(pixels[56:] - BLUE).max() < 12


def test_transparency_is_composited_on_white(store: InputStore) -> None:
    image = Image.new("RGBA", (64, 64), (*RED, 255))
    image.paste((*RED, 0), (0, 0, 64, 32))
    image.paste((0, 0, 0, 128), (0, 32, 32, 64))
    pixels = store.load(store.store(as_file(image, "PNG")).id).astype(int)
    assert (pixels[:32] == 255).all()
    assert (pixels[32:, 32:] == RED).all()
    assert np.abs(pixels[32:, :32] - 127).max() <= 1


@pytest.mark.parametrize("mode", ["L", "P", "LA", "CMYK", "1", "I;16"])
def test_other_kinds_of_pixels_become_rgb(store: InputStore, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((64, 64), 40000, np.uint16))
    else:
        image = Image.new("RGB", (64, 64), (155, 155, 155)).convert(mode, palette=Image.Palette.ADAPTIVE)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    pixels = store.load(store.store(as_file(image, kind)).id).astype(int)
    assert pixels.shape == (64, 64, 3)
    if mode != "1":  # black and white dots
        assert np.abs(pixels - 155).max() <= 3


def test_an_unusable_image_is_refused_with_a_reason(store: InputStore, tmp_path: Path) -> None:
    png = as_file(two_halves(), "PNG")
    bomb = bytearray(png)
    bomb[16:24] = (60000).to_bytes(4) * 2  # width and height in the header, and then its checksum
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4)
    cases = {
        "text": (b"<svg onload=alert(1)>", "Use JPEG"),
        "empty": (b"", r"`end_image` is empty \(0 bytes\)"),
        "gif": (as_file(two_halves(), "GIF"), "a GIF file, which cannot be read. Use JPEG"),
        "cut off": (png[: len(png) // 2], "damaged"),
        "too small": (as_file(two_halves(64, 63), "PNG"), "64x63"),
        "too narrow": (as_file(Image.new("L", (9000, 64)), "PNG"), "9000x64"),
        "too large": (as_file(Image.new("1", (9000, 9000)), "PNG"), "9000x9000"),
        "a bomb": (bytes(bomb), "too large"),
    }
    for name, (raw, says) in cases.items():
        with pytest.raises(InvalidImage, match=says) as caught:
            store.store(raw, "end_image")
        assert caught.value.details == {"field": "end_image"}, name
    with pytest.raises(InvalidImage, match="too large"):
        store.store(bytes(MAX_IMAGE_BYTES + 1))
    assert list((tmp_path / "inputs").iterdir()) == []


@pytest.mark.parametrize("image_id", ["", "x", "../../etc/passwd", "ab" * 32, "AB" * 32, "ab" * 31 + "/a"])
def test_an_unknown_id_is_not_found(store: InputStore, image_id: str) -> None:
    for look in (store.find, store.load, store.path):
        with pytest.raises(InputMissing):
            look(image_id)


def test_an_image_changed_on_disk_is_not_used(store: InputStore, tmp_path: Path) -> None:
    stored = store.store(as_file(two_halves(), "PNG"))
    file = tmp_path / "inputs" / f"{stored.id}.png"
    file.write_bytes(as_file(Image.new("RGB", (96, 64), RED), "PNG"))
    with pytest.raises(InputMissing, match="changed"):
        store.load(stored.id)
    file.write_bytes(b"no picture")
    with pytest.raises(InputMissing):
        store.load(stored.id)


def test_pruning_keeps_what_is_used_or_new(store: InputStore, tmp_path: Path) -> None:
    used, old, new = (store.store(as_file(two_halves(side), "PNG")) for side in (96, 98, 100))
    before = time.time() - SPARE_SECONDS - 1
    for one in (used, old):
        os.utime(tmp_path / "inputs" / f"{one.id}.png", (before, before))
    assert store.prune(lambda asked: asked & {used.id}) == 1
    assert {path.stem for path in (tmp_path / "inputs").iterdir()} == {used.id, new.id}


def test_an_image_named_by_a_request_counts_as_new_again(store: InputStore, tmp_path: Path) -> None:
    stored = store.store(as_file(two_halves(), "PNG"))
    before = time.time() - SPARE_SECONDS - 1
    os.utime(tmp_path / "inputs" / f"{stored.id}.png", (before, before))
    assert store.find(stored.id) == stored
    assert store.prune(lambda _asked: set()) == 0


def test_a_frame_is_cropped_padded_or_stretched_as_asked() -> None:
    wide = np.asarray(two_halves(192, 64))  # twice as wide as the frame below
    cropped = fit_image(wide, 96, 64, Fit.CROP)
    padded = fit_image(wide, 96, 64, Fit.PAD)
    stretched = fit_image(wide, 96, 64, Fit.STRETCH)
    for frame in (cropped, padded, stretched):
        assert (frame.shape, frame.dtype) == ((64, 96, 3), np.uint8)
        assert np.abs(frame[32, 4].astype(int) - RED).max() <= 2
        assert np.abs(frame[32, -4].astype(int) - BLUE).max() <= 2
    assert np.abs(cropped[2, 4].astype(int) - RED).max() <= 2  # fills the frame
    assert (padded[2] == 0).all()  # bars above and below
    assert (padded[-2] == 0).all()
    assert np.abs(stretched[2, 4].astype(int) - RED).max() <= 2
    # A circle stays round unless it is stretched.
    assert fit_image(wide, 192, 64, Fit.CROP) is wide
