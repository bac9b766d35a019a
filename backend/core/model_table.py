"""The models we know, as one table of frozen specs, and how their names are understood.

Sources: upstream `wan/configs/*.py` for defaults, the models' `config.json` for structure. Nothing
else in the project asks which model it is; it asks the spec.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from backend.core.errors import UnknownModel


class Mode(StrEnum):
    """What a model makes its video from."""

    T2V = "t2v"  # text
    I2V = "i2v"  # image and text
    TI2V = "ti2v"  # text, with or without an image


#: The negative prompt that the upstream recipe ships (`sample_neg_prompt` of `wan/configs/shared_config.py`).
UPSTREAM_NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，"
    "形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)


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

    @property
    def takes_image(self) -> bool:
        """Whether a video can start from an image."""
        return self.mode is not Mode.T2V

    @property
    def needs_image(self) -> bool:
        """Whether a video cannot be made without an image."""
        return self.mode is Mode.I2V

    @property
    def takes_end_image(self) -> bool:
        """Whether a video can be led to a given last frame."""
        return self.mode is Mode.I2V

    @property
    def embedded(self) -> bool:
        """Whether the weights ship inside this package."""
        return self.repo_id is None

    @property
    def experts(self) -> int:
        """How many transformers share the denoising."""
        return 1 if self.boundary_ratio is None else 2


def _a14b(**own: object) -> ModelSpec:
    shared: dict[str, object] = {
        "licence": "Apache-2.0",
        "weights_gb": 68.9,  # 2 x 14.29 B experts, 5.68 B text encoder, 0.13 B VAE
        "steps": 40,
        "fps": 16.0,
        "num_frames": 81,
        "width": 1280,
        "height": 720,
        "size_multiple": 16,
        "max_pixels": 1920 * 1088,
        "max_frames": 161,
        "min_side": 128,
        "max_sequence_length": 512,
        "negative_prompt": UPSTREAM_NEGATIVE_PROMPT,
    }
    return ModelSpec(**(shared | own))  # type: ignore[arg-type]


def _tiny(**own: object) -> ModelSpec:
    shared: dict[str, object] = {
        "repo_id": None,
        "licence": "Apache-2.0",
        "weights_gb": 0.015,
        "steps": 20,
        "flow_shift": 3.0,
        "fps": 8.0,
        "num_frames": 17,
        "width": 96,
        "height": 96,
        "size_multiple": 16,
        "max_pixels": 256 * 256,
        "max_frames": 65,
        "min_side": 64,
        "max_sequence_length": 64,
        "negative_prompt": "",
    }
    return ModelSpec(**(shared | own))  # type: ignore[arg-type]


MODELS: dict[str, ModelSpec] = {
    spec.id: spec
    for spec in (
        _a14b(
            id="T2V-A14B",
            mode=Mode.T2V,
            title="Wan2.2 T2V A14B",
            repo_id="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
            guidance_scale=4.0,
            guidance_scale_2=3.0,
            flow_shift=12.0,
            boundary_ratio=0.875,
            aliases=("t2v", "text2video", "wan2.2-t2v-a14b"),
        ),
        _a14b(
            id="I2V-A14B",
            mode=Mode.I2V,
            title="Wan2.2 I2V A14B",
            repo_id="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
            guidance_scale=3.5,
            guidance_scale_2=3.5,
            flow_shift=5.0,
            boundary_ratio=0.9,
            aliases=("i2v", "image2video", "wan2.2-i2v-a14b"),
        ),
        _a14b(
            id="TI2V-5B",
            mode=Mode.TI2V,
            title="Wan2.2 TI2V 5B",
            repo_id="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
            weights_gb=22.8,  # 5.00 B transformer, 5.68 B text encoder, 0.71 B VAE
            steps=50,
            guidance_scale=5.0,
            guidance_scale_2=None,
            flow_shift=5.0,
            boundary_ratio=None,
            fps=24.0,
            num_frames=121,
            height=704,
            size_multiple=32,
            aliases=("ti2v", "wan2.2-ti2v-5b"),
        ),
        _tiny(
            id="tiny-t2v-a14b",
            mode=Mode.T2V,
            title="Tiny T2V (moving shapes)",
            guidance_scale=4.0,
            guidance_scale_2=3.0,
            boundary_ratio=0.875,
            aliases=("tiny", "tiny-t2v"),
        ),
        _tiny(
            id="tiny-i2v-a14b",
            mode=Mode.I2V,
            title="Tiny I2V (moving shapes)",
            guidance_scale=2.0,
            guidance_scale_2=2.0,
            boundary_ratio=0.9,
            aliases=("tiny-i2v",),
        ),
        _tiny(
            id="tiny-ti2v-5b",
            mode=Mode.TI2V,
            title="Tiny TI2V (moving shapes)",
            weights_gb=0.009,
            guidance_scale=3.0,
            guidance_scale_2=None,
            boundary_ratio=None,
            width=128,
            height=128,
            size_multiple=32,
            aliases=("tiny-ti2v",),
        ),
    )
}

#: The request for "a model that fits and is here".
AUTO = "auto"

_OWNER = re.compile(r"^wan-ai[/_-]")
_SUFFIX = re.compile(r"(-diffusers)?(@2\.2\.0)?$")


def _key(name: str) -> str:
    """Fold the spellings that clients use into one."""
    key = _OWNER.sub("", name.strip().lower())
    return _SUFFIX.sub("", key.replace("_", "-"))


_BY_KEY: dict[str, ModelSpec] = {_key(name): spec for spec in MODELS.values() for name in (spec.id, *spec.aliases)}


def find_model(name: str) -> ModelSpec:
    """Return the spec that a client's name means.

    Raises:
        UnknownModel: the name is not in the table; it is never mapped to another model.
    """
    spec = _BY_KEY.get(_key(name))
    if spec is None:
        known = ", ".join([*MODELS, AUTO])
        raise UnknownModel(f"Invalid model type. Must be one of: {known}", details={"known_models": [*MODELS, AUTO]})
    return spec
