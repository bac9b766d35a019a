"""LoRA files in every common format, all written from one adapter, and the same adapter merged by hand.

The adapter is a set of changes under diffusers' parameter names; each writer below renames them as one trainer
does. Everything is seeded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from backend.core.catalogue.transformer import WanShape

RANK = 4
ALPHA = 2.0
#: diffusers' module name -> Wan's, for the modules of one block and those outside the blocks.
TO_WAN = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn1.norm_q": "self_attn.norm_q",
    "attn1.norm_k": "self_attn.norm_k",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.norm_q": "cross_attn.norm_q",
    "attn2.norm_k": "cross_attn.norm_k",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "norm2": "norm3",
    "patch_embedding": "patch_embedding",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
}
LINEARS = (
    *(f"attn1.to_{one}" for one in ("q", "k", "v", "out.0")),
    *(f"attn2.to_{one}" for one in ("q", "k", "v", "out.0")),
    "ffn.net.0.proj",
    "ffn.net.2",
)


@dataclass(frozen=True, eq=False)
class Adapter:
    """Low-rank changes by module and full changes by parameter, under diffusers' names."""

    low_rank: dict[str, tuple[torch.Tensor, torch.Tensor]]  #: module -> down [rank, inputs], up [outputs, rank]
    full: dict[str, torch.Tensor]  #: parameter -> change, in its shape
    alpha: float = ALPHA

    def merged_into(self, transformer: torch.nn.Module, strength: float) -> None:
        """Add the changes to the weights, computed in float64."""
        with torch.no_grad():
            for module, (down, up) in self.low_rank.items():
                weight = transformer.get_submodule(module).weight
                scale = strength * self.alpha / down.shape[0]
                product = (scale * (up.double() @ down.double())).reshape(weight.shape)
                weight += product.to(weight.device, weight.dtype)
            for name, change in self.full.items():
                parameter = transformer.get_parameter(name)
                parameter += (strength * change).to(parameter.device, parameter.dtype)


def random_adapter(
    shape: WanShape, *, seed: int = 0, size: float = 0.2, full: bool = False, modules: tuple[str, ...] = LINEARS
) -> Adapter:
    """Create an adapter for every block; `full` adds norms, biases, modulation and the layers outside the blocks."""
    generator = torch.Generator().manual_seed(seed)
    parameters = shape.parameters()

    def noise(*sides: int) -> torch.Tensor:
        return torch.randn(*sides, generator=generator) * size

    low_rank = {}
    for index in range(shape.layers):
        for module in modules:
            outputs, inputs = parameters[f"blocks.{index}.{module}.weight"]
            low_rank[f"blocks.{index}.{module}"] = (noise(RANK, inputs), noise(outputs, RANK))
    changes: dict[str, torch.Tensor] = {}
    if full:
        names = [
            "scale_shift_table",
            "patch_embedding.weight",
            "patch_embedding.bias",
            "proj_out.weight",
            "proj_out.bias",
        ]
        names += ["condition_embedder.time_proj.bias", "condition_embedder.text_embedder.linear_2.weight"]
        for index in range(shape.layers):
            block = f"blocks.{index}"
            names += [f"{block}.scale_shift_table", f"{block}.norm2.weight", f"{block}.norm2.bias"]
            names += [f"{block}.attn1.norm_q.weight", f"{block}.attn2.norm_k.weight", f"{block}.attn1.to_q.bias"]
            names += [f"{block}.ffn.net.2.bias"]
        changes = {name: noise(*parameters[name]) for name in names}
    return Adapter(low_rank, changes)


def wan_name(module: str) -> str:
    """Return Wan's name of a diffusers module."""
    parts = module.split(".")
    if parts[0] == "blocks":
        return ".".join([*parts[:2], TO_WAN[".".join(parts[2:])]])
    return TO_WAN[module]


def diffusers_file(adapter: Adapter, prefix: str = "transformer.") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write as diffusers does: alpha in the header."""
    tensors = {}
    for module, (down, up) in adapter.low_rank.items():
        tensors[f"{prefix}{module}.lora_A.weight"] = down
        tensors[f"{prefix}{module}.lora_B.weight"] = up
    component = prefix.rstrip(".") or "transformer"
    config = {
        f"{component}.r": RANK,
        f"{component}.lora_alpha": adapter.alpha,
        f"{component}.target_modules": sorted(
            {module.partition(".")[2].partition(".")[2] for module in adapter.low_rank}
        ),
    }
    return tensors, {"format": "pt", "lora_adapter_metadata": json.dumps(config)}


def diffusers_unprefixed(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write diffusers' names without a prefix."""
    return diffusers_file(adapter, "")


