"""Sparse weight files with the names and shapes of the published models: real headers, no data on the disk.

The names are written out here by hand, so that the code under test is compared with an independent source.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path

import gguf
import numpy as np

Shapes = Mapping[str, tuple[int, ...]]
_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I8": 1}


def sparse(path: Path, shapes: Shapes, dtype: str = "BF16", metadata: Mapping[str, str] | None = None) -> Path:
    """Write a sparse safetensors file: tensors have their full size but take no space on the disk."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    at = 0
    for name, shape in shapes.items():
        kind = "F32" if name.endswith(("scale_weight", "weight_scale")) else dtype
        size = prod(shape) * _BYTES[kind]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        file.truncate(8 + len(raw) + at)
    return path


def sparse_gguf(path: Path, shapes: Shapes, kind: gguf.GGMLQuantizationType, architecture: str = "wan") -> Path:
    """Write a sparse GGUF file with the writer of the gguf package: large matrices in `kind`, the rest in F32."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_quantization_version(2)
    writer.add_file_type(int(kind))
    writer.add_array("tokenizer.ggml.tokens", [f"word {number}" for number in range(100)])
    writer.add_array("tokenizer.ggml.scores", [0.5] * 100)
    size = 0
    for name, shape in shapes.items():
        raw = kind if len(shape) == 2 and prod(shape) > 2**16 else gguf.GGMLQuantizationType.F32
        block, block_bytes = gguf.GGML_QUANT_SIZES[raw]
        stored = (*shape[:-1], shape[-1] // block * block_bytes)
        byte_shape = stored if raw is kind else shape
        length = prod(shape) // block * block_bytes
        size += -(-length // 32) * 32
        dtype = np.dtype("uint8" if raw is kind else "float32")
        writer.add_tensor_info(name, byte_shape, dtype, length, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("rb+") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + size)
    return path


def transformer(
    width: int, ffn: int, layers: int, inputs: int, outputs: int, *, original: bool = True, prefix: str = ""
) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a Wan2.2 transformer under its original names or those of diffusers."""
    linear = _linear
    names: dict[str, tuple[int, ...]] = {
        "patch_embedding.weight": (width, inputs, 1, 2, 2),
        "patch_embedding.bias": (width,),
    }
    if original:
        names |= linear("text_embedding.0", 4096, width) | linear("text_embedding.2", width, width)
        names |= linear("time_embedding.0", 256, width) | linear("time_embedding.2", width, width)
        names |= linear("time_projection.1", width, 6 * width)
        names |= linear("head.head", width, 4 * outputs) | {"head.modulation": (1, 2, width)}
    else:
        text, time = "condition_embedder.text_embedder", "condition_embedder.time_embedder"
        names |= linear(f"{text}.linear_1", 4096, width) | linear(f"{text}.linear_2", width, width)
        names |= linear(f"{time}.linear_1", 256, width) | linear(f"{time}.linear_2", width, width)
        names |= linear("condition_embedder.time_proj", width, 6 * width)
        names |= linear("proj_out", width, 4 * outputs) | {"scale_shift_table": (1, 2, width)}
    attentions = (("self_attn", "cross_attn"), "qkvo") if original else (("attn1", "attn2"), _TO)
    first, second, norm, table = (
        ("ffn.0", "ffn.2", "norm3", "modulation")
        if original
        else ("ffn.net.0.proj", "ffn.net.2", "norm2", "scale_shift_table")
    )
    for number in range(layers):
        block = f"blocks.{number}"
        for attention in attentions[0]:
            for part in attentions[1]:
                names |= linear(f"{block}.{attention}.{part}", width, width)
            names |= {f"{block}.{attention}.norm_{part}.weight": (width,) for part in "qk"}
        names |= linear(f"{block}.{first}", width, ffn) | linear(f"{block}.{second}", ffn, width)
        names |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        names[f"{block}.{table}"] = (1, 6, width)
    return {prefix + name: shape for name, shape in names.items()}


_TO = ("to_q", "to_k", "to_v", "to_out.0")


def wan21_i2v(*, original: bool = True) -> dict[str, tuple[int, ...]]:
    """Return the transformer of Wan2.1 I2V, which also attends to image tokens."""
    names = transformer(5120, 13824, 40, 36, 16, original=original)
    places = ("proj.0", "proj.1", "proj.3", "proj.4") if original else ("norm1", "ff.net.0.proj", "ff.net.2", "norm2")
    before, first, last, after = places
    image = "img_emb" if original else "condition_embedder.image_embedder"
    names |= _linear(f"{image}.{first}", 1280, 1280) | _linear(f"{image}.{last}", 1280, 5120)
    for norm, width in ((before, 1280), (after, 5120)):
        names |= {f"{image}.{norm}.weight": (width,), f"{image}.{norm}.bias": (width,)}
    attention = "cross_attn" if original else "attn2"
    key, value, norm = ("k_img", "v_img", "norm_k_img") if original else ("add_k_proj", "add_v_proj", "norm_added_k")
    for block in (f"blocks.{number}.{attention}" for number in range(40)):
        names |= _linear(f"{block}.{key}", 5120, 5120) | _linear(f"{block}.{value}", 5120, 5120)
        names[f"{block}.{norm}.weight"] = (5120,)
    return names


