"""The table of tiny models: name, pipeline and recommended settings of each.

All other code reads this table instead of branching on the model. Knows neither how the models are
trained nor how they are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import WanImageToVideoPipeline, WanPipeline

from training.networks.flow import BOUNDARY, IMAGE_BOUNDARY
from training.world.scenes import FRAMES, SIZE

#: Folders of the embedded models and of the contact sheets in the repository.
ASSETS = Path(__file__).parents[2] / "backend" / "assets" / "tiny"
IMAGES = Path(__file__).parents[2] / "docs" / "images"


@dataclass(frozen=True)
class SamplingSettings:
    """How clips are generated; the table holds the recommended settings of each model."""

    steps: int = 20
    #: Guidance of the high-noise (or only) expert, and of the low-noise expert.
    guidance: float = 4.0
    guidance_2: float | None = 3.0
    max_sequence_length: int = 64
    size: int = SIZE
    frames: int = FRAMES


@dataclass(frozen=True)
class TinyModel:
    """One member of the family."""

    name: str
    #: The stock pipeline named in the folder.
    pipeline: Any
    settings: SamplingSettings
    #: Time, as a share of 1000, from which the high-noise expert is used; None with a single transformer.
    boundary: float | None
    from_text: bool = True
    from_image: bool = False
    #: Whether the image is the first latent frame, with its own time 0, instead of additional channels.
    expand_timesteps: bool = False

    @property
    def folder(self) -> Path:
        """The folder of the finished model in the repository."""
        return ASSETS / self.name

    def sheet(self, use: str) -> Path:
        """Return the path of the contact sheet of a use; that of the first use is named after the model alone."""
        first = "text" if self.from_text else "image"
        return IMAGES / (f"{self.name}.png" if use == first else f"{self.name}-{use.replace(' ', '-')}.png")


T2V = TinyModel("tiny-t2v-a14b", WanPipeline, SamplingSettings(), BOUNDARY)
I2V = TinyModel(
    "tiny-i2v-a14b",
    WanImageToVideoPipeline,
    SamplingSettings(guidance=2.0, guidance_2=2.0),
    IMAGE_BOUNDARY,
    from_text=False,
    from_image=True,
)
TI2V = TinyModel(
    "tiny-ti2v-5b",
    WanPipeline,
    SamplingSettings(guidance=3.0, guidance_2=None, size=128),
    None,
    from_image=True,
    expand_timesteps=True,
)
MODELS = {model.name: model for model in (T2V, I2V, TI2V)}
