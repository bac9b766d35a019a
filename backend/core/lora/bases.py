"""Which models a LoRA was made for, found by holding its tensors against every structure that is known.

Nothing in a file names its base reliably, but widths and numbers of blocks do. T2V and I2V of A14B differ
only where their input begins, so a LoRA that does not touch it fits both.
"""

from __future__ import annotations

from collections.abc import Mapping

from backend.core.lora.match import Match, TensorInfo, match_tensors
from backend.core.lora.shape import PUBLISHED, WanShape

UNKNOWN = "unknown"


def fitting_bases(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], shapes: Mapping[str, WanShape]
) -> tuple[str, ...]:
    """Return the names of the structures in which every tensor has a place; of none, those in which most have one.

    Raises:
        ValueError: the metadata cannot be understood.
    """
    matches: dict[str, Match] = {name: match_tensors(tensors, metadata, shape) for name, shape in shapes.items()}
    possible = {name: match for name, match in matches.items() if match.matched and not match.other_model}
    if not possible:
        return ()
    most = max(match.matched for match in possible.values())
    return tuple(name for name, match in possible.items() if match.matched == most)


def base_name(
    tensors: Mapping[str, TensorInfo], metadata: Mapping[str, str], further: Mapping[str, WanShape] | None = None
) -> str:
    """Name the models that a LoRA fits, `unknown` for none; `further` are structures beside the published ones.

    Raises:
        ValueError: the metadata cannot be understood.
    """
    return " or ".join(fitting_bases(tensors, metadata, PUBLISHED | dict(further or {}))) or UNKNOWN
