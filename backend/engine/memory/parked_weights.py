"""Weights that wait in host memory and are on the compute device only while needed: whole modules, or block by block.

The host copy is the master and is never written to, so leaving the device costs no transfer. On a CPU, device and
host are the same memory: `bring` still copies, so the code path is that of a GPU. Knows modules, not plans.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

HOST = torch.device("cpu")


class ParkedWeights:
    """All parameters and buffers of a module, optionally except those below one child."""

    def __init__(self, module: nn.Module, device: torch.device, *, without: str | None = None) -> None:
        """Park the weights now.

        Args:
            module: the owner; its tensors are looked up at every move, so a parameter may be replaced.
            device: the compute device.
            without: the name of a child that is left alone.
        """
        self._module = module
        self._device = device
        self._without = None if without is None else f"{without}."
        self._masters: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._copied: torch.cuda.Event | None = None
        for tensor in self._tensors():
            tensor.data = self._pinned(tensor.data.to(HOST))

    @property
    def here(self) -> bool:
        """Whether the weights are on the device."""
        return bool(self._masters)

    def bring(self, stream: torch.cuda.Stream | None = None) -> None:
        """Copy the weights to the device; does nothing if they are there.

        With a stream the copies are only started: call `wait` before using the weights.
        """
        if self._masters:
            return
        try:
            with torch.cuda.stream(stream):
                for tensor in self._tensors():
                    master = tensor.data
                    copy = master.to(self._device, non_blocking=stream is not None, copy=True)
                    self._masters.append((tensor, master))
                    tensor.data = copy
        except BaseException:
            self.drop()  # half a module on the device is useless and takes up memory
            raise
        self._copied = None if stream is None else stream.record_event()

    def wait(self) -> None:
        """Make later computation wait for the copies; does not block the host."""
        if self._copied is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied)

    def drop(self) -> None:
        """Remove the weights from the device; does nothing if they are not there."""
        for tensor, master in self._masters:
            if self._copied is not None:  # allocated on the copy stream, used on the compute stream
                tensor.data.record_stream(torch.cuda.current_stream(self._device))
            tensor.data = master
        self._masters.clear()
        self._copied = None
        for tensor in self._tensors():  # parameters added to the module while it was on the device
            if tensor.device != HOST:
                tensor.data = tensor.data.to(HOST)

    def _tensors(self) -> Iterator[torch.Tensor]:
        for name, tensor in chain(self._module.named_parameters(), self._module.named_buffers()):
            if self._without is None or not name.startswith(self._without):
                yield tensor

    def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """Pin a tensor so that copies to a GPU overlap computation; without pinned memory left they run before it."""
        if self._device.type != "cuda" or tensor.is_pinned():
            return tensor
        try:
            return tensor.pin_memory()
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            return tensor


class BlockStream:
    """The blocks of one transformer, parked in host memory until `stop` and brought in one after the other.

    On a GPU the next block is copied while the current one computes.
    """

    def __init__(self, blocks: nn.ModuleList, device: torch.device) -> None:
        self._parked = [ParkedWeights(block, device) for block in blocks]
        self._copies = _new_stream(device) if device.type == "cuda" else None
        self._handles: list[RemovableHandle] = []
        for index, block in enumerate(blocks):
            self._handles.append(block.register_forward_pre_hook(partial(self._before, index)))
            # Also if the block fails: its weights must not stay on a full device.
            self._handles.append(block.register_forward_hook(partial(self._after, index), always_call=True))

    @property
    def here(self) -> tuple[int, ...]:
        """Indices of the blocks that are on the device."""
        return tuple(index for index, parked in enumerate(self._parked) if parked.here)

    def release(self) -> None:
        """Remove every block from the device, including one copied ahead."""
        for parked in self._parked:
            parked.drop()

    def stop(self) -> None:
        """Stop streaming; the blocks stay in host memory."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.release()

    def _before(self, index: int, block: nn.Module, inputs: object) -> None:
        parked = self._parked[index]
        parked.bring(self._copies)
        parked.wait()
        if self._copies is not None and index + 1 < len(self._parked):
            self._parked[index + 1].bring(self._copies)

    def _after(self, index: int, block: nn.Module, inputs: object, output: object) -> None:
        self._parked[index].drop()


def _new_stream(device: torch.device) -> torch.cuda.Stream:
    cuda: Any = torch.cuda  # torch.cuda.Stream is untyped
    stream: torch.cuda.Stream = cuda.Stream(device)
    return stream
