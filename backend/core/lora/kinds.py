"""What a file is that holds no LoRA for Wan: another method, number format, a complete model, or several LoRAs.

Decided by names and types alone. Such a file is intact; it is unsupported, and the sentence says why.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from backend.core.formats.tensors import FLOAT_TYPES, TensorInfo
from backend.core.lora.keys import Part, adapter_name, parameter_name, read_key

#: Tensors that only other methods than LoRA have. DoRA's and LoCon's stand beside LoRA factors and change what those
#: mean.
_METHODS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\.lokr_(?:w[12](?:_[ab])?|t[12])$"), "LoKr"),
    (re.compile(r"\.hada_(?:w[12]_[ab]|t[12])$"), "LoHa"),
    (re.compile(r"\.(?:oft_(?:blocks|diag|R)(?:\.[\w-]+)*|rescale)$"), "OFT"),
    (re.compile(r"\.[ab][12]\.weight$"), "GLoRA"),
    (re.compile(r"\.on_input$"), "IA3"),
    (re.compile(r"\.(?:dora_scale|lora_magnitude_vector(?:\.[\w-]+)*)$"), "DoRA"),
    (re.compile(r"\.lora_mid\.weight$"), "LoCon with three factors"),
)
_TEXT_ENCODER = re.compile(
    r"^(?:base_model\.model\.)?(?:lora_te\d?_|lora_t5|text_encoders?[._\d]|te\d?\.|cond_stage_model\.|text_model\.|t5|umt5"
    r"|conditioner\.|clip_[lgh]\.|bundle_emb\.)"
)


def method_of(name: str) -> str | None:
    """Name the method, other than LoRA, that a tensor belongs to; None for all other tensors."""
    return next((method for pattern, method in _METHODS if pattern.search(name)), None)


def for_text_encoder(name: str) -> bool:
    """Whether a tensor changes the text encoder or adds words to it."""
    return _TEXT_ENCODER.match(name) is not None


#: Prefixes of the other models in a checkpoint that has everything in one file.
_OTHER_MODELS = re.compile(r"^(?:vae|first_stage_model|text_encoders?|cond_stage_model|conditioner)[._]")
_SUPPORTED = "only low-rank factors (LoRA) and full differences are"
_SHOWN_ADAPTERS = 3
#: Parts that other methods also have.
_SCALARS = frozenset({Part.ALPHA})


def several_loras(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Say in one sentence which LoRAs a file bundles under the names of adapters; None when it holds one."""
    adapters = sorted({adapter for name in tensors if read_key(name) and (adapter := adapter_name(name))})
    if len(adapters) < 2:
        return None
    shown = ", ".join(adapters[:_SHOWN_ADAPTERS]) + (", …" if len(adapters) > _SHOWN_ADAPTERS else "")
    return f"The file bundles {len(adapters)} LoRAs ({shown}), which is not supported: save each in a file of its own"


def unsupported_kind(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Say in one sentence why an intact file is not a supported LoRA; None when nothing in it is recognised."""
    if any(key.part not in _SCALARS for name in tensors if (key := read_key(name))):
        types = sorted({info.dtype for name, info in tensors.items() if read_key(name)} - FLOAT_TYPES)
        return (
            f"Tensors of type {', '.join(types)} are not supported in a LoRA, only floating-point ones"
            if types
            else None
        )
    methods = Counter(method for name in tensors if (method := method_of(name)))
    if methods:
        return f"The file is a {methods.most_common(1)[0][0]}, which is not supported: {_SUPPORTED}"
    if any(parameter_name(name) for name in tensors):
        bundled = any(_OTHER_MODELS.match(name) for name in tensors)
        what = "a checkpoint that bundles a complete model with its encoders" if bundled else "a complete model"
        return f"The file is {what}, not a LoRA; add it with `wan22 models add`"
    if tensors and all(for_text_encoder(name) for name in tensors):
        return "The file changes only the text encoder, which is not supported: LoRAs change the transformer"
    return None
