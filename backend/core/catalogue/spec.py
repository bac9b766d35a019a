"""What the product has to know about one model before its files are opened: a frozen spec.

Nothing else in the project asks which model it is; it asks the spec. Knows no names but the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

#: What FastVideo calls the pipeline of a model that was distilled by DMD, in `model_index.json`.
DMD_PIPELINE = "WanDMDPipeline"
#: The experts of a model that has two: for steps with much noise, and for the rest.
HIGH = "high"
LOW = "low"


class Mode(StrEnum):
    """What a model makes its video from."""

    T2V = "t2v"  # text
    I2V = "i2v"  # image and text
    TI2V = "ti2v"  # text, with or without an image


#: Diffusers' pipeline class of each mode; `model_index.json` names it, unless the model was distilled by DMD.
PIPELINES = {Mode.T2V: "WanPipeline", Mode.I2V: "WanImageToVideoPipeline", Mode.TI2V: "WanPipeline"}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything the product has to know about one model before its files are opened."""

    id: str  #: canonical API name
    mode: Mode
    title: str
    repo_id: str | None  #: where the hub has it; None = ships inside this package
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
    miniature: bool = False  #: small enough for a processor
    #: Distilled by DMD: the only times at which it denoises, of 1000, with fresh noise between them. Empty = any times.
    renoise_at: tuple[int, ...] = ()
    text_only: bool = False  #: whether it was trained for text alone, though its structure could take an image
    image_tokens: bool = False  #: whether it sees the start image through an image encoder too (I2V of Wan2.1)
    base: str | None = None  #: the built-in model whose structure it has; None = it is built in itself
    folder: Path | None = None  #: where its files are, when that is not its place in the home folder

    @property
    def takes_image(self) -> bool:
        """Whether a video can start from an image."""
        return self.mode is not Mode.T2V and not self.text_only

    @property
    def needs_image(self) -> bool:
        """Whether a video cannot be made without an image."""
        return self.mode is Mode.I2V

    @property
    def takes_end_image(self) -> bool:
        """Whether a video can be led to a given last frame."""
        return self.mode is Mode.I2V and not self.image_tokens

    @property
    def embedded(self) -> bool:
        """Whether the weights ship inside this package."""
        return self.repo_id is None and self.base is None

    @property
    def structure(self) -> str:
        """The id of the built-in model that is built like this one: the key of every table of structures."""
        return self.base or self.id

    @property
    def experts(self) -> int:
        """How many transformers share the denoising."""
        return 1 if self.boundary_ratio is None else 2
