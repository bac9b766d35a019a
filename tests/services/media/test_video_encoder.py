"""Real files, read back with a real decoder: format, colours, metadata, failures."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from backend.core.errors.generation import EncodingFailed
from backend.core.errors.surroundings import StorageFull
from backend.services.media.poster import thumbnail
from backend.services.media.video_encoder import VideoEncoder, read_metadata

#: The colours of the moving shapes and of their backgrounds.
COLOURS = [
    (220, 40, 40),
    (40, 180, 70),
    (50, 90, 230),
    (240, 210, 50),
    (150, 60, 190),
    (245, 140, 40),
    (245, 245, 245),
    (60, 210, 220),
    (12, 12, 16),
    (120, 120, 125),
    (18, 28, 70),
    (240, 170, 190),
    (20, 95, 95),
]


def clip(width: int = 96, height: int = 96) -> np.ndarray:
    """One frame per colour, containing a square of another colour."""
    frames = np.empty((len(COLOURS), height, width, 3), np.uint8)
    for index, colour in enumerate(COLOURS):
        frames[index] = colour
        frames[index, height // 3 : height * 2 // 3, width // 3 : width * 2 // 3] = COLOURS[index - 4]
    return frames


def encode(
    path: Path, frames: np.ndarray, fps: float = 8.0, metadata: dict[str, Any] | None = None, crf: int = 17
) -> None:
    with VideoEncoder(path, frames.shape[2], frames.shape[1], fps, crf=crf) as encoder:
        encoder.write(frames[:1])
        for start in range(1, len(frames), 4):
            encoder.write(frames[start : start + 4])
        encoder.finish(metadata or {"hello": "world"})


def noise(width: int, height: int) -> np.ndarray:
    """Nine frames of noisy coloured blocks that drift to the right."""
    rng = np.random.default_rng(5)
    wide = rng.integers(60, 196, (height // 8, width // 8 + 9, 3)).repeat(8, 0).repeat(8, 1)
    grain = rng.integers(-40, 40, (9, height, width, 3))
    return np.stack([wide[:, 3 * i : 3 * i + width] + grain[i] for i in range(9)]).clip(0, 255).astype(np.uint8)


def digests_elsewhere(folder: Path, cores: str = "", **env: str) -> list[str]:
    """Encode `noise` in several sizes in a separate process and return the SHA-256 of the files."""
    code = (
        "import hashlib, os, sys; from pathlib import Path\n"
        "if sys.argv[2]: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "from tests.services.media.test_video_encoder import encode, noise\n"
        "for size in [(64, 64), (160, 96), (192, 160), (320, 192)]:\n"
        "    path = Path(sys.argv[1])\n"
        "    encode(path, noise(*size))\n"
        "    print(hashlib.sha256(path.read_bytes()).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(folder / "clip.mp4"), cores]
    root, env = Path(__file__).parents[3], os.environ | env
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=root, env=env)
    return done.stdout.split()


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def boxes(path: Path) -> list[str]:
    """The names of the file's outermost boxes, in order."""
    content, names, offset = path.read_bytes(), [], 0
    while offset < len(content):
        size, name = struct.unpack_from(">I4s", content, offset)
        names.append(name.decode())
        offset += size
    return names


