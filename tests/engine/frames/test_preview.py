"""Previews: small, with the right aspect, and in the colours of the model's own map."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from backend.core.errors.models import ModelDamaged
from backend.engine.frames.preview import MAX_BYTES, PREVIEW_FILE, PreviewMap, render_preview


def opened(picture: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(picture))
    image.load()
    return image


@pytest.mark.parametrize(
    ("latent", "size", "expected"),
    [((8, 8), (64, 64), (64, 64)), ((60, 104), (832, 480), (384, 222)), ((160, 90), (720, 1280), (216, 384))],
)
@pytest.mark.parametrize("with_map", [True, False])
def test_a_preview_is_a_small_jpeg_in_the_clips_aspect(
    latent: tuple[int, int], size: tuple[int, int], expected: tuple[int, int], with_map: bool
) -> None:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 16, 5, *latent, generator=generator)  # noise, which compresses worst
    latent_rgb = np.random.default_rng(1).normal(size=(16, 3)).astype(np.float32)
    preview_map = PreviewMap(latent_rgb, np.full(3, 0.5, np.float32)) if with_map else None
    picture = render_preview(latents, preview_map, size)
    assert len(picture) <= MAX_BYTES
    image = opened(picture)
    assert image.format == "JPEG"
    assert image.size == expected


def test_the_models_map_determines_the_colours(tmp_path: Path) -> None:
    rows = [[0.0, 0.0, 0.0] for _ in range(16)]
    rows[3] = [0.4, 0.0, -0.2]
    (tmp_path / PREVIEW_FILE).write_text(json.dumps({"latent_rgb": rows, "bias": [0.1, 0.5, 0.9]}))
    latents = torch.zeros(1, 16, 3, 8, 8)
    latents[:, 3, 1] = 2.0  # only the middle frame is drawn
    image = opened(render_preview(latents, PreviewMap.read(tmp_path), (64, 64)))
    expected = np.array([0.9, 0.5, 0.5]) * 255
    assert np.abs(np.asarray(image).reshape(-1, 3) - expected).max() <= 6


def test_without_a_map_different_places_get_different_colours() -> None:
    latents = torch.zeros(1, 16, 1, 8, 8)
    latents[0, 2, 0, :, 4:] = 3.0
    picture = render_preview(latents, None, (64, 64))
    image = np.asarray(opened(picture)).astype(int)
    assert np.abs(image[32, 8] - image[32, 56]).max() > 100
    assert picture == render_preview(latents.clone(), None, (64, 64))


def test_constant_latents_get_a_preview_too() -> None:
    assert opened(render_preview(torch.ones(1, 16, 1, 8, 8), None, (64, 64))).size == (64, 64)


def test_a_folder_without_a_map_has_none(tmp_path: Path) -> None:
    assert PreviewMap.read(tmp_path) is None


@pytest.mark.parametrize(
    "content", ["{", "{}", '{"latent_rgb": [[1, 2]], "bias": [0, 0, 0]}', '{"latent_rgb": [["x", 0, 0]], "bias": []}']
)
def test_an_invalid_map_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / PREVIEW_FILE).write_text(content)
    with pytest.raises(ModelDamaged, match=r"preview\.json"):
        PreviewMap.read(tmp_path)
