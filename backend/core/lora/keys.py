"""Parses tensor names of LoRA files: which parameter of the transformer, and which part of a change to it.

Understands the names of diffusers, peft, kohya and musubi, ComfyUI, lightx2v and DiffSynth, in Wan's own and in
diffusers' naming. Knows no shapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from backend.core.catalogue.spec import HIGH, LOW

#: The expert of a LoRA file for both experts, or for a model that has only one.
BOTH = "both"


class Part(StrEnum):
    """What a tensor contributes to the change of a parameter."""

    DOWN = "down"  # [rank, inputs]
    UP = "up"  # [outputs, rank]
    ALPHA = "alpha"  # one number: the change is scaled by alpha / rank
    UP_BIAS = "up_bias"  # [outputs], scaled like the low-rank change
    DIFF = "diff"  # the change itself, in the parameter's shape


class Style(StrEnum):
    """The tool whose naming style a tensor has."""

    DIFFUSERS = "diffusers"
    PEFT = "peft"
    COMFYUI = "comfyui"
    KOHYA = "kohya"
    LIGHTX2V = "lightx2v"
    PLAIN = "plain"  # no prefix


@dataclass(frozen=True, slots=True)
class Key:
    """A parsed tensor name."""

    parameter: str  #: the transformer's parameter, in diffusers' names
    part: Part
    expert: str | None  #: "high" or "low" when the name itself says so
    style: Style


#: Prefixes, with the style and the expert (if any) that each implies. Longest first.
_PREFIXES: tuple[tuple[str, Style, str | None], ...] = (
    ("base_model.model.", Style.PEFT, None),
    ("model.diffusion_model.", Style.COMFYUI, None),
    ("diffusion_model.", Style.COMFYUI, None),
    ("high_noise_model.", Style.PLAIN, HIGH),
    ("low_noise_model.", Style.PLAIN, LOW),
    ("transformer_1.", Style.DIFFUSERS, HIGH),
    ("transformer_2.", Style.DIFFUSERS, LOW),
    ("transformer.", Style.DIFFUSERS, None),
    ("pipe.dit2.", Style.PLAIN, LOW),
    ("pipe.dit.", Style.PLAIN, None),
)
_FLAT_PREFIXES = ("lora_unet_", "lora_transformer_", "lycoris_")
_FLAT_DOTTED_PREFIXES = ("model_diffusion_model_", "diffusion_model_", "transformer_")

_SUFFIX = re.compile(
    r"""^(?P<name>.+?)
        (?: \.lora(?:_|\.)(?P<factor>A|B|down|up) (?:\.(?P<adapter>[A-Za-z0-9_-]+?))?? (?:\.(?P<leaf>weight|bias))?
          | \.(?P<alpha>alpha)
          | \.(?P<diff>diff|diff_b|diff_m|w_norm|b_norm)
        )$""",
    re.VERBOSE,
)

#: Wan's names of the modules in a block, and diffusers' names of the same (Wan's `norm3` is `norm2` there).
_IN_BLOCK = {
    **{f"self_attn.{w}": f"attn1.{d}" for w, d in zip("qkvo", ("to_q", "to_k", "to_v", "to_out.0"), strict=True)},
    **{f"cross_attn.{w}": f"attn2.{d}" for w, d in zip("qkvo", ("to_q", "to_k", "to_v", "to_out.0"), strict=True)},
    "self_attn.norm_q": "attn1.norm_q",
    "self_attn.norm_k": "attn1.norm_k",
    "cross_attn.norm_q": "attn2.norm_q",
    "cross_attn.norm_k": "attn2.norm_k",
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "cross_attn.norm_k_img": "attn2.norm_added_k",
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "modulation": "scale_shift_table",
}
_OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
_BLOCK_NAMES = _IN_BLOCK | {name: name for name in _IN_BLOCK.values()}
_OUTSIDE_NAMES = _OUTSIDE | {name: name for name in _OUTSIDE.values()}
#: kohya writes dots as underscores, converters turn some back, and some too many (`k.img`): only names without any
#: dot are comparable, and only a table of names can undo them.
_FLAT_BLOCK_NAMES = {name.replace(".", "_"): target for name, target in _BLOCK_NAMES.items()}
_FLAT_OUTSIDE_NAMES = {name.replace(".", "_"): target for name, target in _OUTSIDE_NAMES.items()}
_BLOCK = re.compile(r"^blocks\.(\d{1,4})(?:\.(.+))?$")
_FLAT_BLOCK = re.compile(r"^blocks_(\d{1,4})(?:_(.+))?$")
_TABLE = "scale_shift_table"


@lru_cache(maxsize=8192)  # a file is matched against several structures
def read_key(name: str) -> Key | None:
    """Parse a tensor's name; None when it belongs to no Wan transformer."""
    match = _SUFFIX.match(name)
    if match is None or (match["leaf"] == "bias" and match["factor"] in ("A", "down")):
        return None
    path, style, expert = match["name"], Style.KOHYA, None
    prefix = next((one for one in _FLAT_PREFIXES if name.startswith(one)), None)
    if prefix is None:
        path, style, expert = _without_prefixes(path)
    else:
        path = path.removeprefix(prefix)
    if match["adapter"] is not None and style is Style.PLAIN:
        style = Style.PEFT
    if match["diff"] is not None and style is not Style.KOHYA:
        style = Style.LIGHTX2V
    parameter = _parameter(path, match)
    return None if parameter is None else Key(parameter, _part(match), expert, style)