def peft_file(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write as peft does, with alpha folded into the factors, because peft stores alpha in a separate file."""
    tensors = {}
    for module, (down, up) in adapter.low_rank.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = down
        tensors[f"base_model.model.{module}.lora_B.weight"] = up * (adapter.alpha / RANK)
    return tensors, {}


def adapter_named_file(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write as DiffSynth does: Wan's names with the adapter name inside."""
    tensors = {}
    for module, (down, up) in adapter.low_rank.items():
        tensors[f"{wan_name(module)}.lora_A.default.weight"] = down
        tensors[f"{wan_name(module)}.lora_B.default.weight"] = up * (adapter.alpha / RANK)
    return tensors, {}


def comfyui_file(adapter: Adapter, *, factors: str = "AB") -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write as ComfyUI does: its prefix, Wan's names, alpha tensors."""
    tensors = {}
    down_word, up_word = ("lora_A", "lora_B") if factors == "AB" else ("lora_down", "lora_up")
    for module, (down, up) in adapter.low_rank.items():
        name = f"diffusion_model.{wan_name(module)}"
        tensors[f"{name}.{down_word}.weight"] = down
        tensors[f"{name}.{up_word}.weight"] = up
        tensors[f"{name}.alpha"] = torch.tensor(adapter.alpha)
    return tensors, {}


def comfyui_down_up(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write as ComfyUI does, with `lora_down` and `lora_up` for the two factors."""
    return comfyui_file(adapter, factors="down/up")


def kohya_file(
    adapter: Adapter, *, prefix: str = "lora_unet_", wan: bool = True
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write as kohya and musubi do: underscores for dots, alpha tensors."""
    tensors = {}
    for module, (down, up) in adapter.low_rank.items():
        name = prefix + (wan_name(module) if wan else module).replace(".", "_")
        tensors[f"{name}.lora_down.weight"] = down
        tensors[f"{name}.lora_up.weight"] = up
        tensors[f"{name}.alpha"] = torch.tensor(adapter.alpha)
    return tensors, {"ss_network_dim": str(RANK), "ss_network_alpha": str(adapter.alpha)}


def kohya_two_underscores(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write kohya's names with the double underscore of some converters."""
    return kohya_file(adapter, prefix="lora_unet__")


def kohya_diffusers_names(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write kohya's format with diffusers' names."""
    return kohya_file(adapter, wan=False)


def lightx2v_file(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write as lightx2v does: factors where they save space, full differences for the rest, no alpha."""
    tensors = {}
    for module, (down, up) in adapter.low_rank.items():
        name = f"diffusion_model.{wan_name(module)}"
        tensors[f"{name}.lora_down.weight"] = down
        tensors[f"{name}.lora_up.weight"] = up * (adapter.alpha / RANK)
    return tensors | _differences(adapter), {}


def differences_only(adapter: Adapter) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Write every change as a full difference."""
    products = {
        f"diffusion_model.{wan_name(module)}.diff": (up @ down) * (adapter.alpha / RANK)
        for module, (down, up) in adapter.low_rank.items()
    }
    return products | _differences(adapter), {}


def _differences(adapter: Adapter) -> dict[str, torch.Tensor]:
    tensors = {}
    for parameter, change in adapter.full.items():
        module, _, leaf = parameter.rpartition(".")
        if leaf == "scale_shift_table":
            tensors[f"diffusion_model.{module or 'head'}.diff_m"] = change
        else:
            tensors[f"diffusion_model.{wan_name(module)}.{'diff' if leaf == 'weight' else 'diff_b'}"] = change
    return tensors


#: Every writer of the low-rank part of an adapter.
FORMATS = {
    writer.__name__: writer
    for writer in (
        diffusers_file,
        diffusers_unprefixed,
        peft_file,
        adapter_named_file,
        comfyui_file,
        comfyui_down_up,
        kohya_file,
        kohya_two_underscores,
        kohya_diffusers_names,
        lightx2v_file,
        differences_only,
    )
}


def write_lora(path: Path, content: tuple[Mapping[str, torch.Tensor], Mapping[str, str]], **metadata: str) -> Path:
    """Save tensors and header fields (two underscores stand for a dot in their names) and return the path."""
    tensors, header = content
    extra = {name.replace("__", "."): value for name, value in metadata.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={**header, **extra})
    return path
