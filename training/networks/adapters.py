"""Low-rank adapters (LoRA): inserting them into an expert, writing them to a file and merging them into weights.

Owns the file format: keys as diffusers and peft write them (`transformer.` before the module name), and the
header. Does not know what an adapter is trained for.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

_PREFIX = "transformer."
#: The layers of a block that can have an adapter.
ATTENTION = (
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out.0",
    "attn2.to_q",
    "attn2.to_k",
    "attn2.to_v",
    "attn2.to_out.0",
)
FEED_FORWARD = ("ffn.net.0.proj", "ffn.net.2")
#: Name of an expert in file names and headers -> its name in the pipeline.
EXPERTS = {"high_noise": "transformer", "low_noise": "transformer_2"}


class AdaptedLinear(nn.Module):
    """A frozen linear layer plus a low-rank change, which is zero at first."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        nn.init.normal_(self.lora_A.weight, std=1 / math.sqrt(base.in_features))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Add the change to the output of the layer."""
        changed: Tensor = self.base(x) + self.lora_B(self.lora_A(x))
        return changed


class AdapterSet(nn.Module):
    """All adapters of one expert: the trained parameters and the content of a checkpoint."""

    def __init__(self, expert: Any, rank: int, layers: tuple[str, ...]) -> None:
        """Freeze the expert and wrap the layers of every block with adapters of that rank, in place."""
        super().__init__()
        expert.requires_grad_(False)
        self.rank = rank
        self.layers = layers
        self.factors = nn.ModuleList()
        self._names: list[str] = []
        for index, block in enumerate(expert.blocks):
            for layer in layers:
                adapter = AdaptedLinear(block.get_submodule(layer), rank)
                block.set_submodule(layer, adapter)
                self.factors.extend([adapter.lora_A, adapter.lora_B])
                self._names.append(f"blocks.{index}.{layer}")

    def tensors(self) -> dict[str, Tensor]:
        """Return both factors of every layer under their names in the file, in half precision."""
        keys = [f"{_PREFIX}{name}.{factor}.weight" for name in self._names for factor in ("lora_A", "lora_B")]
        weights = [factor.weight for factor in self.factors if isinstance(factor, nn.Linear)]
        return {key: weight.detach().half().cpu().contiguous() for key, weight in zip(keys, weights, strict=True)}

    def header(self) -> dict[str, Any]:
        """Return the peft configuration under diffusers' prefix; alpha equals the rank, so the scale is one."""
        values = {"r": self.rank, "lora_alpha": self.rank, "target_modules": list(self.layers)}
        return {_PREFIX + name: value for name, value in values.items()}


def file_of(folder: Path, name: str, expert: str) -> Path:
    """Return the path of the adapter file of an expert."""
    return folder / f"{name}_{expert}.safetensors"


def write(path: Path, adapter_set: AdapterSet, metadata: dict[str, str]) -> None:
    """Write the adapters of one expert with their header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"format": "pt", "lora_adapter_metadata": json.dumps(adapter_set.header(), sort_keys=True)}
    save_file(adapter_set.tensors(), path, metadata=header | metadata)
    path.chmod(0o644)


@torch.no_grad()
def merge(expert: Any, path: Path, strength: float) -> None:
    """Add the change in a file, times `strength`, to the weights of an expert."""
    with safe_open(path, framework="pt") as file:
        for key in tuple(file.keys()):
            if not key.endswith(".lora_A.weight"):
                continue
            layer = key.removesuffix(".lora_A.weight")
            down, up = file.get_tensor(key).float(), file.get_tensor(f"{layer}.lora_B.weight").float()
            weight = expert.get_submodule(layer.removeprefix(_PREFIX)).weight
            weight += strength * (up @ down).to(weight)


def read_header(path: Path) -> dict[str, str]:
    """Return the header of an adapter file."""
    with safe_open(path, framework="pt") as file:
        header: dict[str, str] = file.metadata()
    return header
