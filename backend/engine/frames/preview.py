"""Renders a small picture of unfinished latents without the VAE.

Each latent pixel becomes one pixel by a linear map of its channels: the map in the model folder's `preview.json` if
there is one, else the three principal components of the latents.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from backend.core.errors.models import ModelDamaged
from backend.core.files import read_json

PREVIEW_FILE = "preview.json"
#: Previews are sent to every browser several times a second.
MAX_BYTES = 30 * 1024
_LONG_SIDE = 384
_QUALITIES = (85, 70, 50, 30, 15)


@dataclass(frozen=True, slots=True)
class PreviewMap:
    """A linear map from normalised latents to RGB in 0..1."""

    latent_rgb: npt.NDArray[np.float32]  #: [channels, 3]
    bias: npt.NDArray[np.float32]  #: [3]

    @classmethod
    def read(cls, folder: Path) -> PreviewMap | None:
        """Read a model folder's map; None if it has none.

        Raises:
            ModelDamaged: the file exists but is not a map.
        """
        path = folder / PREVIEW_FILE
        try:
            values = read_json(path)
            latent_rgb = np.asarray(values["latent_rgb"], dtype=np.float32)
            bias = np.asarray(values["bias"], dtype=np.float32)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelDamaged(f"{path} cannot be read: {error}") from error
        if latent_rgb.ndim != 2 or latent_rgb.shape[1] != 3 or bias.shape != (3,):
            raise ModelDamaged(f"{path}: latent_rgb must be [channels, 3] and bias [3]")
        return cls(latent_rgb, bias)


def render_preview(latents: torch.Tensor, preview_map: PreviewMap | None, size: tuple[int, int]) -> bytes:
    """Render the middle frame of [1, C, T, h, w] as a JPEG of at most 30 KB.

    Args:
        latents: normalised latents, finished or not.
        preview_map: the model's map; None = the principal components.
        size: (width, height) of the clip; the picture keeps it up to 384 pixels on the long side.
    """
    middle = latents[0, :, latents.shape[2] // 2].float().cpu().numpy()
    pixels = middle.transpose(1, 2, 0)  # [h, w, C]
    if preview_map is not None and preview_map.latent_rgb.shape[0] == pixels.shape[2]:
        rgb = pixels @ preview_map.latent_rgb + preview_map.bias
    else:
        rgb = _strongest_directions(pixels)
    levels = (np.clip(rgb, 0.0, 1.0) * 255).round().astype(np.uint8)
    scale = min(1.0, _LONG_SIDE / max(size))
    target = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    return _jpeg(Image.fromarray(levels).resize(target, Image.Resampling.BICUBIC))


def _strongest_directions(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Project onto the first three principal components, scaled to 0..1."""
    flat = pixels.reshape(-1, pixels.shape[2])
    flat = flat - flat.mean(axis=0)
    _, vectors = np.linalg.eigh(flat.T @ flat)
    directions = vectors[:, ::-1][:, :3]
    # An eigenvector's sign is arbitrary; fixing it keeps colours from flipping between two previews.
    strongest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
    projected = flat @ (directions * np.sign(strongest))
    low, high = np.percentile(projected, [2, 98], axis=0)
    spread: npt.NDArray[np.float32] = (projected - low) / np.maximum(high - low, 1e-6)
    return spread.reshape(*pixels.shape[:2], 3)


def _jpeg(image: Image.Image) -> bytes:
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MAX_BYTES:
            return buffer.getvalue()
    half = (max(1, image.width // 2), max(1, image.height // 2))
    return _jpeg(image.resize(half, Image.Resampling.BICUBIC))
