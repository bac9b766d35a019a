"""Where and on which device a model is trained, in which precision, and the notes about its training.

Shared by all recipes; knows none of them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch

#: Checkpoints of every stage, from which training resumes.
WORK = Path(__file__).parents[1] / ".work"


@dataclass(frozen=True)
class ScalableRecipe:
    """Base of the recipes: fields named `..._steps` and `..._clips` are amounts, which scale; the others do not."""

    def scaled(self, share: float) -> Self:
        """Return this recipe with its numbers of steps and clips multiplied by `share`."""
        own = asdict(self)
        amounts = {name: value for name, value in own.items() if name.endswith(("steps", "clips"))}
        return replace(self, **{name: max(2, round(value * share)) for name, value in amounts.items()})


@dataclass(frozen=True)
class Workspace:
    """Where to train: folder of the finished model, folder of checkpoints, device, and whether to compile."""

    out: Path
    work: Path = WORK
    device: str = "cpu"
    compiled: bool = True

    @property
    def torch_device(self) -> torch.device:
        """The device as a torch object."""
        return torch.device(self.device)


def precision_of(device: torch.device) -> torch.dtype:
    """Return the training precision: bfloat16 where the device multiplies it fast, else float32.

    Without AVX-512, torch multiplies bfloat16 matrices in a plain loop, 15 to 30 times slower than float32
    (measured on an AVX2 processor for the matrices of these networks).
    """
    fast = device.type != "cpu" or torch.backends.cpu.get_cpu_capability() == "AVX512"
    return torch.bfloat16 if fast else torch.float32


def mixed_precision(device: torch.device) -> torch.autocast:
    """Return the autocast context in which float32 weights compute in the training precision of the device."""
    precision = precision_of(device)
    return torch.autocast(device.type, precision, enabled=precision is not torch.float32)


def notes_of(
    recipe: ScalableRecipe,
    seconds: dict[str, float],
    parts: dict[str, Any],
    workspace: Workspace,
    size: int,
    frames: int,
    remark: str,
) -> dict[str, Any]:
    """Collect the facts about the training that the model card reports."""
    return {
        "recipe": asdict(recipe),
        "seconds": {name: round(value) for name, value in seconds.items()},
        "parameters": {
            name: sum(parameter.numel() for parameter in part.parameters())
            for name, part in parts.items()
            if name != "tokenizer"
        },
        "device": workspace.device,
        "precision": "float32" if precision_of(workspace.torch_device) is torch.float32 else "bfloat16 autocast",
        "size": size,
        "frames": frames,
        "remark": remark,
    }
