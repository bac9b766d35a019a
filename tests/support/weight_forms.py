"""Rewrites the weights of a diffusers folder in the other formats in common use.

Each writer replaces the file of one component and returns the values that a reader must obtain, by diffusers' names.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from safetensors.torch import load_file, save_file

from backend.engine.loading.original_names import name_tables

Tensors = dict[str, torch.Tensor]
ALL = ("text_encoder", "vae", "transformer", "transformer_2")
FP8 = torch.float8_e4m3fn
_FP8_MAX = 448.0


def weights_of(folder: Path, component: str) -> Tensors:
    """Read the single safetensors file of a component."""
    (path,) = (folder / component).glob("*.safetensors")
    return load_file(path)


def replace_weights(folder: Path, component: str, tensors: Tensors, name: str | None = None) -> Path:
    """Replace the file of a component, keeping its name unless another is given."""
    (old,) = (folder / component).glob("*.safetensors")
    old.unlink()
    path = old if name is None else old.with_name(name)
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata={"format": "pt"})
    return path


def originally_named(folder: Path, component: str, tensors: Tensors, table: int = 1) -> Tensors:
    """Rename tensors as in Wan's own files (table 1) or as in GGUF text encoders (table 2)."""
    config = json.loads((folder / component / "config.json").read_text())
    names = name_tables(component, tensors, config)[table]
    return {names[key]: value for key, value in tensors.items()}


def write_original(
    folder: Path, component: str, change: Callable[[torch.Tensor], torch.Tensor] = torch.clone, prefix: str = ""
) -> Tensors:
    """Write a component as one file under Wan's own names, applying `change` to every tensor."""
    tensors = {key: change(value) for key, value in weights_of(folder, component).items()}
    named = originally_named(folder, component, tensors)
    replace_weights(
        folder, component, {prefix + key: value for key, value in named.items()}, f"wan_{component}.safetensors"
    )
    return {key: value.float() for key, value in tensors.items()}


def write_scaled_fp8(folder: Path, component: str, *, original: bool, word: str = "scale_weight") -> Tensors:
    """Write a component with 8-bit matrices and a scale for each, as in ComfyUI's files."""
    expected: Tensors = {}
    small: Tensors = {}
    scales: Tensors = {}
    for key, value in weights_of(folder, component).items():
        if value.ndim != 2:
            small[key] = expected[key] = value
            continue
        scale = value.abs().max() / _FP8_MAX
        small[key] = (value / scale).to(FP8)
        scales[key] = scale
        expected[key] = small[key].float() * scale
    if original:
        named = originally_named(folder, component, small)
        names = dict(zip(small, named, strict=True))
    else:
        named, names = small, {key: key for key in small}
    for key, scale in scales.items():
        module = names[key].removesuffix(".weight")
        named[f"{module}.{word}"] = scale
        named[f"{module}.scale_input"] = torch.ones(())
    named["scaled_fp8"] = torch.zeros(2, dtype=FP8)
    replace_weights(folder, component, named, f"{component}_fp8_scaled.safetensors")
    return expected


def write_gguf(
    folder: Path,
    component: str,
    kind: GGMLQuantizationType,
    *,
    table: int = 1,
    change: Callable[[Tensors], Tensors] = dict,
) -> Tensors:
    """Write a component as GGUF: matrices in the given type where their rows allow it, all else in float32.

    Table 2 uses llama.cpp's names and adds a tokenizer. `change` may remove or add tensors, under their names in
    the file.
    """
    tensors = weights_of(folder, component)
    named = originally_named(folder, component, tensors, table)
    own = dict(zip(named, tensors, strict=True))
    (old,) = (folder / component).glob("*.safetensors")
    old.unlink()
    llama = table == 2
    writer = GGUFWriter(old.with_name(f"wan-{kind.name}.gguf"), arch="t5encoder" if llama else "wan")
    if llama:
        writer.add_tokenizer_model("t5")
        writer.add_token_list([f"word {number}" for number in range(50)])
        writer.add_token_scores([-1.0] * 50)
    expected: Tensors = {}
    for name, value in change(named).items():
        data = value.float().numpy()
        if value.ndim == 2 and not value.shape[1] % GGML_QUANT_SIZES[kind][0]:
            packed = gguf.quantize(data, kind)
            writer.add_tensor(name, packed, raw_dtype=kind)
            data = gguf.dequantize(packed, kind)
        else:
            writer.add_tensor(name, data)
        expected[own.get(name, name)] = torch.from_numpy(np.array(data)).reshape(value.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected
