"""Streamed frames compared with `vae.decode` and diffusers' own conversion to pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.video_processor import VideoProcessor

from backend.core.errors.generation import NonFiniteLatents
from backend.core.errors.interruptions import TaskCancelled
from backend.engine.frames.decode import count_chunks, stream_frames, tile_grid, to_uint8
from backend.engine.loading.pipeline_loader import WanComponents


def stock_decode(components: WanComponents, latents: torch.Tensor) -> torch.Tensor:
    """The stock pipeline's way from latents to pixels in -1..1."""
    config = components.vae.config
    shape, device = (1, config.z_dim, 1, 1, 1), latents.device
    mean = torch.tensor(config.latents_mean).view(shape).to(device)
    inverse_std = 1.0 / torch.tensor(config.latents_std).view(shape).to(device)
    with torch.no_grad():
        video: torch.Tensor = components.vae.decode(latents / inverse_std + mean, return_dict=False)[0]
    return video


def stock_pictures(video: torch.Tensor) -> np.ndarray:
    images = VideoProcessor(vae_scale_factor=8).postprocess_video(video, output_type="pil")[0]
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("num_frames", [1, 5, 17])
def test_streamed_frames_equal_a_whole_decode(components: WanComponents, num_frames: int) -> None:
    latents = torch.randn(1, 16, count_chunks(num_frames), 8, 10, generator=torch.Generator().manual_seed(7)).to(
        components.device
    )
    chunks = list(stream_frames(components, latents))
    assert [len(chunk) for chunk in chunks] == [1] + [4] * ((num_frames - 1) // 4)
    frames = np.concatenate(chunks)
    assert frames.shape == (num_frames, 64, 80, 3)
    assert np.array_equal(frames, stock_pictures(stock_decode(components, latents)))


def test_an_abandoned_decode_does_not_affect_the_next(random_components: WanComponents) -> None:
    latents = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(8)).to(random_components.device)
    expected = np.concatenate(list(stream_frames(random_components, latents)))
    dropped = stream_frames(random_components, -latents)
    next(dropped)
    mixed = stream_frames(random_components, latents)
    first = next(mixed)
    next(dropped)
    assert np.array_equal(np.concatenate([first, *mixed]), expected)


def test_non_finite_pixels_stop_the_decode_at_their_chunk(random_components: WanComponents) -> None:
    latents = torch.randn(1, 16, 3, 8, 8, generator=torch.Generator().manual_seed(8)).to(random_components.device)
    latents[0, 0, 2, 4, 4] = float("nan")
    frames = stream_frames(random_components, latents)
    assert len(next(frames)) == 1
    assert len(next(frames)) == 4
    with pytest.raises(NonFiniteLatents, match="chunk 3"):
        next(frames)


def test_levels_are_rounded_as_diffusers_does_for_every_value() -> None:
    steps = torch.linspace(-1.2, 1.2, 3 * 1 * 200 * 240, dtype=torch.float32).view(1, 3, 1, 200, 240)
    assert np.array_equal(to_uint8(steps[0]), stock_pictures(steps))
    assert to_uint8(steps[0]).min() == 0
    assert to_uint8(steps[0]).max() == 255


def tiled(components: WanComponents, side: int) -> Iterator[WanComponents]:
    """The same model under a plan that decodes in tiles of this size."""
    usual = components.plan
    components.layout.change(replace(usual, tiled_decode=True, tile_size=side))
    try:
        yield components
    finally:
        components.layout.change(usual)


@pytest.fixture(params=["random_components", "random_ti2v", "embedded_components"])
def tiling(request: pytest.FixtureRequest) -> Iterator[WanComponents]:
    """Both kinds of VAE, the plain one also with trained weights; 8 or 16 pixels per latent."""
    yield from tiled(request.getfixturevalue(request.param), 64)


