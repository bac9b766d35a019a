"""Applies the changes of one or more LoRAs to one transformer, and removes them, without touching its weights.

Linear and convolution layers get a hook that adds to their output, y + s·(x·Aᵀ)·Bᵀ, so no weight is rounded or
merged and any weight storage works. Norms and modulation tables are small: they are replaced by changed copies and
restored later. Knows tensors, not files or requests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True, slots=True)
class LowRank:
    """ΔW = scale · up · down; the scale includes the strength."""

    down: torch.Tensor  #: [rank, inputs]
    up: torch.Tensor  #: [outputs, rank]
    scale: float
    bias: torch.Tensor | None = None  #: [outputs], scaled in the same way


@dataclass(frozen=True, slots=True)
class Difference:
    """ΔP = scale · value, for a parameter P of any kind."""

    value: torch.Tensor
    scale: float


@dataclass(slots=True)
class ExpertPatch:
    """All changes to one expert, by parameter name; tensors are on the CPU, in the file's dtype."""

    changes: dict[str, list[LowRank | Difference]] = field(default_factory=dict)

    def add(self, parameter: str, change: LowRank | Difference) -> None:
        """Add a change; changes to the same parameter add up."""
        self.changes.setdefault(parameter, []).append(change)

    def put_on(self, transformer: nn.Module, device: torch.device) -> InstalledPatch:
        """Activate the changes in a transformer that computes on `device`."""
        installed = InstalledPatch()
        with ExitStack() as undo:
            undo.callback(installed.take_off)
            for path, parameters in self._by_module().items():
                module = transformer.get_submodule(path)
                if isinstance(module, nn.Linear | nn.Conv3d):
                    kind = LinearDelta if isinstance(module, nn.Linear) else ConvolutionDelta
                    delta = kind(parameters.get("weight", []), parameters.get("bias", []))
                    delta.prepare(device, _compute_dtype(module))
                    installed.handles.append(module.register_forward_hook(delta))
                else:
                    for name, changes in parameters.items():
                        installed.replace(module, name, changes)
            undo.pop_all()
        return installed

    def _by_module(self) -> dict[str, dict[str, list[LowRank | Difference]]]:
        modules: dict[str, dict[str, list[LowRank | Difference]]] = {}
        for parameter, changes in self.changes.items():
            path, _, name = parameter.rpartition(".")
            modules.setdefault(path, {})[name] = changes
        return modules


@dataclass(slots=True)
class InstalledPatch:
    """The changes active in a transformer, and how to undo them."""

    handles: list[RemovableHandle] = field(default_factory=list)
    originals: list[tuple[nn.Module, str, nn.Parameter]] = field(default_factory=list)

    def replace(self, module: nn.Module, name: str, changes: Sequence[LowRank | Difference]) -> None:
        """Replace a small parameter with a changed copy."""
        original: nn.Parameter = getattr(module, name)
        value = original.detach().to(torch.float32)
        for change in changes:
            if isinstance(change, LowRank):
                raise ValueError(f"{name} is not a matrix")
            value = value + change.scale * change.value.to(value.device, torch.float32).reshape(value.shape)
        self.originals.append((module, name, original))
        setattr(module, name, nn.Parameter(value.to(original.dtype), requires_grad=False))

    def take_off(self) -> None:
        """Undo everything; the transformer's weights are the same tensor objects as before."""
        for handle in self.handles:
            handle.remove()
        for module, name, original in reversed(self.originals):
            copy: nn.Parameter = getattr(module, name)
            if copy.device != original.device:  # the model was moved in the meantime
                original = nn.Parameter(original.detach().to(copy.device), requires_grad=original.requires_grad)
            setattr(module, name, original)
        self.handles.clear()
        self.originals.clear()


class LayerDelta(ABC):
    """A forward hook that adds the changes of one layer to its output."""

    def __init__(self, weight: Sequence[LowRank | Difference], bias: Sequence[LowRank | Difference]) -> None:
        self._low_rank = [change for change in weight if isinstance(change, LowRank)]
        self._full = [change for change in weight if isinstance(change, Difference)]
        self._biases = [(change.bias, change.scale) for change in self._low_rank if change.bias is not None]
        self._biases += [(change.value, change.scale) for change in bias if isinstance(change, Difference)]
        self._place: tuple[torch.device, torch.dtype] | None = None
        self._bias: torch.Tensor | None = None

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        """Copy the tensors to the layer's device and dtype; scales are applied in float32."""
        self._bias = _moved(_total(self._biases, device), dtype)
        self._place = (device, dtype)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        """Return the layer's output with the changes added."""
        x: torch.Tensor = inputs[0]
        if self._place != (x.device, x.dtype):
            self.prepare(x.device, x.dtype)
        return self._added(module, x, output)

    @abstractmethod
    def _added(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor: ...


class LinearDelta(LayerDelta):
    """Low-rank products, full differences and biases of a linear layer."""

    _down: torch.Tensor | None = None
    _up: torch.Tensor | None = None
    _difference: torch.Tensor | None = None

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        """Copy the tensors to the layer's device and dtype; several LoRAs become one product of a larger rank."""
        LayerDelta.prepare(self, device, dtype)
        if self._low_rank:
            self._down = torch.cat([change.down.to(device, dtype) for change in self._low_rank])
            ups = [(change.up.to(device, torch.float32) * change.scale).to(dtype) for change in self._low_rank]
            self._up = torch.cat(ups, dim=1)
        self._difference = _moved(_total([(one.value, one.scale) for one in self._full], device), dtype)

    def _added(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        if self._down is not None and self._up is not None:
            output = output + functional.linear(functional.linear(x, self._down), self._up).to(output.dtype)
        if self._difference is not None:
            output = output + functional.linear(x, self._difference).to(output.dtype)
        return output if self._bias is None else output + self._bias.to(output.dtype)


class ConvolutionDelta(LayerDelta):
    """The same for the patch embedding; its matrix is small, so products are multiplied out."""

    _kernel: torch.Tensor | None = None

    def prepare(self, device: torch.device, dtype: torch.dtype) -> None:
        """Copy the kernel's change to the layer's device and dtype."""
        LayerDelta.prepare(self, device, dtype)
        products = [
            (change.up.to(torch.float32) @ change.down.to(torch.float32), change.scale) for change in self._low_rank
        ]
        full = [(change.value.flatten(1), change.scale) for change in self._full]
        self._kernel = _moved(_total(products + full, device), dtype)

    def _added(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        if self._kernel is not None and isinstance(module, nn.Conv3d):
            kernel = self._kernel.reshape(-1, module.in_channels, *module.kernel_size)
            output = output + functional.conv3d(x, kernel, stride=module.stride).to(output.dtype)
        return output if self._bias is None else output + self._bias.to(output.dtype).reshape(1, -1, 1, 1, 1)


def _total(values: Sequence[tuple[torch.Tensor, float]], device: torch.device) -> torch.Tensor | None:
    """Return the sum of the scaled tensors in float32."""
    total: torch.Tensor | None = None
    for value, scale in values:
        scaled = value.to(device, torch.float32) * scale
        total = scaled if total is None else total + scaled
    return total


def _moved(value: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if value is None else value.to(dtype)


def _compute_dtype(module: nn.Module) -> torch.dtype:
    """Return the dtype in which a layer most likely computes; the first input corrects a wrong guess."""
    dtype: torch.dtype = next(module.parameters()).dtype
    return dtype if dtype in (torch.float32, torch.bfloat16, torch.float16) else torch.bfloat16
