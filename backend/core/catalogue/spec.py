"""The spec of a model: everything the product must know about it before its files are opened.

All other code asks the spec for properties, never which model it is. Knows no other models.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

#: FastVideo's name, in `model_index.json`, of the pipeline of a model distilled by DMD.
DMD_PIPELINE = "WanDMDPipeline"
#: The experts of a model that has two: for steps with much noise, and for the rest.
HIGH = "high"
LOW = "low"
#: The name that requests any suitable, available model.
AUTO = "auto"


class Mode(StrEnum):
    """The inputs a model generates video from."""

    T2V = "t2v"  # text
    I2V = "i2v"  # image and text
    TI2V = "ti2v"  # text, with or without an image


#: Diffusers' pipeline class of each mode; `model_index.json` names it, unless the model was distilled by DMD.
PIPELINES = {Mode.T2V: "WanPipeline", Mode.I2V: "WanImageToVideoPipeline", Mode.TI2V: "WanPipeline"}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model, before its files are opened."""

    id: str  #: canonical API name
    mode: Mode
    title: str
    repo_id: str | None  #: its repository on the hub; None = ships with this package
    licence: str
    weights_gb: float  #: size of all weights in 16-bit floats; the memory they need when all are resident
    steps: int
    guidance_scale: float  #: high-noise expert (or the only one)
    guidance_scale_2: float | None  #: low-noise expert; None = there is one expert
    flow_shift: float
    boundary_ratio: float | None
    fps: float
    num_frames: int
    width: int
    height: int
    size_multiple: int  #: width and height must be multiples of this
    max_pixels: int  #: largest width x height
    max_frames: int
    min_side: int
    max_sequence_length: int  #: prompt tokens
    negative_prompt: str
    aliases: tuple[str, ...] = ()
    revision: str = "main"  #: branch, tag or commit of the repository
    miniature: bool = False  #: small enough for a CPU
    #: Distilled by DMD: the only timesteps (of 1000) at which it denoises, with fresh noise in between. Empty = any.
    renoise_at: tuple[int, ...] = ()
    text_only: bool = False  #: whether it was trained for text only, though its structure could take an image
    image_tokens: bool = False  #: whether it also sees the start image through an image encoder (I2V of Wan2.1)
    base: str | None = None  #: the built-in model with the same structure; None = it is built in itself
    folder: Path | None = None  #: location of its files, when outside the home folder

    @property
    def takes_image(self) -> bool:
        """Whether a video can start from an image."""
        return self.mode is not Mode.T2V and not self.text_only

    @property
    def needs_image(self) -> bool:
        """Whether the model requires an image."""
        return self.mode is Mode.I2V

    @property
    def takes_end_image(self) -> bool:
        """Whether a video can end at a given last frame."""
        return self.mode is Mode.I2V and not self.image_tokens

    @property
    def family(self) -> str:
        """The id of the Wan2.2 model with these inputs: the only three that clients of the earlier application know."""
        return {Mode.T2V: "T2V-A14B", Mode.I2V: "I2V-A14B", Mode.TI2V: "TI2V-5B"}[self.mode]

    @property
    def embedded(self) -> bool:
        """Whether the weights ship inside this package."""
        return self.repo_id is None and self.base is None

    @property
    def structure(self) -> str:
        """The id of the built-in model with this structure: the key of every table of structures."""
        return self.base or self.id

    @property
    def experts(self) -> int:
        """Number of transformers that share the denoising."""
        return 1 if self.boundary_ratio is None else 2
