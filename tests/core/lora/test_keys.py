"""Every tensor name found in LoRA files, on the real structures of the published models, without weights."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import WanTransformer3DModel

from backend.core.catalogue.transformer import PUBLISHED, WanShape
from backend.core.formats.tensors import TensorInfo
from backend.core.lora.experts import base_name, expert_in_metadata, fitting_bases, hint_of
from backend.core.lora.keys import read_key
from backend.core.lora.match import Misfit, match_tensors
from tests.support.lora_files import LINEARS, TO_WAN

RANK = 32
Tensors = dict[str, TensorInfo]


def on_meta(shape: WanShape) -> WanTransformer3DModel:
    """The real class in the real size, without memory for its weights."""
    with torch.device("meta"):
        return WanTransformer3DModel(
            num_attention_heads=shape.dim // 128,
            attention_head_dim=128,
            in_channels=shape.in_channels,
            out_channels=shape.out_channels,
            text_dim=shape.text_dim,
            freq_dim=shape.freq_dim,
            ffn_dim=shape.ffn_dim,
            num_layers=shape.layers,
            image_dim=shape.image_dim,
            added_kv_proj_dim=shape.added_kv_dim,
        )


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_structures_are_those_of_the_real_class(name: str) -> None:
    shape = PUBLISHED[name]
    model = on_meta(shape)
    assert shape.parameters() == {parameter: tuple(value.shape) for parameter, value in model.named_parameters()}
    assert WanShape.from_config(model.config) == shape


def test_the_published_sizes() -> None:
    sizes = {name: (one.layers, one.dim, one.ffn_dim, one.in_channels) for name, one in PUBLISHED.items()}
    assert sizes["T2V-A14B"] == (40, 5120, 13824, 16)
    assert sizes["I2V-A14B"] == (40, 5120, 13824, 36)
    assert sizes["TI2V-5B"] == (30, 3072, 14336, 48)


def bf16(*shape: int) -> TensorInfo:
    return TensorInfo("BF16", shape)


def low_rank(
    shape: WanShape, before: str, down: str, up: str, *, wan: bool, flat: bool = False, alpha: bool
) -> Tensors:
    """Headers of a LoRA on every linear layer of every block."""
    parameters = shape.parameters()
    found: Tensors = {}
    for index in range(shape.layers):
        for module in LINEARS:
            outputs, inputs = parameters[f"blocks.{index}.{module}.weight"]
            path = f"blocks.{index}.{TO_WAN[module] if wan else module}"
            name = before + (path.replace(".", "_") if flat else path)
            found |= {f"{name}.{down}": bf16(RANK, inputs), f"{name}.{up}": bf16(outputs, RANK)}
            if alpha:
                found[f"{name}.alpha"] = TensorInfo("F32", ())
    return found


def lightx2v(shape: WanShape) -> Tensors:
    """As extracted: factors for the large matrices, differences for everything small."""
    found = low_rank(shape, "diffusion_model.", "lora_down.weight", "lora_up.weight", wan=True, alpha=False)
    parameters = shape.parameters()
    for index in range(shape.layers):
        block, ours = f"diffusion_model.blocks.{index}", f"blocks.{index}"
        found[f"{block}.diff_m"] = bf16(1, 6, shape.dim)
        for wan, mine in (
            ("norm3", "norm2"),
            ("self_attn.norm_q", "attn1.norm_q"),
            ("cross_attn.norm_k", "attn2.norm_k"),
        ):
            found[f"{block}.{wan}.diff"] = bf16(*parameters[f"{ours}.{mine}.weight"])
        found[f"{block}.norm3.diff_b"] = bf16(shape.dim)
        for module in LINEARS:
            found[f"{block}.{TO_WAN[module]}.diff_b"] = bf16(*parameters[f"{ours}.{module}.bias"])
    for module in (one for one in TO_WAN if one.startswith(("condition_embedder", "proj_out", "patch_embedding"))):
        found[f"diffusion_model.{TO_WAN[module]}.diff"] = bf16(*parameters[f"{module}.weight"])
        found[f"diffusion_model.{TO_WAN[module]}.diff_b"] = bf16(*parameters[f"{module}.bias"])
    return found | {"diffusion_model.head.modulation.diff": bf16(1, 2, shape.dim)}


A, B = "lora_A.weight", "lora_B.weight"
DOWN, UP = "lora_down.weight", "lora_up.weight"
FORMATS = {
    "diffusers": lambda s: low_rank(s, "transformer.", A, B, wan=False, alpha=False),
    "plain": lambda s: low_rank(s, "", A, B, wan=False, alpha=False),
    "peft": lambda s: low_rank(s, "base_model.model.", A, B, wan=False, alpha=False),
    "peft with an adapter's name": lambda s: low_rank(
        s, "", "lora_A.default.weight", "lora_B.default.weight", wan=True, alpha=False
    ),
    "comfyui": lambda s: low_rank(s, "diffusion_model.", A, B, wan=True, alpha=False),
    "comfyui down and up": lambda s: low_rank(s, "diffusion_model.", DOWN, UP, wan=True, alpha=True),
    "comfyui checkpoint prefix": lambda s: low_rank(s, "model.diffusion_model.", DOWN, UP, wan=True, alpha=True),
    "kohya": lambda s: low_rank(s, "lora_unet_", DOWN, UP, wan=True, flat=True, alpha=True),
    "kohya with two underscores": lambda s: low_rank(s, "lora_unet__", DOWN, UP, wan=True, flat=True, alpha=True),
    "kohya with diffusers' names": lambda s: low_rank(s, "lora_unet_", DOWN, UP, wan=False, flat=True, alpha=True),
    "lycoris": lambda s: low_rank(s, "lycoris_", DOWN, UP, wan=True, flat=True, alpha=True),
    "diffsynth": lambda s: low_rank(
        s, "pipe.dit.", "lora_A.default.weight", "lora_B.default.weight", wan=True, alpha=False
    ),
    "lightx2v": lightx2v,
}


@pytest.mark.parametrize("model", ["T2V-A14B", "I2V-A14B", "TI2V-5B"])
@pytest.mark.parametrize("name", FORMATS)
def test_every_key_of_every_format_maps_to_a_parameter_of_the_full_size_models(name: str, model: str) -> None:
    shape = PUBLISHED[model]
    tensors = FORMATS[name](shape)
    match = match_tensors(tensors, {}, shape)
    assert match.unmatched == ()
    assert match.matched == len(tensors)
    assert {key for change in match.changes for key in change.keys} == set(tensors)
    assert match.ranks == (RANK,)
    assert match.format == name.split()[0].replace("diffsynth", "peft").replace("lycoris", "kohya")
    targets = {change.parameter for change in match.changes}
    for index in (0, shape.layers - 1):
        assert {f"blocks.{index}.{module}.weight" for module in LINEARS} <= targets


def test_a_partial_kohya_file_is_complete_for_the_layers_it_has() -> None:
    shape = PUBLISHED["T2V-A14B"]
    tensors = {
        name: info for name, info in FORMATS["kohya"](shape).items() if "_7_cross_attn_" in name or "_9_ffn_" in name
    }
    match = match_tensors(tensors, {}, shape)
    assert match.unmatched == ()
    assert {change.parameter for change in match.changes} == {
        *(f"blocks.7.attn2.{one}.weight" for one in ("to_q", "to_k", "to_v", "to_out.0")),
        "blocks.9.ffn.net.0.proj.weight",
        "blocks.9.ffn.net.2.weight",
    }


@pytest.mark.parametrize(
    ("name", "parameter", "part", "expert"),
    [
        ("diffusion_model.blocks.3.self_attn.o.lora_up.weight", "blocks.3.attn1.to_out.0.weight", "up", None),
        ("transformer_2.blocks.3.attn2.to_v.lora_A.weight", "blocks.3.attn2.to_v.weight", "down", "low"),
        ("high_noise_model.blocks.0.ffn.2.lora_B.weight", "blocks.0.ffn.net.2.weight", "up", "high"),
        ("diffusion_model.blocks.3.diff_m", "blocks.3.scale_shift_table", "diff", None),
        ("blocks.3.modulation.diff", "blocks.3.scale_shift_table", "diff", None),
        ("diffusion_model.head.diff_m", "scale_shift_table", "diff", None),
        ("diffusion_model.head.head.diff", "proj_out.weight", "diff", None),
        ("diffusion_model.blocks.1.norm3.diff_b", "blocks.1.norm2.bias", "diff", None),
        ("diffusion_model.time_projection.1.diff_b", "condition_embedder.time_proj.bias", "diff", None),
        ("lora_unet_blocks_12_cross_attn_norm_q.diff", "blocks.12.attn2.norm_q.weight", "diff", None),
        ("lora_unet_text_embedding_0.alpha", "condition_embedder.text_embedder.linear_1.weight", "alpha", None),
        ("transformer.blocks.0.attn1.to_q.lora_B.bias", "blocks.0.attn1.to_q.weight", "up_bias", None),
        ("transformer.blocks.0.attn1.to_q.lora.down.weight", "blocks.0.attn1.to_q.weight", "down", None),
    ],
)
def test_known_names_map_to_their_parameters(name: str, parameter: str, part: str, expert: str | None) -> None:
    key = read_key(name)
    assert key is not None
    assert (key.parameter, key.part, key.expert) == (parameter, part, expert)


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight",  # Stable Diffusion
        "double_blocks.0.img_attn.proj.lora_A.weight",  # Flux
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha",
        "diffusion_model.blocks.0.self_attn.q.hada_w1_a",
        "diffusion_model.blocks.0.self_attn.q.dora_scale",
        "diffusion_model.blocks.0.self_attn.q.weight",
        "diffusion_model.blocks.0.lora_A.weight",
        "diffusion_model.blocks.0.modulation.lora_A.weight",
        "diffusion_model.blocks.0.self_attn.q.diff_m",
        "transformer.blocks.0.attn1.to_q.lora_A.bias",
        "diffusion_model.blocks.-1.self_attn.q.diff",
        "diffusion_model.blocks.0.__class__.diff",
        "",
        ".diff",
    ],
)
def test_unknown_names_map_to_no_parameter(name: str) -> None:
    assert read_key(name) is None


def misfits(tensors: Tensors, model: str = "T2V-A14B", **metadata: str) -> dict[str, Misfit]:
    return dict(match_tensors(tensors, metadata, PUBLISHED[model]).unmatched)


def test_every_unmatched_key_is_named_with_its_reason() -> None:
    q = "diffusion_model.blocks.0.self_attn.q"
    pair = {f"{q}.lora_A.weight": bf16(4, 5120), f"{q}.lora_B.weight": bf16(5120, 4)}
    assert misfits(pair) == {}
    assert misfits(pair | {"x.y": bf16(1)}) == {"x.y": Misfit.UNKNOWN}
    image = "diffusion_model.blocks.0.cross_attn.k_img"
    image_pair = {f"{image}.lora_A.weight": bf16(4, 5120), f"{image}.lora_B.weight": bf16(5120, 4)}
    assert set(misfits(image_pair).values()) == {Misfit.ABSENT}
    assert misfits(image_pair, "Wan2.1-I2V-14B-480P") == {}
    assert set(misfits({f"{q}.lora_A.weight": bf16(4, 5120), f"{q}.alpha": bf16()}).values()) == {Misfit.INCOMPLETE}
    assert set(misfits(pair, "TI2V-5B").values()) == {Misfit.OTHER_MODEL}
    deep = {name.replace("blocks.0", "blocks.40"): info for name, info in pair.items()}
    assert set(misfits(deep).values()) == {Misfit.OTHER_MODEL}
    assert set(misfits(pair | {f"{q}.alpha": bf16(2)}).values()) == {Misfit.SHAPE}
    assert set(misfits(pair | {f"{q}.lora_B.weight": bf16(5120, 8)}).values()) == {Misfit.SHAPE}
    assert misfits({f"{q}.diff": TensorInfo("I8", (5120, 5120))}) == {f"{q}.diff": Misfit.DTYPE}
    again = pair | {"transformer.blocks.0.attn1.to_q.lora_A.weight": bf16(4, 5120)}
    assert list(misfits(again).values()) == [Misfit.REPEATED]


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({}, 1.0),
        ({"transformer.lora_alpha": 8}, 0.5),
        ({"lora_alpha": 32.0}, 2.0),
        ({"transformer.lora_alpha": 8, "transformer.use_rslora": True}, 2.0),
        ({"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"blocks.0.attn1.to_q": 16}}, 1.0),
        ({"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"^blocks.0.attn1.to_q$": 4}}, 0.25),
        ({"transformer.lora_alpha": 8, "transformer.alpha_pattern": {"to_k": 1}}, 0.5),
    ],
)
def test_alpha_in_the_header(settings: dict[str, object], scale: float) -> None:
    q = "transformer.blocks.0.attn1.to_q"
    tensors = {f"{q}.lora_A.weight": bf16(16, 5120), f"{q}.lora_B.weight": bf16(5120, 16)}
    metadata = {"lora_adapter_metadata": json.dumps(settings)}
    (change,) = match_tensors(tensors, metadata, PUBLISHED["T2V-A14B"]).changes
    assert change.scale == scale


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"lora_alpha": "x"}', '{"lora_alpha": NaN}', '{"alpha_pattern": {"(a+)+$": 1}}', "[" * 100_000]
)
def test_unreadable_alphas_are_an_error_not_a_guess(text: str) -> None:
    q = "transformer.blocks.0.attn1.to_q"
    tensors = {f"{q}.lora_A.weight": bf16(16, 5120), f"{q}.lora_B.weight": bf16(5120, 16)}
    with pytest.raises(ValueError, match="lora_adapter_metadata"):
        match_tensors(tensors, {"lora_adapter_metadata": text}, PUBLISHED["T2V-A14B"])


def test_the_base_is_found_by_shapes() -> None:
    plain = {model: FORMATS["kohya"](shape) for model, shape in PUBLISHED.items()}
    assert base_name(plain["T2V-A14B"], {}) == " or ".join(
        ("T2V-A14B", "I2V-A14B", "Wan2.1-I2V-14B-480P", "Wan2.1-I2V-14B-720P", "Wan2.1-T2V-14B")
    )
    assert base_name(plain["TI2V-5B"], {}) == "TI2V-5B or FastWan2.2-TI2V-5B"
    assert base_name(plain["Wan2.1-T2V-1.3B"], {}) == "Wan2.1-T2V-1.3B"
    # What touches the input tells text from image.
    assert base_name(lightx2v(PUBLISHED["T2V-A14B"]), {}) == "T2V-A14B or Wan2.1-T2V-14B"
    assert fitting_bases(lightx2v(PUBLISHED["I2V-A14B"]), {}, PUBLISHED) == (
        "I2V-A14B",
        "Wan2.1-I2V-14B-480P",
        "Wan2.1-I2V-14B-720P",
    )
    assert base_name({"a.b": bf16(1)}, {}) == "unknown"


@pytest.mark.parametrize(
    ("stem", "expert", "family"),
    [
        ("style_high_noise", "high", "style"),
        ("style_low_noise_model", "low", "style"),
        ("style-HIGH", "high", "style"),
        ("Style_H", "high", "Style"),
        ("Style_L", "low", "Style"),
        ("high_noise_model", "high", ""),
        ("wan22-LowNoise-x", "low", "wan22_x"),
        ("xyz_lownoise_v1", "low", "xyz_v1"),
        ("a_HN_v2", "high", "a_v2"),
        ("lora_low_000004000", "low", "lora_000004000"),
        ("high_quality_low_noise", "low", "high_quality"),
        (
            "wan2.2_i2v_A14b_high_noise_lora_rank64_lightx2v_4step_1022",
            "high",
            "wan2.2_i2v_A14b_lora_rank64_lightx2v_4step_1022",
        ),
    ],
)
def test_common_names_of_the_experts(stem: str, expert: str, family: str) -> None:
    hint = hint_of(stem)
    assert hint is not None
    assert (hint.expert, hint.family, hint.certain) == (expert, family, True)


@pytest.mark.parametrize("stem", ["my-lora", "hulk", "slow_motion", "below", "style_high_low", "highlander", ""])
def test_names_that_do_not_identify_an_expert(stem: str) -> None:
    assert hint_of(stem) is None


@pytest.mark.parametrize("stem", ["high_quality", "low_poly_style", "ultra-high-style", "girl_h"])
def test_ambiguous_words_are_uncertain(stem: str) -> None:
    hint = hint_of(stem)
    assert hint is not None
    assert not hint.certain


@pytest.mark.parametrize(
    ("metadata", "expert"),
    [
        ({"wan22.expert": "low", "modelspec.title": "x high noise"}, "low"),
        ({"wan22.expert": "both"}, "both"),
        ({"wan22.expert": "high_noise"}, "high"),
        ({"wan22.expert": "nonsense", "modelspec.title": "x high noise"}, "high"),
        ({"ss_output_name": "style-low"}, "low"),
        ({"ss_sd_model_name": "wan2.2_t2v_high_noise_14B_fp16.safetensors"}, "high"),
        ({"modelspec.title": "high quality"}, None),
        ({}, None),
    ],
)
def test_the_expert_in_the_metadata(metadata: dict[str, str], expert: str | None) -> None:
    assert expert_in_metadata(metadata) == expert
