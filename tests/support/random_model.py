"""Diffusers folders with the architectures of Wan2.2 and 2.1 and random weights, for tests of the engine.

They contain all components of a real folder (experts, UMT5 encoder, causal VAE, scheduler), only very small. The
weights are untrained, so the clips are meaningless; the arithmetic is real.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

VOCABULARY = (
    "a the on red green blue yellow purple orange white cyan circle square triangle ring moving left right up down "
    "growing shrinking spinning staying still black gray navy pink teal background , ."
)
LATENT_CHANNELS = 16
#: Extra input channels of I2V: a mask with one channel per frame of a latent frame, and the encoded image.
IMAGE_CHANNELS = 4 + LATENT_CHANNELS


def build_random_model(folder: Path, *, seed: int = 0, boundary_ratio: float | None = 0.875) -> Path:
    """Write a folder of the A14B architecture (float32 safetensors, about 2 MB) and return it.

    With `boundary_ratio` None the folder has one expert.
    """
    torch.manual_seed(seed)
    vae = _vae()
    pipeline = WanPipeline(
        **_text_parts(),
        vae=vae,
        transformer=_expert(LATENT_CHANNELS),
        transformer_2=_expert(LATENT_CHANNELS) if boundary_ratio is not None else None,
        boundary_ratio=boundary_ratio,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def build_random_i2v(folder: Path, *, seed: int = 0) -> Path:
    """Write a folder of the I2V-A14B architecture: two experts that take a mask and an encoded image with the noise."""
    torch.manual_seed(seed)
    vae = _vae()
    pipeline = WanImageToVideoPipeline(
        **_text_parts(),
        vae=vae,
        transformer=_expert(LATENT_CHANNELS, IMAGE_CHANNELS),
        transformer_2=_expert(LATENT_CHANNELS, IMAGE_CHANNELS),
        boundary_ratio=0.9,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def build_random_wan21_i2v(folder: Path, *, seed: int = 0) -> Path:
    """Write a folder of the Wan2.1 I2V architecture: one expert that attends to five image tokens besides the text.

    The index names the class of the image processor as the published folders do.
    """
    torch.manual_seed(seed)
    sizes = {"image_size": 28, "patch_size": 14, "hidden_act": "gelu"}
    image = CLIPVisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2, **sizes)
    pipeline = WanImageToVideoPipeline(
        **_text_parts(),
        vae=_vae(),
        transformer=_expert(LATENT_CHANNELS, IMAGE_CHANNELS, image_dim=32, added_kv_proj_dim=48),
        image_encoder=CLIPVisionModel(image),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    index = json.loads((folder / "model_index.json").read_text())
    index["image_processor"] = ["transformers", "CLIPImageProcessor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def build_random_ti2v(folder: Path, *, seed: int = 0) -> Path:
    """Write a folder of the TI2V-5B architecture: residual VAE with 16x16 pixels per latent, one time per token."""
    torch.manual_seed(seed)
    vae = AutoencoderKLWan(
        base_dim=8,
        decoder_base_dim=12,
        z_dim=48,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        **_normalisation(48),
    )
    pipeline = WanPipeline(**_text_parts(), vae=vae, transformer=_expert(48), expand_timesteps=True)
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def build_random_fastwan(folder: Path, *, seed: int = 0) -> Path:
    """Write a folder as FastVideo publishes FastWan2.2: that of TI2V-5B with a different pipeline name."""
    index = build_random_ti2v(folder, seed=seed) / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "WanDMDPipeline"}))
    return folder


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a word-level tokenizer that ends every text with `</s>`, as the T5 family does."""
    special = ["<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate([*special, *VOCABULARY.split()])}, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def write_preview_map(folder: Path) -> None:
    """Write a `preview.json` into the folder, as trained models have it."""
    rows = [[0.1 * (i % 2), 0.05 * (i % 3), 0.02 * i] for i in range(LATENT_CHANNELS)]
    (folder / "preview.json").write_text(json.dumps({"latent_rgb": rows, "bias": [0.5, 0.4, 0.3]}))


def _normalisation(channels: int) -> dict[str, list[float]]:
    return {
        "latents_mean": [0.1 * (i % 3 - 1) for i in range(channels)],
        "latents_std": [1.0 + 0.05 * i for i in range(channels)],
    }


def _text_parts() -> dict[str, object]:
    tokenizer = build_tokenizer()
    config = UMT5Config(vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return {"tokenizer": tokenizer, "text_encoder": UMT5EncoderModel(config), "scheduler": scheduler}


def _vae() -> AutoencoderKLWan:
    return AutoencoderKLWan(
        base_dim=8,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        **_normalisation(LATENT_CHANNELS),
    )


def _expert(channels: int, extra_channels: int = 0, **image: int) -> WanTransformer3DModel:
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=24,
        in_channels=channels + extra_channels,
        out_channels=channels,
        text_dim=64,
        freq_dim=32,
        ffn_dim=96,
        num_layers=2,
        **image,
    )
