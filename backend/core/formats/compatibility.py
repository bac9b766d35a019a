"""Judges whether stored tensors can fill the parameters of a component: their types, scales and shapes.

The one judge for recognition, folder check and loader. Tells an unsupported form from wrong contents. Knows names
only as keys, no models and no files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Final, Protocol

from backend.core.formats.packed_matrices import UNPACKING
from backend.core.formats.tensors import FLOAT_TYPES

#: Supported types by both formats' names: floats, and the GGUF types whose matrices are unpacked while they compute.
READABLE_TYPES: Final = FLOAT_TYPES | UNPACKING.keys()

#: Common names of types that are not supported, for messages.
_WORDS: Final = {
    "I8": "int8", "U8": "uint8", "I4": "int4", "F4": "fp4", "F6_E2M3": "fp6", "F6_E3M2": "fp6",
    "F8_E8M0": "fp8_e8m0", "I16": "int16", "I32": "int32", "I64": "int64",
}  # fmt: skip
#: Endings of tensors that quantised forms keep beside the weights, and the forms that they indicate.
_FORMS: Final = {
    ".weight_scale_2": "NVFP4",
    ".weight_global_scale": "NVFP4",
    ".weight_packed": "four bits (compressed-tensors)",
    ".SCB": "int8 (bitsandbytes)",
    ".absmax": "four bits (bitsandbytes)",
    ".quant_map": "four bits (bitsandbytes)",
    ".qweight": "int4 (GPTQ, AWQ or Nunchaku)",
    ".qzeros": "int4 (GPTQ or AWQ)",
    ".wscales": "int4 (Nunchaku)",
    ".smooth_factor": "int4 (Nunchaku)",
    ".zero_point": "integers with zero points",
    ".weight_zero_point": "integers with zero points",
    ".scale_zero_point": "integers with zero points",
}
_FORM_PARTS: Final = {".quant_state.bitsandbytes": "four bits (bitsandbytes)"}


class Stored(Protocol):
    """A tensor in a file, as a header describes it."""

    @property
    def dtype(self) -> str:
        """Type by the format's name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in PyTorch's order."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why stored weights cannot be used."""

    reason: str  #: in words that follow a name: "blocks.0.ffn.0.weight is missing"
    supported: bool = True  #: False: the weights are intact, but in a form that this version does not read


def type_in_words(dtype: str) -> str:
    """Return a type as people and the file write it: `int8 (I8)`."""
    word = _WORDS.get(dtype)
    return dtype if word is None else f"{word} ({dtype})"


def form_fault(
    weights: Mapping[str, Stored], scales: Mapping[str, tuple[str, Stored]], names: Collection[str] | None = None
) -> Fault | None:
    """Describe the first weight or scale in an unsupported form; None if all can be read.

    Args:
        weights: the tensors of a component by name, or those of a whole file.
        scales: by the scale's name: the name of the weight that it belongs to, and the scale.
        names: the weights that are needed; None = all.
    """
    for name in weights:
        form = next((form for end, form in _FORMS.items() if name.endswith(end)), None)
        form = form or next((form for part, form in _FORM_PARTS.items() if part in name), None)
        if form is not None:
            return Fault(f"its weights are stored as {form}, which is not supported", supported=False)
    for name in weights if names is None else names:
        if name in weights and weights[name].dtype not in READABLE_TYPES:
            words = type_in_words(weights[name].dtype)
            return Fault(f"{name[:120]} is stored as {words}, which is not supported", supported=False)
    return next((fault for name in scales if (fault := scale_fault(name, *scales[name], weights)) is not None), None)


def scale_fault(name: str, weight: str, scale: Stored, weights: Mapping[str, Stored]) -> Fault | None:
    """Describe why a scale cannot be applied: it must be one number, or one for each row of a weight."""
    owner = weights.get(weight)
    if owner is None:
        return Fault(f"it has a scale that belongs to no weight: {name[:120]}")
    rows = owner.shape[:1]
    if scale.dtype in READABLE_TYPES and (prod(scale.shape) == 1 or scale.shape in (rows, (*rows, 1))):
        return None
    if scale.dtype in READABLE_TYPES and len(scale.shape) != len(owner.shape):
        return Fault(f"it has a scale that belongs to no weight: {name[:120]}")
    form = "MXFP8" if scale.dtype in {"U8", "F8_E8M0"} else "scales for blocks of a matrix"
    words = f"{type_in_words(scale.dtype)} {list(scale.shape)}"
    return Fault(f"{name[:120]} is stored as {words}: {form}, which is not supported", supported=False)


def same_shape(stored: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Compare shapes; converters drop sides of one, and fold a convolution's kernel into fewer sides.

    A folded kernel has the same order of values: its first side is kept or multiplied by the second one, and the rest
    is as it was or one row.
    """
    if stored == wanted:
        return True
    if len(wanted) <= 2:
        return _sides(stored) == _sides(wanted)
    first, second, *rest = wanted
    folded = ((first, second * prod(rest)), (first * second, *rest), (first * second, prod(rest)))
    return _sides(stored) in {_sides(wanted), *(_sides(form) for form in folded)}


def shape_fault(name: str, stored: Stored | None, wanted: tuple[int, ...]) -> Fault | None:
    """Describe why a tensor cannot fill a parameter of this shape: it is missing, or of another shape."""
    if stored is None:
        return Fault(f"{name[:120]} is missing")
    if not same_shape(stored.shape, wanted):
        return Fault(f"{name[:120]} has the shape {list(stored.shape)}, not {list(wanted)}")
    return None


def shapes_fault(stored: Mapping[str, Stored], wanted: Mapping[str, tuple[int, ...]]) -> Fault | None:
    """Describe the first parameter that has no tensor, or one of another shape; None if all fit."""
    return next(
        (fault for name, shape in wanted.items() if (fault := shape_fault(name, stored.get(name), shape)) is not None),
        None,
    )


def _sides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)