def parameter_name(name: str) -> str | None:
    """Return diffusers' name of a tensor in a complete transformer; None when it is not a parameter."""
    path, _, _ = _without_prefixes(name)
    module, _, leaf = path.rpartition(".")
    target = _target(module if leaf in ("weight", "bias") else path)
    if target is None or target.endswith(_TABLE) is (leaf in ("weight", "bias")):
        return None
    return target if target.endswith(_TABLE) else f"{target}.{leaf}" if leaf in ("weight", "bias") else None


def concerns_module(name: str) -> bool:
    """Whether a tensor stands at a module of a Wan transformer, whatever it means there."""
    path = name
    for prefix in _FLAT_PREFIXES:
        path = path.removeprefix(prefix)
    path, _, _ = _without_prefixes(path)
    parts = path.split(".")
    paths = (".".join(parts[:count]) for count in range(1, len(parts)))
    return any(_target(one) or _flat_target(one) for one in paths)


def adapter_name(name: str) -> str | None:
    """Return the name of the adapter that peft writes into a tensor's name; None without one."""
    match = _SUFFIX.match(name)
    return None if match is None else match["adapter"]


def _target(path: str) -> str | None:
    block = _BLOCK.match(path)
    if block is None:
        return _OUTSIDE_NAMES.get(path)
    target = _BLOCK_NAMES.get(block[2] or "")
    return None if target is None else f"blocks.{int(block[1])}.{target}"


def _without_prefixes(path: str) -> tuple[str, Style, str | None]:
    style, expert = Style.PLAIN, None
    found = True
    while found:
        found = False
        for prefix, its_style, its_expert in _PREFIXES:
            if path.startswith(prefix):
                path = path.removeprefix(prefix)
                style = its_style if style is Style.PLAIN else style
                expert = expert or its_expert
                found = True
    return path, style, expert


def _parameter(path: str, match: re.Match[str]) -> str | None:
    """Return diffusers' name of the parameter that a name means."""
    if match["diff"] == "diff_m":  # lightx2v: `blocks.N.diff_m` is the change of the block's modulation
        block = _BLOCK.match(path) or _FLAT_BLOCK.match(path.removeprefix("_"))
        if block is not None and block[2] is None:
            return f"blocks.{int(block[1])}.{_TABLE}"
        if path == "head":
            return _TABLE
    target = _target(path) or _flat_target(path)
    return None if target is None else _leaf(target, match)


def _flat_target(path: str) -> str | None:
    """Return the target of a name whose dots are underscores, all of them or some."""
    flat = path.replace(".", "_").removeprefix("_")
    for prefix in _FLAT_DOTTED_PREFIXES:
        flat = flat.removeprefix(prefix)
    block = _FLAT_BLOCK.match(flat)
    if block is None:
        return _FLAT_OUTSIDE_NAMES.get(flat)
    target = _FLAT_BLOCK_NAMES.get(block[2] or "")
    return None if target is None else f"blocks.{int(block[1])}.{target}"


def _leaf(path: str, match: re.Match[str]) -> str | None:
    """Return the parameter of a module that is meant, or None when the module has no such parameter."""
    if path.endswith(_TABLE):  # a bare parameter, without weight or bias
        return path if match["diff"] in ("diff", "diff_m") else None
    if match["diff"] == "diff_m":
        return None
    return f"{path}.bias" if match["diff"] in ("diff_b", "b_norm") else f"{path}.weight"


def _part(match: re.Match[str]) -> Part:
    if match["alpha"] is not None:
        return Part.ALPHA
    if match["diff"] is not None:
        return Part.DIFF
    if match["leaf"] == "bias":
        return Part.UP_BIAS
    return Part.DOWN if match["factor"] in ("A", "down") else Part.UP


_ORIGINAL_IN_BLOCK = {target: name for name, target in _IN_BLOCK.items()}
_ORIGINAL_OUTSIDE = {target: name for name, target in _OUTSIDE.items()}


def original_parameter_name(parameter: str) -> str:
    """Return Wan's own name of a transformer's parameter; unknown names are returned unchanged."""
    path, _, leaf = parameter.rpartition(".")
    if leaf == _TABLE:
        path, leaf = parameter, ""
    block = _BLOCK.match(path)
    if block is not None and block[2] is not None:
        name = f"blocks.{block[1]}.{_ORIGINAL_IN_BLOCK.get(block[2], block[2])}"
    else:
        name = _ORIGINAL_OUTSIDE.get(path, path)
    return f"{name}.{leaf}" if leaf else name