def noise(components: WanComponents, chunks: int, height: int, width: int) -> torch.Tensor:
    channels = components.vae.config.z_dim
    drawn = torch.randn(1, channels, chunks, height, width, generator=torch.Generator().manual_seed(9))
    return drawn.to(components.device)


@pytest.mark.parametrize(("height", "width"), [(13, 9), (4, 14), (9, 4)], ids=["odd", "one row", "one column"])
def test_tiles_give_the_same_picture_as_diffusers(
    tiling: WanComponents, tmp_path: Path, height: int, width: int
) -> None:
    latents = noise(tiling, 2, height, width)
    calls: list[None] = []
    chunks = list(stream_frames(tiling, latents, scratch=tmp_path, tile_done=lambda: calls.append(None)))
    assert [len(chunk) for chunk in chunks] == [1, 4]
    grid = tile_grid(tiling, latents)
    assert grid is not None
    assert len(calls) == 2 * len(grid)
    factor = tiling.vae.spatial_compression_ratio
    tiling.vae.enable_tiling(64, 64, grid.stride * factor, grid.stride * factor)
    try:
        expected = stock_pictures(stock_decode(tiling, latents))
    finally:
        tiling.vae.use_tiling = False
    frames = np.concatenate(chunks)
    assert frames.shape == (5, height * factor, width * factor, 3)
    assert np.array_equal(frames, expected)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_fits_one_tile_is_decoded_in_one_piece(tiling: WanComponents) -> None:
    side = 64 // tiling.vae.spatial_compression_ratio
    latents = noise(tiling, 2, side, side)
    assert tile_grid(tiling, latents) is None
    assert np.array_equal(
        np.concatenate(list(stream_frames(tiling, latents))), stock_pictures(stock_decode(tiling, latents))
    )


def test_non_finite_tiles_and_the_callback_stop_the_decode(tiling: WanComponents, tmp_path: Path) -> None:
    latents = noise(tiling, 2, 10, 10)
    latents[0, 0, 1, 9, 9] = float("nan")
    with pytest.raises(NonFiniteLatents, match="chunk 2"):
        list(stream_frames(tiling, latents, scratch=tmp_path))

    def stop() -> None:
        raise TaskCancelled

    with pytest.raises(TaskCancelled):
        next(stream_frames(tiling, noise(tiling, 2, 10, 10), scratch=tmp_path, tile_done=stop))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from Linux's /proc")
@pytest.mark.timeout(600)  # 15 s of CPU time on a machine that may be busy
def test_memory_does_not_grow_with_the_clip_and_the_frames_equal_a_whole_decode() -> None:
    measured = measure()
    assert measured["equal"] == {"17": True, "65": True, "257": True}
    peaks = measured["streamed"]
    clip_kib = 257 * 48 * 48 * 3 * 4 // 1024  # the longest clip as decoded pixels, 6.8 MiB
    assert peaks["257"] - peaks["17"] < clip_kib / 4, measured
    assert measured["whole"] - peaks["257"] > clip_kib, "else the measurement sees nothing"


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from Linux's /proc")
@pytest.mark.timeout(600)
def test_memory_in_tiles_grows_neither_with_the_picture_nor_with_the_clip() -> None:
    measured = measure("tiles")
    peaks = measured["tiled"]
    frames_kib = 4 * 480 * 480 * 3 // 1024  # one chunk of finished frames, 2.6 MiB, which are yielded together
    assert peaks["480"] - peaks["192"] < 3 * frames_kib, measured
    clip_kib = 97 * 192 * 192 * 3 * 4 // 1024  # the longer clip as decoded pixels, 41 MiB
    assert peaks["long"] - peaks["480"] < clip_kib / 4, measured
    assert measured["untiled"] - peaks["long"] > 10 * 3 * frames_kib, "else the measurement sees nothing"


def measure(*arguments: str) -> Any:
    # With this threshold the allocator returns every tensor at once, so the peak is what is really alive.
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.frames.decode_memory", *arguments],
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
