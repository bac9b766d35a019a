"""The built-in models: their components, recommended settings and repositories.

Sources: upstream `wan/configs/*.py` and `generate.py` for defaults, the models' `config.json` for structure. Lists
only models that this version can run.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from backend.core.catalogue.spec import Mode, ModelSpec

#: The negative prompt that the upstream recipe ships (`sample_neg_prompt` of `wan/configs/shared_config.py`).
UPSTREAM_NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，"
    "JPEG压缩残留，丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，"
    "形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，倒着走"
)


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


def _ti2v_5b(**own: object) -> ModelSpec:
    shared: dict[str, object] = {
        "mode": Mode.TI2V,
        "weights_gb": 22.8,  # 5.00 B transformer, 5.68 B text encoder, 0.71 B VAE
        "guidance_scale_2": None,
        "flow_shift": 5.0,
        "boundary_ratio": None,
        "fps": 24.0,
        "num_frames": 121,
        "height": 704,
        "size_multiple": 32,
    }
    return _a14b(**(shared | own))


def _wan21(**own: object) -> ModelSpec:
    """Build a spec from what both Wan2.1 T2V models share: `wan_t2v_*.py` and `generate.py` of Wan2.1."""
    shared: dict[str, object] = {
        "mode": Mode.T2V,
        "steps": 50,
        "guidance_scale_2": None,
        "boundary_ratio": None,
    }
    return _a14b(**(shared | own))


def _wan21_i2v(**own: object) -> ModelSpec:
    """Build a spec from what both Wan2.1 I2V models share: `wan_i2v_14B.py` and `generate.py` of Wan2.1."""
    shared: dict[str, object] = {
        "mode": Mode.I2V,
        "image_tokens": True,
        "weights_gb": 45.7,  # 16.39 B transformer, 5.68 B text encoder, 0.63 B image encoder, 0.13 B VAE
        "steps": 40,
        "guidance_scale": 5.0,
        "negative_prompt": "镜头晃动，" + UPSTREAM_NEGATIVE_PROMPT,  # prepends "camera shake"
    }
    return _wan21(**(shared | own))


def _tiny(**own: object) -> ModelSpec:
    shared: dict[str, object] = {
        "repo_id": None,
        "miniature": True,
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


#: The models by id, in the order in which they are listed. A home folder's own come after them.
MODELS: Mapping[str, ModelSpec] = MappingProxyType(
    {
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
            _ti2v_5b(
                id="TI2V-5B",
                title="Wan2.2 TI2V 5B",
                repo_id="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
                steps=50,
                guidance_scale=5.0,
                aliases=("ti2v", "wan2.2-ti2v-5b"),
            ),
            # Timesteps, shift and a single unguided pass, as in its distillation (FastVideo, `distill_dmd_t2v_5B.sh`).
            # Text only: FastVideo's sampler ignores a start image.
            _ti2v_5b(
                id="FastWan2.2-TI2V-5B",
                title="FastWan2.2 TI2V 5B (three steps)",
                repo_id="FastVideo/FastWan2.2-TI2V-5B-FullAttn-Diffusers",
                steps=3,
                renoise_at=(1000, 757, 522),
                guidance_scale=1.0,
                text_only=True,
                aliases=("fastwan", "fastwan2.2-ti2v-5b-fullattn"),
            ),
            _wan21(
                id="Wan2.1-T2V-14B",
                title="Wan2.1 T2V 14B",
                repo_id="Wan-AI/Wan2.1-T2V-14B-Diffusers",
                weights_gb=40.2,  # 14.29 B transformer, 5.68 B text encoder, 0.13 B VAE
                guidance_scale=5.0,
                flow_shift=5.0,
            ),
            _wan21(
                id="Wan2.1-T2V-1.3B",
                title="Wan2.1 T2V 1.3B",
                repo_id="Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
                weights_gb=14.5,  # 1.42 B transformer, 5.68 B text encoder, 0.13 B VAE
                # The README of Wan2.1 recommends guidance 6 and shift 8 to 12 for this model.
                guidance_scale=6.0,
                flow_shift=8.0,
                width=832,
                height=480,
                max_pixels=1280 * 720,  # less stable above 480p, according to the same README
            ),
            _wan21_i2v(
                id="Wan2.1-I2V-14B-480P",
                title="Wan2.1 I2V 14B 480P",
                repo_id="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
                flow_shift=3.0,
                width=832,
                height=480,
                max_pixels=1280 * 720,  # trained for 480p; larger sizes suit the 720P model
            ),
            _wan21_i2v(
                id="Wan2.1-I2V-14B-720P",
                title="Wan2.1 I2V 14B 720P",
                repo_id="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
                flow_shift=5.0,
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
)