def test_the_file_is_what_browsers_play(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4.part"
    encode(path, clip())
    with av.open(str(path)) as container:
        (stream,) = container.streams
        context = stream.codec_context
        assert (context.name, context.pix_fmt, stream.width, stream.height) == ("h264", "yuv420p", 96, 96)
        assert (stream.frames, stream.average_rate) == (13, 8)
        assert float(stream.duration * stream.time_base) == pytest.approx(13 / 8)
        bt709 = 1
        assert (context.colorspace, context.color_primaries, context.color_trc) == (bt709, bt709, bt709)
        assert context.color_range == 1, "TV range"
    order = boxes(path)
    assert order.index("moov") < order.index("mdat"), "the index must come first, or streaming has to wait"


def test_colours_survive_encoding(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    frames = clip()
    encode(path, frames)
    back = decode(path).astype(int)
    for index, colour in enumerate(COLOURS):
        assert np.abs(back[index, 4:24, 4:24] - colour).max() <= 4
        assert np.abs(back[index, 40:56, 40:56] - COLOURS[index - 4]).max() <= 4


def test_detail_survives_too(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    frame = np.stack([np.tile(ramp, (96, 1)), np.tile(ramp[:, None], (1, 96)), np.full((96, 96), 90, np.uint8)], -1)
    path = tmp_path / "clip.mp4"
    encode(path, np.repeat(frame[None], 9, axis=0))
    error = np.abs(decode(path).astype(int) - frame).mean()
    assert error < 2.5


@pytest.mark.parametrize(("width", "height"), [(97, 96), (96, 65), (33, 31)])
def test_odd_sides_are_padded_not_scaled(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "clip.mp4"
    frames = clip(width, height)
    encode(path, frames)
    back = decode(path)
    assert back.shape == (13, height + height % 2, width + width % 2, 3)
    assert np.abs(back[0, :4, :4].astype(int) - COLOURS[0]).max() <= 5
    assert np.abs(back[0, -4:, -4:].astype(int) - COLOURS[0]).max() <= 5


@pytest.mark.parametrize(("fps", "expected"), [(16.0, 16), (24.0, 24), (29.97, pytest.approx(29.97, abs=1e-4)), (1, 1)])
def test_the_frame_rate_is_as_requested(tmp_path: Path, fps: float, expected: object) -> None:
    path = tmp_path / "clip.mp4"
    encode(path, clip(), fps=fps)
    with av.open(str(path)) as container:
        assert float(container.streams.video[0].average_rate) == expected


def test_lower_quality_gives_a_smaller_and_less_exact_file(tmp_path: Path) -> None:
    frames = noise(64, 64)
    sizes, errors = [], []
    for crf in (1, 17, 40):
        path = tmp_path / f"{crf}.mp4"
        encode(path, frames, crf=crf)
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.profile == "High", "what every browser decodes"
        sizes.append(path.stat().st_size)
        errors.append(np.abs(decode(path).astype(int) - frames).mean())
    assert sizes[0] > sizes[1] > sizes[2]
    assert errors[0] < errors[1] < errors[2]


def test_the_same_frames_give_the_same_bytes_whatever_memory_contents_and_cores(
    tmp_path: Path,
) -> None:
    """glibc fills new memory as MALLOC_PERTURB_ says, which reveals an encoder that reads uninitialised memory."""
    here = digests_elsewhere(tmp_path)
    assert len(set(here)) == 4
    assert digests_elsewhere(tmp_path, MALLOC_PERTURB_="85") == here
    assert digests_elsewhere(tmp_path, MALLOC_PERTURB_="170") == here
    if hasattr(os, "sched_setaffinity"):
        assert digests_elsewhere(tmp_path, cores="one") == here


def test_a_single_frame_is_a_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode(path, clip()[:1])
    assert decode(path).shape == (1, 96, 96, 3)


def test_metadata_round_trips(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    record = {
        "format": 1,
        "prompt": 'ein "roter" Kreis; 色调艳丽，过曝 🎬 \\ \n = # end',
        "numbers": [0.1, 1e-9, 4294967295, None, True],
        "long": "x" * 20_000,
    }
    encode(path, clip(), metadata=record)
    assert read_metadata(path) == record
    with av.open(str(path)) as container:
        assert json.loads(container.metadata["wan22"]) == record


def test_metadata_may_be_given_before_the_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with VideoEncoder(path, 96, 96, 8.0, {"early": 1}) as encoder:
        encoder.write(clip())
        encoder.finish()
    assert read_metadata(path) == {"early": 1}


def test_files_from_other_programs_have_no_metadata(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    assert read_metadata(text) is None
    assert read_metadata(tmp_path / "missing.mp4") is None
    foreign = tmp_path / "foreign.mp4"
    with av.open(str(foreign), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    assert read_metadata(foreign) is None


def test_a_full_disk_is_reported_as_such(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4.part"
    path.symlink_to("/dev/full")
    with pytest.raises(StorageFull):
        encode(path, clip())


def test_a_missing_folder_is_an_encoding_failure(tmp_path: Path) -> None:
    with pytest.raises(EncodingFailed):
        encode(tmp_path / "missing" / "clip.mp4.part", clip())


def test_invalid_json_metadata_is_an_encoding_failure(tmp_path: Path) -> None:
    with pytest.raises(EncodingFailed):
        encode(tmp_path / "clip.mp4.part", clip(), metadata={"eta": float("nan")})


@pytest.mark.parametrize(
    "frames",
    [np.zeros((1, 96, 64, 3), np.uint8), np.zeros((1, 96, 96, 3), np.float32), np.zeros((96, 96, 3), np.uint8)],
)
def test_frames_of_another_shape_are_refused(tmp_path: Path, frames: np.ndarray) -> None:
    with VideoEncoder(tmp_path / "clip.mp4", 96, 96, 8.0) as encoder, pytest.raises(EncodingFailed, match="shape"):
        encoder.write(frames)


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    with VideoEncoder(tmp_path / "clip.mp4", 96, 96, 8.0) as encoder, pytest.raises(EncodingFailed, match="no frames"):
        encoder.finish({})


def test_leaving_early_ends_the_thread_and_writes_no_video(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4.part"
    encoder = VideoEncoder(path, 96, 96, 8.0)

    def stopped() -> None:
        with encoder:
            for _ in range(10):
                encoder.write(clip())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not path.exists() or read_metadata(path) is None
    with pytest.raises(EncodingFailed, match="not running"):
        encoder.write(clip())


def test_a_thumbnail_is_a_small_jpeg_of_the_frame() -> None:
    image = Image.open(io.BytesIO(thumbnail(clip(1280, 704)[3])))
    assert image.format == "JPEG"
    assert image.size == (512, 282)
    assert np.abs(np.asarray(image)[10, 10].astype(int) - COLOURS[3]).max() <= 6
