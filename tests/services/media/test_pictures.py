"""More than 300 images of every format, depth, mode, orientation and profile, compared with arithmetic of their own."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from backend.core.errors.requests import InvalidImage
from backend.services.media.pictures import read_picture
from tests.services.media.picture_files import (
    BLUE,
    HEIC_P3,
    HEIC_SECOND,
    HEIC_TURNED,
    RED,
    SPACES,
    Array,
    bmp,
    chunk,
    cmyk_profile,
    grey_profile,
    in_srgb,
    lab_to_srgb,
    on_white,
    patches,
    png,
    power,
    rgb_profile,
    saved,
    srgb_to_light,
    tiff,
)

LOSSLESS, LOSSY = ("PNG", "TIFF", "WEBP"), ("JPEG", "AVIF")


@dataclass(frozen=True)
class Sample:
    """A file and the pixels that have to arrive."""

    name: str
    raw: bytes
    expected: Array  #: [height, width, 3], or one channel for grey
    tolerance: int = 1
    note: str = ""  #: part of the one sentence in the adjustments
    may_refuse: bool = False  #: a variant that may be refused, but not be read wrongly


def png_depths() -> Iterator[Sample]:
    """Every depth and colour type of PNG, with and without transparency."""
    for seed in range(4):
        for depth in (1, 2, 4, 8, 16):
            top = 2**depth - 1
            grey = patches(seed, 0, top, 1)
            level = grey / top * 255
            yield Sample(f"grey {depth} {seed}", png(grey, depth, 0), level)
            # One level away from the transparent one is opaque.
            grey[:16], grey[16:32] = min(seed, top), min(seed + 1, top)
            key = chunk(b"tRNS", struct.pack(">H", min(seed, top)))
            clear = grey == min(seed, top)
            yield Sample(
                f"grey {depth} with a key {seed}", png(grey, depth, 0, key), np.where(clear, 255, grey / top * 255)
            )
        for depth in (8, 16):
            top = 2**depth - 1
            for channels, colour in ((3, 2), (2, 4), (4, 6)):
                samples = patches(seed, 0, top, channels)
                expected = samples / top * 255
                if channels != 3:
                    expected = on_white(expected[..., :-1], samples[..., -1:] / top)
                yield Sample(f"{depth} {channels} {seed}", png(samples, depth, colour), expected, 2)
            samples = patches(seed, 0, top, 3)
            samples[:32], samples[32:48] = (top, seed, 7), (top, seed, 8)
            key = chunk(b"tRNS", struct.pack(">3H", top, seed, 7))
            clear = (samples == (top, seed, 7)).all(-1, keepdims=True)
            expected = np.where(clear, 255, samples / top * 255)
            yield Sample(f"RGB {depth} with a key {seed}", png(samples, depth, 2, key), expected)
        for depth in (1, 2, 4, 8):
            entries = 2**depth
            palette, alpha = patches(seed + 9, side=1)[:16, :16].reshape(-1, 3)[:entries], np.full(entries, 255)
            alpha[:2] = (0, 100 + seed)
            index = patches(seed, 0, entries - 1, 1)
            plte, trns = (chunk(b"PLTE", palette.astype(np.uint8).tobytes()), chunk(b"tRNS", bytes(alpha.tolist())))
            shown = palette[index[..., 0]]
            yield Sample(f"palette {depth} {seed}", png(index, depth, 3, plte), shown)
            expected = on_white(shown, alpha[index] / 255)
            yield Sample(f"palette {depth} with alpha {seed}", png(index, depth, 3, plte, trns), expected)


def turned(pixels: Array, orientation: int) -> Array:
    """Show pixels as EXIF says."""
    steps: dict[int, Callable[[Array], Array]] = {
        2: lambda one: one[:, ::-1],
        3: lambda one: one[::-1, ::-1],
        4: lambda one: one[::-1],
        5: lambda one: one.swapaxes(0, 1),
        6: lambda one: np.rot90(one, -1),
        7: lambda one: one[::-1, ::-1].swapaxes(0, 1),
        8: lambda one: np.rot90(one),
    }
    return steps.get(orientation, lambda one: one)(pixels)


def orientations() -> Iterator[Sample]:
    """Every orientation in every format."""
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        exif_bytes = exif.tobytes()  # savers take things out of the object
        pixels = patches(orientation, 60, 200)
        expected = turned(pixels, orientation)
        for kind in (*LOSSLESS, *LOSSY):
            raw = saved(pixels, kind, exif=exif_bytes)
            yield Sample(f"{kind} turned {orientation}", raw, expected, 8 if kind in LOSSY else 1)
        # With what makes other ways through the decoder: alpha, a key at 16 bits, the chunk behind the pixels.
        tail = chunk(b"eXIf", exif_bytes.removeprefix(b"Exif\0\0"))
        key = chunk(b"tRNS", struct.pack(">3H", 1, 1, 1))
        yield Sample(f"16 bits turned {orientation}", png(pixels * 257, 16, 2, key, after=tail), expected)
        text = b"\nexif\n%8d\n" % len(exif_bytes) + exif_bytes.hex().encode() + b"\n"
        profile = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))
        yield Sample(f"text turned {orientation}", png(pixels, 8, 2, profile), expected)


def profiles() -> Iterator[Sample]:
    """Embedded profiles of RGB, grey and CMYK in every format that has them."""
    for seed, (name, (primaries, curve)) in enumerate(SPACES.items()):
        pixels = patches(seed, 40, 220)
        expected = in_srgb(pixels, primaries, curve)
        for kind in (*LOSSLESS, *LOSSY):
            raw = saved(pixels, kind, icc_profile=rgb_profile(name))
            yield Sample(f"{kind} in {name}", raw, expected, 14 if kind in LOSSY else 3)
        yield Sample(f"BMP in {name}", bmp(pixels[..., ::-1], 24, profile=rgb_profile(name)), expected, 3)
        alpha = patches(seed, 0, 255, 1)
        with_alpha = np.concatenate([pixels, alpha], axis=-1)
        for kind in LOSSLESS:
            raw = saved(with_alpha, kind, icc_profile=rgb_profile(name))
            yield Sample(f"{kind} in {name} with alpha", raw, on_white(expected, alpha / 255), 3)
    for exponent in (1.0, 1.8, 2.2, 2.6):
        pixels = patches(3, 20, 230, 1)
        expected = in_srgb(pixels.repeat(3, -1), SPACES["sRGB"][0], power(exponent))
        for kind in ("PNG", "TIFF", "JPEG"):
            raw = saved(pixels[..., 0], kind, icc_profile=grey_profile(exponent))
            yield Sample(f"{kind} grey {exponent}", raw, expected, 6 if kind == "JPEG" else 2)
    inks = np.array([[int(bit) for bit in f"{one:04b}"] for one in range(16)]) * 255
    labs = np.random.default_rng(5).integers((30, -20, -20), (80, 21, 21), (16, 3)).astype(float)
    labs[0], labs[1::2] = (100, 0, 0), 0  # paper, and whatever has black ink
    for at in range(16):
        pixels = np.broadcast_to(inks[at], (64, 64, 4))
        expected = np.broadcast_to(lab_to_srgb(np.rint(labs[at] * (2.55, 1, 1)) / (2.55, 1, 1)), (64, 64, 3))
        for kind in ("TIFF", "JPEG"):
            raw = saved(pixels, kind, "CMYK", icc_profile=cmyk_profile(labs))
            yield Sample(f"{kind} CMYK {at}", raw, expected, 3)
    for seed, kind in enumerate(("TIFF", "TIFF", "JPEG", "JPEG")):
        ink = patches(seed, 0, 255, 4)
        plain = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
        yield Sample(f"{kind} CMYK alone {seed}", saved(ink, kind, "CMYK"), plain, 6, note="CMYK without")


def colour_chunks() -> Iterator[Sample]:
    """The colour chunks of PNG, alone and against each other."""
    pixels = patches(11, 40, 220)

    def gama(exponent: float) -> bytes:
        return chunk(b"gAMA", struct.pack(">I", round(1e5 / exponent)))

    def chrm(name: str) -> bytes:
        return chunk(b"cHRM", struct.pack(">8I", *(round(one * 1e5) for one in SPACES[name][0])))

    def iccp(name: str) -> bytes:
        return chunk(b"iCCP", b"p\0\0" + zlib.compress(rgb_profile(name)))

    for exponent in (1.0, 1.5, 1.8, 2.6):
        for name, (primaries, _) in SPACES.items():
            expected = in_srgb(pixels, primaries, power(exponent))
            yield Sample(f"gAMA {exponent} cHRM {name}", png(pixels, 8, 2, gama(exponent), chrm(name)), expected, 3)
    srgb = chunk(b"sRGB", b"\0")
    p3 = in_srgb(pixels, *SPACES["Display P3"])
    yield Sample("sRGB before gAMA and cHRM", png(pixels, 8, 2, srgb, gama(1.0), chrm("Rec. 2020")), pixels)
    yield Sample("the gamma of sRGB", png(pixels, 8, 2, gama(2.2), chrm("sRGB")), pixels)
    yield Sample("iCCP before sRGB", png(pixels, 8, 2, srgb, iccp("Display P3")), p3, 3)
    yield Sample("iCCP before gAMA", png(pixels, 8, 2, gama(1.0), iccp("Display P3")), p3, 3)
    names = {1: "sRGB", 9: "Rec. 2020", 12: "Display P3"}
    curves = {4: power(2.2), 5: power(2.8), 8: power(1.0), 13: srgb_to_light}
    for primaries, name in names.items():
        for transfer, curve in curves.items():
            cicp = chunk(b"cICP", bytes([primaries, transfer, 0, 1]))
            expected = in_srgb(pixels, SPACES[name][0], curve)
            yield Sample(f"cICP {primaries} {transfer}", png(pixels, 8, 2, cicp, iccp("swapped")), expected, 3)
        # Diffuse white of 203 cd/m² is 58 % of PQ and 75 % of HLG.
        for transfer, white in ((16, 0.5807), (18, 0.75)):
            level = np.full((64, 64, 3), round(white * 255))
            cicp = chunk(b"cICP", bytes([primaries, transfer, 0, 1]))
            yield Sample(f"cICP {primaries} {transfer}", png(level, 8, 2, cicp), np.full((64, 64, 3), 255), 3, "is HDR")
    impossible = chunk(b"cHRM", bytes(32))
    yield Sample("impossible cHRM", png(pixels, 8, 2, impossible), pixels)


def tiff_depths() -> Iterator[Sample]:
    """Integers, floats and signed numbers in TIFF, in both byte orders, black or white at zero."""
    for order in "<>":
        for photometric in (0, 1):
            for seed in range(2):
                part = patches(seed, 0, 1000, 1) / 1000
                expected = (part if photometric else 1 - part) * 255
                name = f"{order}{photometric} {seed}"
                for dtype in (np.uint8, np.uint16, np.uint32):
                    samples = (part * np.iinfo(dtype).max).astype(dtype)
                    yield Sample(f"{dtype} {name}", tiff(samples, photometric, 1, order=order), expected, 1, "", True)
                for dtype in (np.float32, np.float64):
                    raw = tiff(part.astype(dtype), photometric, 3, order=order)
                    yield Sample(f"{dtype} {name}", raw, expected, 1, "", True)
                extra = [(340, "f", [-50.0]), (341, "f", [150.0])]
                raw = tiff((part * 200 - 50).astype(np.float32), photometric, 3, order=order, extra=extra)
                yield Sample(f"declared {name}", raw, expected, 1, "", True)
                raw = tiff((part * 20000 - 10000).astype(np.int16), photometric, 2, order=order)
                yield Sample(f"signed {name}", raw, expected, 1, "", True)
        for seed in range(2):
            for dtype in (np.uint8, np.uint16):
                top = np.iinfo(dtype).max
                samples = patches(seed, 0, top, 3)
                yield Sample(f"RGB {dtype} {seed}", tiff(samples.astype(dtype), 2, 1, order=order), samples / top * 255)
    part = patches(4, 0, 1000, 1) / 1000
    yield Sample("float", tiff(part.astype(np.float32), 1, 3), part * 255)
    yield Sample("16 bits", tiff((part * 65535).astype(np.uint16), 1, 1), part * 255)
    for low, high in ((0.0, 5e9), (-1e-3, 2.0**32 - 1)):
        extra = [(340, "f", [low]), (341, "f", [high])]
        raw = tiff((part * (high - low) + low).astype(np.float32), 1, 3, extra=extra)
        yield Sample(f"from {low} to {high}", raw, part * 255)
    for low, high in ((float("nan"), 1.0), (0.0, float("inf")), (3.0, 2.0), (0.2, 0.7)):
        extra = [(340, "f", [low]), (341, "f", [high])]
        yield Sample(f"no range {low}", tiff(part.astype(np.float32), 1, 3, extra=extra), part * 255)
    signed = [(340, "i", [-10000]), (341, "i", [10000])]
    yield Sample("signed", tiff((part * 20000 - 10000).astype(np.int32), 1, 2, extra=signed), part * 255)
    yield Sample("32 bits", tiff((part * (2**32 - 1)).astype(np.uint32), 1, 1), part * 255)
    part[:16] = 1.5
    part[16:32, :16] = np.nan
    expected = np.nan_to_num(np.clip(part, 0, 1)) * 255
    yield Sample("highlights", tiff(part.astype(np.float32), 1, 3), expected, 1, "exceeds black or white")


def alphas() -> Iterator[Sample]:
    """Alpha in every format that has it; alpha that nobody wrote in BMP."""
    for seed in range(4):
        pixels, alpha = patches(seed, 60, 200), patches(seed + 1, 0, 255, 1)
        expected = on_white(pixels, alpha / 255)
        both = np.concatenate([pixels, alpha], axis=-1)
        for kind in (*LOSSLESS, "AVIF"):
            yield Sample(f"{kind} {seed}", saved(both, kind), expected, 8 if kind == "AVIF" else 1)
        premultiplied = np.rint(pixels * (alpha / 255))
        files = {0: pixels, 1: expected, 2: expected}
        for meaning, shown in files.items():
            colours = premultiplied if meaning == 1 else pixels
            samples = np.concatenate([colours, alpha], axis=-1).astype(np.uint8)
            yield Sample(f"TIFF {meaning} {seed}", tiff(samples, 2, 1, extra=[(338, "H", [meaning])]), shown, 2)
        masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
        swapped = np.concatenate([pixels[..., ::-1], alpha], axis=-1)
        none = np.concatenate([pixels[..., ::-1], alpha * 0], axis=-1)
        for upright in (False, True):
            yield Sample(f"BMP {seed} {upright}", bmp(swapped, 32, masks, upright=upright), expected)
            yield Sample(f"BMP without alpha {seed} {upright}", bmp(none, 32, masks, upright=upright), pixels)
        yield Sample(f"BMP without masks {seed}", bmp(none, 32), pixels)
    clear = np.zeros((64, 64, 4), np.uint8)
    yield Sample("a clear PNG", saved(clear, "PNG"), np.full((64, 64, 3), 255))


def metadata() -> Iterator[Sample]:
    """Metadata that is large or damaged, beside sound pixels."""
    pixels = patches(21)
    large = zlib.compress(b"w" * 3_000_000)
    parts = {
        "zTXt": chunk(b"zTXt", b"workflow\0\0" + large),
        "iTXt": chunk(b"iTXt", b"workflow\0\1\0\0\0" + large),
        "plain iTXt": chunk(b"iTXt", b"prompt\0\0\0\0\0" + b"w" * 2_000_000),
        "tEXt": chunk(b"tEXt", b"prompt\0" + b"w" * 2_000_000),
        "100 zTXt": b"".join(chunk(b"zTXt", b"k%d\0\0" % one + zlib.compress(b"w" * 900_000)) for one in range(100)),
        "damaged zTXt": chunk(b"zTXt", b"workflow\0\0" + large[:-100]),
        "unknown method": chunk(b"zTXt", b"workflow\0\7" + large),
        "wrong checksum": chunk(b"tEXt", b"a\0b")[:-4] + b"1234",
        "orientation": chunk(b"zTXt", b"Raw profile type exif\0\0" + large),
        "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + large),
        "damaged eXIf": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
        "no eXIf": chunk(b"eXIf", b"??"),
        "short gAMA": chunk(b"gAMA", b"1"),
        "short cHRM": chunk(b"cHRM", b"1"),
        "short tRNS": chunk(b"tRNS", b"1"),
        "short acTL": chunk(b"acTL", b"1"),
        "unknown": chunk(b"vpAg", b"1" * 5000),
    }
    for name, part in parts.items():
        yield Sample(f"{name} before", png(pixels, 8, 2, part), pixels)
        yield Sample(f"{name} behind", png(pixels, 8, 2, after=part), pixels)
    whole = png(pixels, 8, 2, after=chunk(b"tEXt", b"prompt\0" + b"w" * 100))
    for left in (4, 11, 12, 60):
        yield Sample(f"cut {left} bytes before the end", whole[:-left], pixels)
    padded = rgb_profile("Display P3") + bytes(3_000_000)
    p3 = in_srgb(pixels, *SPACES["Display P3"])
    yield Sample("a large profile", png(pixels, 8, 2, chunk(b"iCCP", b"p\0\0" + zlib.compress(padded))), p3, 4)
    for name, profile in (("no profile", b"nonsense"), ("a profile of CMYK", cmyk_profile(np.zeros((16, 3))))):
        for kind in LOSSLESS:
            raw = saved(pixels, kind, icc_profile=profile)
            yield Sample(f"{name} in {kind}", raw, pixels, 1, "cannot be used")
        yield Sample(f"{name} in JPEG", saved(pixels, "JPEG", icc_profile=profile), pixels, 6, "cannot be used")
    cut = chunk(b"iCCP", b"p\0\0" + zlib.compress(rgb_profile("sRGB"))[:50])
    yield Sample("half a profile", png(pixels, 8, 2, cut), pixels, 1, "damaged colour profile")
    yield Sample("damaged EXIF", saved(pixels, "JPEG", exif=b"Exif\0\0" + b"\xff" * 40), pixels, 6)
    exif = Image.Exif()
    exif[0x0112] = 77
    yield Sample("an impossible orientation", saved(pixels, "JPEG", exif=exif), pixels, 6)


def animations() -> Iterator[Sample]:
    """Files with several frames or pages."""
    frames = [Image.fromarray(patches(seed, 60, 200).astype(np.uint8)) for seed in (31, 32, 33)]
    first = np.asarray(frames[0])
    options = {
        "WEBP": {"lossless": True},
        "PNG": {},
        "TIFF": {},
        "MPO": {"quality": 100, "subsampling": 0},
        "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    }
    for kind, more in options.items():
        file = io.BytesIO()
        frames[0].save(file, kind, save_all=True, append_images=frames[1:], **more)
        tolerance = {"MPO": 8, "AVIF": 12}.get(kind, 1)
        yield Sample(f"{kind} with frames", file.getvalue(), first, tolerance, "several frames or pages; number 1 is")
    file = io.BytesIO()
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:], default_image=True)
    yield Sample("still PNG with frames", file.getvalue(), first, 1, "still picture of the file")


def other_declarations() -> Iterator[Sample]:
    """The colour coding of AVIF and HEIC, what cameras write into EXIF, and HEIC itself."""
    names = {1: "sRGB", 9: "Rec. 2020", 12: "Display P3"}
    curves = {4: power(2.2), 8: power(1.0), 13: srgb_to_light}
    pixels = patches(41, 80, 180)
    avif = saved(pixels, "AVIF")
    for primaries, name in names.items():
        for transfer, curve in curves.items():
            coding = b"colrnclx" + struct.pack(">2H", primaries, transfer)
            raw = avif.replace(b"colrnclx" + struct.pack(">2H", 1, 13), coding)
            yield Sample(f"AVIF {primaries} {transfer}", raw, in_srgb(pixels, SPACES[name][0], curve), 14)
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    yield Sample("a camera's Adobe RGB", saved(pixels, "JPEG", exif=exif), in_srgb(pixels, *SPACES["Adobe RGB"]), 14)
    halves = np.array([RED, BLUE]).repeat(64, 0)[None].repeat(64, 0)
    yield Sample("HEIC turned", HEIC_TURNED, turned(halves, 6), 6)
    yield Sample("HEIC in P3", HEIC_P3, in_srgb(halves, *SPACES["Display P3"]), 6)
    yield Sample("HEIC, the second", HEIC_SECOND, np.full((64, 64, 3), (0, 200, 0)), 6, "number 2 is used")


GROUPS = (
    png_depths,
    orientations,
    profiles,
    colour_chunks,
    tiff_depths,
    alphas,
    metadata,
    animations,
    other_declarations,
)


def test_there_are_enough_samples() -> None:
    assert sum(1 for group in GROUPS for _ in group()) >= 300


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_pixels_arrive_as_the_file_declares_them(group: Callable[[], Iterator[Sample]]) -> None:
    wrong = []
    for sample in group():
        try:
            picture = read_picture(sample.raw, "image")
        except InvalidImage as error:
            if not sample.may_refuse or (
                "not supported" not in error.message and "does not declare" not in error.message
            ):
                wrong.append(f"{sample.name}: {error.message}")
            continue
        if picture.pixels.shape[:2] != sample.expected.shape[:2]:
            wrong.append(f"{sample.name}: shape {picture.pixels.shape}")
            continue
        off = float(np.abs(picture.pixels - sample.expected.astype(float)).max())
        if off > sample.tolerance:
            wrong.append(f"{sample.name}: off by {off:.0f}")
        if len(picture.notes) != bool(sample.note) or sample.note not in "".join(picture.notes):
            wrong.append(f"{sample.name}: notes {picture.notes}")
    assert wrong == []


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_photo_of_48_megapixels_is_reduced(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8064, 6048), (200, 60, 40)).save(file, kind, **({"compress_level": 1} if kind == "PNG" else {}))
    started = time.monotonic()
    picture = read_picture(file.getvalue(), "end_image")
    assert time.monotonic() - started < 30
    assert picture.pixels.shape == (3072, 4096, 3)
    assert np.abs(picture.pixels[100, 100].astype(int) - (200, 60, 40)).max() <= 2
    assert picture.notes == ("end_image of 8064x6048 was reduced to 4096x3072",)


@pytest.mark.parametrize("seed", range(4))
def test_a_file_cut_within_its_pixels_is_refused(seed: int) -> None:
    raw = png(patches(seed, side=1), 8, 2)
    for left in (24, 30, 31, 40, 3000):
        with pytest.raises(InvalidImage, match="cut off"):
            read_picture(raw[:-left], "image")


@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (20000, 20000), (2**31 - 1, 64), (70000, 1200)])
def test_a_hostile_size_is_refused_before_decoding(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    raw = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    small = saved(patches(1), "BMP")
    sized = small[:18] + struct.pack("<2i", width, height) + small[26:]
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    for one in (raw, sized):
        with pytest.raises(InvalidImage, match="80 megapixels"):
            read_picture(one, "image")


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"GIF89a" + bytes(20), "GIF"),
        (b"8BPS" + bytes(20), "Photoshop"),
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x1cftypavif" + bytes(30), "AVIF file cannot be read: it is damaged"),
        (b"\0\0\0\x1cftypheic" + bytes(30), "HEIC file cannot be read: it is damaged"),
        (tiff(patches(1).astype(np.float32), 2, 3), "variant that is not supported"),
        (tiff((patches(1, channels=1) * 3).astype(np.float32), 1, 3), "does not declare which are black and white"),
        (tiff(patches(1, channels=1).astype(np.int32), 1, 2), "does not declare which values are black and white"),
    ],
)
def test_a_refusal_names_the_format_and_the_reason(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidImage, match=says) as caught:
        read_picture(raw, "image")
    assert caught.value.details == {"field": "image"}