def image_encoder(width: int = 1280, *, prefix: str = "vision_model.") -> dict[str, tuple[int, ...]]:
    """Return the CLIP image encoder with 32 layers, as in ComfyUI's `clip_vision_h`."""
    names: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (width,),
        "embeddings.patch_embedding.weight": (width, 3, 14, 14),
        "embeddings.position_embedding.weight": (257, width),
    }
    norms = ["pre_layrnorm", "post_layernorm"]
    for layer in (f"encoder.layers.{number}" for number in range(32)):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            names |= _linear(f"{layer}.self_attn.{part}", width, width)
        names |= _linear(f"{layer}.mlp.fc1", width, 4 * width) | _linear(f"{layer}.mlp.fc2", 4 * width, width)
        norms += [f"{layer}.layer_norm1", f"{layer}.layer_norm2"]
    for norm in norms:
        names |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    return {prefix + name: shape for name, shape in names.items()} | {"visual_projection.weight": (1024, width)}


def a14b(inputs: int = 16, *, original: bool = True, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Return an expert of A14B: 16 input channels for T2V, 36 for I2V."""
    return transformer(5120, 13824, 40, inputs, 16, original=original, prefix=prefix)


def text_encoder(naming: str = "hf", words: int = 256384) -> dict[str, tuple[int, ...]]:
    """Return UMT5-XXL under the names of Hugging Face ("hf"), Wan ("wan") or llama.cpp ("gguf")."""
    table, end, layer, parts = {
        "hf": ("shared.weight", "encoder.final_layer_norm.weight", "encoder.block.{}.layer.", _HF),
        "wan": ("token_embedding.weight", "norm.weight", "blocks.{}.", _WAN),
        "gguf": ("token_embd.weight", "enc.output_norm.weight", "enc.blk.{}.", _GGUF),
    }[naming]
    names: dict[str, tuple[int, ...]] = {table: (words, 4096), end: (4096,)}
    for number in range(24):
        names |= {layer.format(number) + part: shape for part, shape in zip(parts, _PARTS, strict=True)}
    return names


_PARTS: tuple[tuple[int, ...], ...] = (
    *((4096, 4096),) * 4,
    (32, 64),
    (4096,),
    (10240, 4096),
    (10240, 4096),
    (4096, 10240),
    (4096,),
)
_HF = (
    *(f"0.SelfAttention.{part}.weight" for part in "qkvo"),
    "0.SelfAttention.relative_attention_bias.weight",
    "0.layer_norm.weight",
    *(f"1.DenseReluDense.{part}.weight" for part in ("wi_0", "wi_1", "wo")),
    "1.layer_norm.weight",
)
_WAN = (
    *(f"attn.{part}.weight" for part in "qkvo"),
    "pos_embedding.embedding.weight",
    "norm1.weight",
    *(f"ffn.{part}.weight" for part in ("gate.0", "fc1", "fc2")),
    "norm2.weight",
)
_GGUF = (
    *(f"attn_{part}.weight" for part in "qkvo"),
    "attn_rel_b.weight",
    "attn_norm.weight",
    *(f"ffn_{part}.weight" for part in ("gate", "up", "down")),
    "ffn_norm.weight",
)


def vae(channels: int, *, original: bool = True) -> dict[str, tuple[int, ...]]:
    """Return the autoencoder of Wan2.1 (16 channels) or Wan2.2 (48): outer layers by name, the rest as one tensor."""
    encoder, decoder, patch, total = {16: (96, 96, 1, 126_892_531), 48: (160, 256, 2, 704_688_668)}[channels]
    into, out = ("conv1", "head.2") if original else ("conv_in", "conv_out")
    names: dict[str, tuple[int, ...]] = {
        f"decoder.{into}.weight": (4 * decoder, channels, 3, 3, 3),
        f"encoder.{into}.weight": (encoder, 3 * patch**2, 3, 3, 3),
        f"decoder.{out}.weight": (3 * patch**2, decoder, 3, 3, 3),
    }
    return names | {"decoder.middle.rest": (total - sum(prod(shape) for shape in names.values()),)}


def with_scales(shapes: Shapes, ends: Iterable[str] = ("scale_weight",)) -> dict[str, tuple[int, ...]]:
    """Add the scale tensors of 8-bit matrices."""
    scales = {
        f"{name.removesuffix('weight')}{end}": ()
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) == 2
        for end in ends
    }
    return {**shapes, **scales, "scaled_fp8": (2,)}


def _linear(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
