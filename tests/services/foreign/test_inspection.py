"""Foreign files are read by a confined process: good clips whole, hostile ones refused before a decoder sees them."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backend.core.errors.requests import ClipRefused
from backend.core.record import RunRecord
from backend.services.foreign.inspection import ClipInspector, ReadingLimits
from backend.services.media.poster import thumbnail
from tests.services.foreign.clip_files import (
    SIDES,
    box,
    clip,
    own_record,
    replaced,
    with_box,
    with_parameters_of,
    with_sides,
)

INSPECTOR = ClipInspector()


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "libsvtav1"])
def test_a_clip_is_decoded_whole_and_its_middle_frame_comes_back(codec: str, tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", codec=codec, tags={"prompt": '{"a": 1}', "comment": "ü"})
    about, pixels = INSPECTOR.clip(path)
    assert (about.kind, about.width, about.height, about.frames, about.fps) == ("clip", *SIDES, 9, 16.0)
    assert about.texts["prompt"] == '{"a": 1}'
    assert about.texts["comment"] == "ü"
    assert about.confined
    assert about.picture == SIDES
    middle = np.frombuffer(pixels, np.uint8).reshape(SIDES[1], SIDES[0], 3)
    wanted = np.roll(np.linspace(0, 255, SIDES[0]), 4)
    inner = slice(16, -16)  # codecs smooth the edge where the gradient begins again
    assert np.abs(middle[48, inner, 1].astype(float) - wanted[inner]).mean() < 8


def test_sound_beside_the_pictures_is_no_obstacle(tmp_path: Path) -> None:
    about, _ = INSPECTOR.clip(clip(tmp_path / "clip.mp4", sound=True))
    assert about.frames == 9


def test_the_usual_names_of_tags_are_read_too(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", tags={"comment": "words", "title": "name"}, any_tag=False)
    about = INSPECTOR.texts(path)
    assert (about.texts["comment"], about.texts["title"]) == ("words", "name")


def _text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def _fragmented(path: Path) -> Path:
    return clip(path, movflags="frag_keyframe+empty_moov")


def _two_videos(path: Path) -> Path:
    other = clip(path.with_name("other.mp4")).read_bytes()
    track = other[other.index(b"trak") - 4 :]
    return with_box(clip(path), "moov", track[: struct.unpack_from(">I", track)[0]])


def _six_tracks(path: Path) -> Path:
    empty = box("trak", box("mdia", box("hdlr", bytes(8) + b"soun" + bytes(12))))
    return with_box(clip(path), "moov", empty * 5)


#: What is tried, and a part of the sentence that answers it.
HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a playlist": (lambda path: _text(path, "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"), "something else"),
    "a list of files": (lambda path: _text(path, "ffconcat version 1.0\nfile /etc/passwd\n"), "something else"),
    "an address": (lambda path: _text(path, "data:video/mp4;base64,AAAA"), "something else"),
    "MagicYUV in AVI": (lambda path: clip(path, codec="magicyuv", form="avi"), "something else"),
    "MagicYUV in MOV": (lambda path: clip(path, codec="magicyuv", form="mov"), "codec that is not read"),
    "MagicYUV in MP4": (lambda path: replaced(clip(path), b"avc1\0\0", b"MAGY\0\0"), "codec that is not read: MAGY"),
    "Matroska": (lambda path: clip(path, form="matroska"), "something else"),
    "encrypted": (lambda path: replaced(clip(path), b"avc1\0\0", b"encv\0\0"), "encrypted"),
    "a part of an encryption": (lambda path: with_box(clip(path), "stbl", box("saiz", bytes(9))), "encrypted"),
    "keys of an encryption": (lambda path: with_box(clip(path), "moov", box("pssh", bytes(24))), "encrypted"),
    "a packed index": (lambda path: with_box(clip(path), "moov", box("cmov", bytes(8))), "not read here: cmov"),
    "huge in the header": (lambda path: with_sides(clip(path), 65500, 65500), "65500x65500"),
    "tiny": (lambda path: with_sides(clip(path), 1, 1), "1x1"),
    "huge in the stream": (lambda path: with_parameters_of(clip(path), 16000, 16000), "decoded|another size"),
    "two videos": (_two_videos, "this file has 2"),
    "many tracks": (_six_tracks, "more than 4 tracks"),
    "fragments": (_fragmented, "fragments"),
    "another file": (lambda path: replaced(clip(path), b"url \0\0\0\1", b"url \0\0\0\0"), "refers to another file"),
    "nothing": (lambda path: _text(path, ""), "something else"),
    "only a name": (lambda path: _text(path, "\0\0\0\x18ftypisom"), "cut off"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_plain_clip_is_refused_with_a_reason(name: str, tmp_path: Path) -> None:
    make, sentence = HOSTILE[name]
    began = time.monotonic()
    with pytest.raises(ClipRefused, match=sentence):
        INSPECTOR.clip(make(tmp_path / "clip.mp4"))
    assert time.monotonic() - began < 20


def test_a_million_frames_are_refused_by_their_number(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4")
    raw = bytearray(path.read_bytes())
    struct.pack_into(">II", raw, raw.index(b"stsz") + 8, 1, 1_000_000)  # of one byte each
    path.write_bytes(raw)
    with pytest.raises(ClipRefused, match="too long: 1000000 frames"):
        INSPECTOR.clip(path)


def test_no_frames_are_refused(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4")
    raw = bytearray(path.read_bytes())
    struct.pack_into(">I", raw, raw.index(b"stsz") + 12, 0)
    path.write_bytes(raw)
    with pytest.raises(ClipRefused, match="no frames"):
        INSPECTOR.clip(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("movflags", ["", "faststart"])
def test_a_clip_that_was_cut_off_is_refused(share: float, movflags: str, tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", movflags=movflags, frames=33)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(ClipRefused):
        INSPECTOR.clip(path)


def test_a_clip_with_noise_in_its_index_never_ends_badly(tmp_path: Path) -> None:
    """Whatever is wrong with it, the answer is a sentence or a clip, in time."""
    good = clip(tmp_path / "clip.mp4", movflags="faststart").read_bytes()
    dice = np.random.default_rng(22)
    index = good.index(b"mdat")
    refused = 0
    for _ in range(24):
        raw = bytearray(good)
        for at in dice.integers(8, index, 6):
            raw[at] = dice.integers(256)
        path = tmp_path / "noise.mp4"
        path.write_bytes(raw)
        try:
            about, _ = INSPECTOR.clip(path)
            assert about.frames <= 9
        except ClipRefused:
            refused += 1
    assert 0 < refused <= 24


def test_a_clip_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", sides=(1280, 720), frames=250, noise=True, preset="ultrafast")
    began = time.monotonic()
    with pytest.raises(ClipRefused, match="takes too long"):
        ClipInspector(ReadingLimits(cpu_seconds=1)).clip(path)
    with pytest.raises(ClipRefused, match="takes too long"):
        ClipInspector(ReadingLimits(wall_seconds=0.2)).clip(path)
    assert time.monotonic() - began < 30


def test_a_clip_that_takes_too_much_memory_is_given_up(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", sides=(4096, 4096), frames=3, preset="ultrafast")
    with pytest.raises(ClipRefused, match=r"too much memory|cannot be decoded"):
        ClipInspector(ReadingLimits(memory_bytes=220 * 2**20)).clip(path)
    assert INSPECTOR.clip(path)[0].frames == 3


def test_texts_are_read_within_bounds(tmp_path: Path) -> None:
    long = "x" * (2**20 + 1)
    about = INSPECTOR.texts(clip(tmp_path / "clip.mp4", tags={"prompt": long, "workflow": "short"}))
    assert about.texts["workflow"] == "short"
    assert "prompt" not in about.texts
    assert any("was not read" in note for note in about.notes)
    many = {f"tag{number}": "x" for number in range(100)}
    assert len(INSPECTOR.texts(clip(tmp_path / "many.mp4", tags=many)).texts) == 64


def test_a_still_picture_of_ours_carries_the_request(tmp_path: Path) -> None:
    record = RunRecord.from_json({"format": 1, "product": "wan22", "version": "1", "request": {"prompt": "ü"}})
    path = tmp_path / "still.jpg"
    path.write_bytes(thumbnail(np.zeros((96, 128, 3), np.uint8), record))
    about = INSPECTOR.texts(path)
    assert about.kind == "picture"
    assert '"request": {"prompt": "\\u00fc"}' in about.texts["comment"]
    with pytest.raises(ClipRefused, match="picture cannot be put into the gallery"):
        INSPECTOR.clip(path)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_every_kind_of_text_in_a_png_is_read_and_a_bomb_is_not(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(path)
    raw = path.read_bytes()
    end = raw.index(b"IEND") - 4
    bomb = zlib.compress(bytes(50 * 2**20))
    added = (
        _chunk(b"tEXt", b"parameters\0Steps: 20")
        + _chunk(b"zTXt", b"packed\0\0" + zlib.compress(b"inside"))
        + _chunk(b"iTXt", "prompt\0\0\0de\0Wort\0grün".encode())
        + _chunk(b"zTXt", b"bomb\0\0" + bomb)
        + _chunk(b"caBX", b"manifest")
    )
    path.write_bytes(raw[:end] + added + raw[end:])
    about = INSPECTOR.texts(path)
    assert about.texts == {"parameters": "Steps: 20", "packed": "inside", "prompt": "grün"}
    assert about.manifest
    assert any("bomb" in note for note in about.notes)


def test_a_comment_of_exif_is_read(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "described"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + "Wörter".encode("utf-16-le")
    path = tmp_path / "picture.jpg"
    Image.new("RGB", (8, 8)).save(path, exif=exif)
    texts = INSPECTOR.texts(path).texts
    assert texts["description"] == "described"
    assert texts["comment"] == "Wörter"


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_picture_that_was_cut_off_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.new("RGB", (64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(ClipRefused, match="cut off"):
        INSPECTOR.texts(path)


def test_a_manifest_of_the_origin_is_seen_and_not_trusted(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4", tags={"wan22": own_record({"prompt": "x"})})
    manifest = bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + b"anything"
    path.write_bytes(path.read_bytes() + box("uuid", manifest))
    assert INSPECTOR.texts(path).manifest
