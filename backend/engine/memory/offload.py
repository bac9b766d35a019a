"""Applies a memory plan to a loaded pipeline: which weights are on the device, when, and in which form.

The order is fixed: load, cast, offload; LoRAs are hooks and copies that move with the weights. Knows the plans of
`core.planning.memory_plan`; does not decide which one is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from backend.core.planning.memory_plan import PLANS, MemoryPlan, Placement, Storage
from backend.engine.memory.parked_weights import HOST, BlockStream, ParkedWeights

#: The default plan: everything on the device, in the precision of the computation.
RESIDENT = PLANS[0]
TEXT_ENCODER = "text_encoder"
IMAGE_ENCODER = "image_encoder"
VAE = "vae"
EXPERTS = ("transformer", "transformer_2")
_BLOCKS = "blocks"
#: Eight-bit floats with a four-bit exponent, the type that diffusers' layer-wise casting is designed for.
_FP8 = torch.float8_e4m3fn


def reading_place(name: str, device: torch.device, plan: MemoryPlan) -> torch.device:
    """Return where to read a component's weights to: the device if they stay there unchanged, else the host."""
    cast = plan.storage is Storage.FP8 and name in EXPERTS
    return device if plan.placement is Placement.RESIDENT and not cast and not _works_on_host(name, plan) else HOST


def settle(name: str, module: nn.Module, device: torch.device, plan: MemoryPlan) -> None:
    """Cast a component that was just read and move it to its device, before the next one is read.

    What needs all components (parking, streaming) is left to `ModelLayout`.
    """
    if plan.storage is Storage.FP8 and name in EXPERTS and not getattr(module, "is_quantized", False):
        _cast(module)
    if plan.placement is Placement.RESIDENT and not _works_on_host(name, plan):
        module.to(device)


def _works_on_host(name: str, plan: MemoryPlan) -> bool:
    """Whether the plan has a switch that keeps a component off the device, and it is set."""
    return bool(getattr(plan, f"{name}_on_cpu", False))


def _cast(expert: Any) -> None:
    if any(parameter.dtype == _FP8 for parameter in expert.parameters()):
        return
    # Embeddings and norms stay as they are, by the class's own patterns.
    expert.enable_layerwise_casting(storage_dtype=_FP8, compute_dtype=expert.dtype)


class ModelLayout:
    """Places the weights of one loaded pipeline."""

    def __init__(self, pipeline: Any, device: torch.device, plan: MemoryPlan = RESIDENT) -> None:
        """Arrange the pipeline's components according to the plan.

        Raises:
            ValueError: the plan's storage is GGUF but the files are not quantised.
        """
        components = {name: getattr(pipeline, name, None) for name in (TEXT_ENCODER, IMAGE_ENCODER, VAE, *EXPERTS)}
        self._modules: dict[str, nn.Module] = {name: one for name, one in components.items() if one is not None}
        self._device = device
        self._plan = self._of_files(plan)
        self._parked: dict[str, ParkedWeights] = {}
        self._streams: dict[str, BlockStream] = {}
        self._users: dict[str, int] = {}
        self._cast = False
        self._arrange()

    @property
    def plan(self) -> MemoryPlan:
        """The current plan."""
        return self._plan

    @property
    def text_device(self) -> torch.device:
        """The device on which prompts are encoded."""
        return HOST if self._plan.text_encoder_on_cpu else self._device

    @property
    def vae_device(self) -> torch.device:
        """The device on which pixels are encoded and decoded."""
        return HOST if self._plan.vae_on_cpu else self._device

    def change(self, plan: MemoryPlan) -> None:
        """Switch to another plan without reading the files again; between two steps, not within one.

        Raises:
            ValueError: the weights were rounded to eight bits and the plan needs them unrounded.
        """
        if self._cast and plan.storage is not Storage.FP8:
            raise ValueError("the weights were rounded; read them from their files again")
        self._release_experts()
        for stream in self._streams.values():
            stream.stop()
        for parked in self._parked.values():
            parked.drop()
        self._streams.clear()
        self._parked.clear()
        self._plan = self._of_files(plan)
        self._arrange()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Keep an encoder or the VAE on the device within the block; the experts make room for it."""
        parked = self._parked.get(name)
        if parked is None:
            yield
            return
        self._release_experts()
        self._users[name] = self._users.get(name, 0) + 1
        try:
            parked.bring()
            yield
        finally:
            self._users[name] -= 1
            if not self._users[name]:
                parked.drop()

    def hold(self, expert: nn.Module) -> None:
        """Bring an expert (without its streamed blocks) to the device; it stays until another component is needed."""
        for name in EXPERTS:
            parked = self._parked.get(name)
            if parked is not None and self._modules[name] is not expert:
                parked.drop()
        for name in EXPERTS:
            parked = self._parked.get(name)
            if parked is not None and self._modules[name] is expert:
                parked.bring()

    def _of_files(self, plan: MemoryPlan) -> MemoryPlan:
        """Return the plan with the storage of the files where these decide it: quantised files stay quantised."""
        if any(getattr(module, "is_quantized", False) for module in self._modules.values()):
            return replace(plan, storage=Storage.GGUF)
        if plan.storage is Storage.GGUF:
            raise ValueError("a plan cannot turn weights into GGUF")
        return plan

    def _arrange(self) -> None:
        plan = self._plan
        if plan.storage is Storage.FP8 and not self._cast:
            self._cast_experts()
        for name, module in self._modules.items():
            if _works_on_host(name, plan):
                module.to(HOST)
            elif plan.placement is Placement.RESIDENT:
                module.to(self._device)
            elif name in EXPERTS and plan.placement is Placement.BLOCK_STREAM:
                self._parked[name] = ParkedWeights(module, self._device, without=_BLOCKS)
                blocks: Any = module.get_submodule(_BLOCKS)
                self._streams[name] = BlockStream(blocks, self._device)
            else:
                self._parked[name] = ParkedWeights(module, self._device)

    def _cast_experts(self) -> None:
        for name in EXPERTS:
            expert: Any = self._modules.get(name)
            if expert is not None:
                _cast(expert)
        self._cast = True

    def _release_experts(self) -> None:
        for name in EXPERTS:
            if name in self._parked:
                self._parked[name].drop()
            if name in self._streams:
                self._streams[name].release()
