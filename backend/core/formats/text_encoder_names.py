"""Names of the text encoder's parameters in files: those of transformers, Wan and llama.cpp.

Sources: `UMT5EncoderModel` of transformers, `wan/modules/t5.py` of Wan, and the tensor names of llama.cpp's `t5encoder`
architecture, whose matrices have the same layout as in transformers. Knows only names, no files and no shapes.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final


class _Whose(IntEnum):
    """Columns of the tables below."""

    WAN = 0
    LLAMA = 1


#: Modules inside a layer.
_IN_LAYER: Final = {
    "layer.0.layer_norm": ("norm1", "attn_norm"),
    "layer.0.SelfAttention.q": ("attn.q", "attn_q"),
    "layer.0.SelfAttention.k": ("attn.k", "attn_k"),
    "layer.0.SelfAttention.v": ("attn.v", "attn_v"),
    "layer.0.SelfAttention.o": ("attn.o", "attn_o"),
    "layer.0.SelfAttention.relative_attention_bias": ("pos_embedding.embedding", "attn_rel_b"),
    "layer.1.layer_norm": ("norm2", "ffn_norm"),
    "layer.1.DenseReluDense.wi_0": ("ffn.gate.0", "ffn_gate"),
    "layer.1.DenseReluDense.wi_1": ("ffn.fc1", "ffn_up"),
    "layer.1.DenseReluDense.wo": ("ffn.fc2", "ffn_down"),
}
#: Modules outside the layers; transformers has two names for the token embedding.
_OUTSIDE: Final = {
    "shared": ("token_embedding", "token_embd"),
    "encoder.embed_tokens": ("token_embedding", "token_embd"),
    "encoder.final_layer_norm": ("norm", "enc.output_norm"),
}
_LAYERS: Final = ("blocks", "enc.blk")
_LAYER: Final = re.compile(r"^encoder\.block\.(\d+)\.(.+)$")


def wan_text_name(parameter: str) -> str:
    """Translate transformers' name of a parameter into Wan's; unknown names are returned unchanged."""
    return _renamed(parameter, _Whose.WAN)


def llama_text_name(parameter: str) -> str:
    """Translate transformers' name of a parameter into llama.cpp's; unknown names are returned unchanged."""
    return _renamed(parameter, _Whose.LLAMA)


def _renamed(parameter: str, whose: _Whose) -> str:
    module, _, leaf = parameter.rpartition(".")
    layer = _LAYER.match(module)
    if layer is not None and layer[2] in _IN_LAYER:
        return f"{_LAYERS[whose]}.{layer[1]}.{_IN_LAYER[layer[2]][whose]}.{leaf}"
    return f"{_OUTSIDE[module][whose]}.{leaf}" if module in _OUTSIDE else parameter
