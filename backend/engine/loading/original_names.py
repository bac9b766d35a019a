"""The names under which files store each component's parameters: the library's, Wan's own, llama.cpp's.

Every table maps diffusers' name to the file's name, so that a file can be checked against the whole component. Names
also needed to recognise files are in `core`. Knows nothing about files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from backend.core.formats.text_encoder_names import llama_text_name, wan_text_name
from backend.core.lora.keys import original_parameter_name

#: Prefixes of every name in files made for ComfyUI, or that hold more than a transformer.
PREFIXES = ("model.diffusion_model.", "diffusion_model.")

#: Parts of the VAE that occur once: `AutoencoderKLWan` of diffusers -> `vae2_1.py` and `vae2_2.py` of Wan.
_VAE_PARTS = {
    "quant_conv": "conv1",
    "post_quant_conv": "conv2",
    "encoder.conv_in": "encoder.conv1",
    "encoder.norm_out": "encoder.head.0",
    "encoder.conv_out": "encoder.head.2",
    "decoder.conv_in": "decoder.conv1",
    "decoder.norm_out": "decoder.head.0",
    "decoder.conv_out": "decoder.head.2",
}
#: Inside a residual block: positions in Wan's `nn.Sequential`.
_RESIDUAL = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}
_VAE_MIDDLE = re.compile(r"^(encoder|decoder)\.mid_block\.(attentions|resnets)\.(\d+)\.(.+)$")
#: Levels of the encoder and the decoder; blocks are in one list per level or (2.1's encoder) in a single list.
_VAE_LEVEL = re.compile(
    r"^(?P<half>encoder|decoder)\.(?:down|up)_blocks\.(?P<level>\d+)\."
    r"(?:resnets\.(?P<block>\d+)\.|(?P<resampler>downsampler|upsampler|upsamplers\.0)\.)?(?P<rest>.+)$"
)


def name_tables(component: str, parameters: Iterable[str], config: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return every naming that files use for a component: parameter -> name in the file.

    The first one is the library's own. `config` is the component's `config.json`.
    """
    names = list(parameters)
    own = {name: name for name in names}
    if component == "text_encoder":
        return [own, _table(names, wan_text_name), _table(names, llama_text_name)]
    if component == "image_encoder":  # as written by transformers before 5, and in the published files
        return [own, _table(names, "vision_model.{}".format)]
    if component == "vae":
        blocks, residual = int(config.get("num_res_blocks", 2)), bool(config.get("is_residual", False))
        return [own, _table(names, partial(_vae_name, blocks, residual))]
    return [own, _table(names, original_parameter_name)]


def _table(names: list[str], rename: Callable[[str], str]) -> dict[str, str]:
    return {name: rename(name) for name in names}


def _split(name: str) -> tuple[str, str]:
    module, _, leaf = name.rpartition(".")
    return module, leaf


def _vae_name(res_blocks: int, residual: bool, name: str) -> str:
    module, leaf = _split(name)
    if module in _VAE_PARTS:
        return f"{_VAE_PARTS[module]}.{leaf}"
    middle = _VAE_MIDDLE.match(module)
    if middle is not None:
        half, kind, index, rest = middle.groups()
        if kind == "attentions":
            return f"{half}.middle.1.{rest}.{leaf}"
        return f"{half}.middle.{2 * int(index)}.{_RESIDUAL.get(rest, rest)}.{leaf}"
    level = _VAE_LEVEL.match(module)
    if level is None:
        return name
    return f"{_vae_place(level, res_blocks, residual)}.{_RESIDUAL.get(level['rest'], level['rest'])}.{leaf}"


def _vae_place(level: re.Match[str], res_blocks: int, residual: bool) -> str:
    """Return a block's position in Wan's lists: 2.2 has one list per level, 2.1 one list for all levels."""
    half, index = level["half"], int(level["level"])
    samples = "downsamples" if half == "encoder" else "upsamples"
    blocks = res_blocks if half == "encoder" else res_blocks + 1  # the resampler comes after them
    place = blocks if level["resampler"] is not None else int(level["block"] or 0)
    if residual:
        return f"{half}.{samples}.{index}.{samples}.{place}"
    if half == "encoder":  # diffusers also has a single list here
        return f"{half}.{samples}.{index}"
    return f"{half}.{samples}.{index * (blocks + 1) + place}"
