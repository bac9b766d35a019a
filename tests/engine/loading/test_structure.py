"""The published models, built from their configurations without weights, have the structure that the planner counts."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
from diffusers import UniPCMultistepScheduler
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers, convert_wan_vae_to_diffusers
from gguf import MODEL_ARCH, get_tensor_name_map

from backend.core.catalogue.architecture import ARCHITECTURES
from backend.core.catalogue.table import MODELS
from backend.core.catalogue.transformer import WanShape
from backend.core.errors.models import ModelDamaged, ModelUnavailable
from backend.core.formats.text_encoder_names import llama_text_name, wan_text_name
from backend.engine.loading.original_names import name_tables
from backend.engine.loading.pipeline_loader import WanPipelineLoader

CONFIGS = Path(str(files("backend"))) / "assets" / "configs"
PUBLISHED = ["T2V-A14B", "I2V-A14B", "TI2V-5B", "Wan2.1-I2V-14B-480P", "Wan2.1-I2V-14B-720P"]
_WAN21_I2V = {"transformer": 16.39, "text_encoder": 5.68, "image_encoder": 0.63, "vae": 0.127}
#: Billions of parameters as published, and as rounded in each model's documentation.
BILLIONS = {
    "T2V-A14B": {"transformer": 14.29, "transformer_2": 14.29, "text_encoder": 5.68, "vae": 0.127},
    "I2V-A14B": {"transformer": 14.29, "transformer_2": 14.29, "text_encoder": 5.68, "vae": 0.127},
    "TI2V-5B": {"transformer": 5.00, "text_encoder": 5.68, "vae": 0.705},
    "Wan2.1-I2V-14B-480P": _WAN21_I2V,
    "Wan2.1-I2V-14B-720P": _WAN21_I2V,
}


def config_of(model: str, component: str) -> dict[str, object]:
    config: dict[str, object] = json.loads((CONFIGS / model / component / "config.json").read_text())
    return config


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_models_have_the_counted_parameters(model: str) -> None:
    modules = WanPipelineLoader("cpu").build(CONFIGS / model, MODELS[model])
    counts = {name: sum(one.numel() for one in module.parameters()) for name, module in modules.items()}
    assert {name: round(count / 1e9, 3 if name == "vae" else 2) for name, count in counts.items()} == BILLIONS[model]
    arch = ARCHITECTURES[model]
    assert counts["vae"] == arch.vae.parameters
    assert counts["text_encoder"] == arch.text.parameters
    assert counts["transformer"] == arch.expert_parameters
    assert counts.get("image_encoder", 0) == arch.image_parameters
    assert all(one.is_meta for module in modules.values() for one in module.parameters())
    for name, module in modules.items():
        if name.startswith("transformer"):
            assert {key: tuple(one.shape) for key, one in module.named_parameters()} == dict(
                arch.transformer.parameters()
            )
            assert WanShape.from_config(config_of(model, name)) == arch.transformer


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_configurations_agree_with_the_table_of_models(model: str) -> None:
    spec = MODELS[model]
    index = json.loads((CONFIGS / model / "model_index.json").read_text())
    assert index["boundary_ratio"] == spec.boundary_ratio
    vae = config_of(model, "vae")
    assert len(vae["latents_mean"]) == len(vae["latents_std"]) == vae["z_dim"]  # type: ignore[arg-type]
    scheduler = UniPCMultistepScheduler.from_pretrained(CONFIGS / model, subfolder="scheduler", local_files_only=True)
    assert scheduler.config.prediction_type == "flow_prediction"
    assert scheduler.config.use_flow_sigmas


def test_an_unbuildable_configuration_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(CONFIGS / "TI2V-5B", tmp_path / "model")
    loader = WanPipelineLoader("cpu")
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_layers": "many"}))
    with pytest.raises(ModelDamaged):
        loader.build(folder, MODELS["TI2V-5B"])
    with pytest.raises(ModelUnavailable):
        loader.build(folder, MODELS["I2V-A14B"])
    index = folder / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"vae": ["diffusers", "AutoencoderKL"]}))
    with pytest.raises(ModelDamaged, match="has a AutoencoderKL as its vae, not a AutoencoderKLWan"):
        loader.build(folder, MODELS["TI2V-5B"])


@pytest.mark.parametrize("model", PUBLISHED)
def test_wans_own_names_convert_as_in_diffusers(model: str) -> None:
    modules = WanPipelineLoader("cpu").build(CONFIGS / model, MODELS[model])
    for component, convert in (
        ("transformer", convert_wan_transformer_to_diffusers),
        ("vae", convert_wan_vae_to_diffusers),
    ):
        if (model, component) == ("TI2V-5B", "vae"):
            continue  # diffusers has no conversion of a single file for the newer autoencoder
        own, original = name_tables(component, modules[component].state_dict(), config_of(model, component))
        assert convert({name: parameter for parameter, name in original.items()}) == own


def test_the_names_of_the_newer_autoencoder_and_of_the_text_encoder() -> None:
    # From Wan's `vae2_2.py` and `t5.py`, and from the names of llama.cpp.
    modules = WanPipelineLoader("cpu").build(CONFIGS / "TI2V-5B", MODELS["TI2V-5B"])
    _, vae = name_tables("vae", modules["vae"].state_dict(), config_of("TI2V-5B", "vae"))
    assert len(set(vae.values())) == len(vae) == 196
    for name, original in {
        "quant_conv.weight": "conv1.weight",
        "encoder.down_blocks.0.resnets.1.conv2.bias": "encoder.downsamples.0.downsamples.1.residual.6.bias",
        "encoder.down_blocks.1.resnets.0.conv_shortcut.weight": "encoder.downsamples.1.downsamples.0.shortcut.weight",
        "encoder.down_blocks.2.downsampler.time_conv.weight": "encoder.downsamples.2.downsamples.2.time_conv.weight",
        "encoder.mid_block.attentions.0.to_qkv.weight": "encoder.middle.1.to_qkv.weight",
        "decoder.mid_block.resnets.1.norm1.gamma": "decoder.middle.2.residual.0.gamma",
        "decoder.up_blocks.2.resnets.2.norm2.gamma": "decoder.upsamples.2.upsamples.2.residual.3.gamma",
        "decoder.up_blocks.0.upsampler.resample.1.weight": "decoder.upsamples.0.upsamples.3.resample.1.weight",
        "decoder.norm_out.gamma": "decoder.head.0.gamma",
        "decoder.conv_out.bias": "decoder.head.2.bias",
    }.items():
        assert vae[name] == original
    _, text, packed = name_tables(
        "text_encoder", modules["text_encoder"].state_dict(), config_of("TI2V-5B", "text_encoder")
    )
    block = "encoder.block.23.layer"
    for name, (original, gguf) in {
        "shared.weight": ("token_embedding.weight", "token_embd.weight"),
        f"{block}.0.layer_norm.weight": ("blocks.23.norm1.weight", "enc.blk.23.attn_norm.weight"),
        f"{block}.0.SelfAttention.o.weight": ("blocks.23.attn.o.weight", "enc.blk.23.attn_o.weight"),
        f"{block}.0.SelfAttention.relative_attention_bias.weight": (
            "blocks.23.pos_embedding.embedding.weight",
            "enc.blk.23.attn_rel_b.weight",
        ),
        f"{block}.1.DenseReluDense.wi_0.weight": ("blocks.23.ffn.gate.0.weight", "enc.blk.23.ffn_gate.weight"),
        f"{block}.1.DenseReluDense.wi_1.weight": ("blocks.23.ffn.fc1.weight", "enc.blk.23.ffn_up.weight"),
        f"{block}.1.DenseReluDense.wo.weight": ("blocks.23.ffn.fc2.weight", "enc.blk.23.ffn_down.weight"),
        "encoder.final_layer_norm.weight": ("norm.weight", "enc.output_norm.weight"),
    }.items():
        assert (text[name], packed[name]) == (original, gguf)


def test_text_encoder_parameters_have_the_shapes_and_names_of_other_programs() -> None:
    module = WanPipelineLoader("cpu").build(CONFIGS / "TI2V-5B", MODELS["TI2V-5B"])["text_encoder"]
    assert {name: tuple(one.shape) for name, one in module.named_parameters()} == ARCHITECTURES["TI2V-5B"].text.shapes()
    theirs = get_tensor_name_map(MODEL_ARCH.T5ENCODER, 24)
    for name in ARCHITECTURES["TI2V-5B"].text.shapes():
        assert llama_text_name(name) == theirs.get_name(name, try_suffixes=(".weight",))
    assert llama_text_name("encoder.embed_tokens.weight") == llama_text_name("shared.weight")
    assert [rename("encoder.block.0.layer.2.other.weight") for rename in (wan_text_name, llama_text_name)] == [
        "encoder.block.0.layer.2.other.weight"
    ] * 2
