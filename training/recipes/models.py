"""The tiny models as a table: what each is called, what it is made of and how it is best run.

Nothing else in this folder asks which model it is; it asks this table. Knows neither how they are
trained nor how they are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import WanImageToVideoPipeline, WanPipeline

from training.networks.flow import BOUNDARY, IMAGE_BOUNDARY
from training.world.scenes import FRAMES, SIZE

#: Where the embedded models lie in the repository, and where the pictures of their documents do.
ASSETS = Path(__file__).parents[2] / "backend" / "assets" / "tiny"
IMAGES = Path(__file__).parents[2] / "docs" / "images"


@dataclass(frozen=True)
class Settings:
    """How clips are generated; each model's own are its recommended settings."""

    steps: int = 20
    #: Guidance of the high-noise expert, or the only one, and of the low-noise expert.
    guidance: float = 4.0
    guidance_2: float | None = 3.0
    max_sequence_length: int = 64
    size: int = SIZE
    frames: int = FRAMES


@dataclass(frozen=True)
class TinyModel:
    """One member of the family."""

    name: str
    #: The stock pipeline that the folder names.
    pipeline: Any
    settings: Settings
    #: Share of the times from which the high-noise expert answers; None where there is one transformer.
    boundary: float | None
    from_text: bool = True
    from_image: bool = False
    #: Whether the given image is the first latent frame, at time 0 of its own, instead of further channels.
    expand_timesteps: bool = False

    @property
    def folder(self) -> Path:
        """The finished folder in the repository."""
        return ASSETS / self.name

    def sheet(self, use: str) -> Path:
        """Give the place of a use's contact sheet; the first use has the model's plain name."""
        first = "text" if self.from_text else "image"
        return IMAGES / (f"{self.name}.png" if use == first else f"{self.name}-{use.replace(' ', '-')}.png")


T2V = TinyModel("tiny-t2v-a14b", WanPipeline, Settings(), BOUNDARY)
I2V = TinyModel(
    "tiny-i2v-a14b",
    WanImageToVideoPipeline,
    Settings(guidance=2.0, guidance_2=2.0),
    IMAGE_BOUNDARY,
    from_text=False,
    from_image=True,
)
TI2V = TinyModel(
    "tiny-ti2v-5b",
    WanPipeline,
    Settings(guidance=3.0, guidance_2=None, size=128),
    None,
    from_image=True,
    expand_timesteps=True,
)
MODELS = {model.name: model for model in (T2V, I2V, TI2V)}
