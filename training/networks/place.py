"""Where and on what a model is trained, and what is noted about it.

Shared by the recipes of all models; knows none of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

#: Checkpoints of every stage, to continue from.
WORK = Path(__file__).parents[1] / ".work"


@dataclass(frozen=True)
class Amounts:
    """How much of everything: fields named `..._steps` and `..._clips` are amounts, the rest is kept when scaled."""

    def scaled(self, share: float) -> Self:
        """Give the same recipe with that share of every step and clip."""
        own = asdict(self)
        amounts = {name: value for name, value in own.items() if name.endswith(("steps", "clips"))}
        return replace(self, **{name: max(2, round(value * share)) for name, value in amounts.items()})


@dataclass(frozen=True)
class Place:
    """Where to train: checkpoints, the finished folder, the device, and whether to compile."""

    out: Path
    work: Path = WORK
    device: str = "cpu"
    compiled: bool = True

    @property
    def torch_device(self) -> torch.device:
        """The device as torch knows it."""
        return torch.device(self.device)


def precision_of(device: torch.device) -> torch.dtype:
    """Return what training computes in: bfloat16 where the device multiplies it fast, else float32.

    Below AVX-512 torch multiplies bfloat16 matrices in a plain loop: 15 to 30 times slower than float32, measured
    on an AVX2 processor for the matrices of these networks.
    """
    fast = device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.bfloat16 if fast else torch.float32


def mixed_precision(device: torch.device) -> torch.autocast:
    """Return the context in which a network of float32 weights computes in the device's precision."""
    precision = precision_of(device)
    return torch.autocast(device.type, precision, enabled=precision is not torch.float32)


def notes_of(
    recipe: Amounts, seconds: dict[str, float], parts: dict[str, Any], place: Place, size: int, frames: int, remark: str
) -> dict[str, Any]:
    """Collect what the model card says about the making."""
    return {
        "recipe": asdict(recipe),
        "seconds": {name: round(value) for name, value in seconds.items()},
        "parameters": {
            name: sum(parameter.numel() for parameter in part.parameters())
            for name, part in parts.items()
            if name != "tokenizer"
        },
        "device": place.device,
        "precision": "float32" if precision_of(place.torch_device) is torch.float32 else "bfloat16 autocast",
        "size": size,
        "frames": frames,
        "remark": remark,
    }
