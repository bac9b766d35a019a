"""Weights that wait in host memory and are on the compute device only while they are needed.

The host's copy is the master and is never written to, so leaving the device costs no transfer. On a CPU, device
and host are the same memory: bringing still makes a copy, so what runs is what would run on a GPU.

A transformer's blocks on the device one after the other, each only while it computes.

On a GPU the next block is copied while the present one computes. Knows the order of the blocks and nothing else.
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
    """All parameters and buffers of a module, or all but those below one name."""

    def __init__(self, module: nn.Module, device: torch.device, *, without: str | None = None) -> None:
        """Park them now.

        Args:
            module: what they belong to; what stands in it is looked up at every move, so a parameter may be replaced.
            device: where they are brought to.
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
        """Whether they are on the device."""
        return bool(self._masters)

    def bring(self, stream: torch.cuda.Stream | None = None) -> None:
        """Copy them to the device; does nothing when they are there.

        With a stream the copies are only begun: call `wait` before the weights are used.
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
            self.drop()  # half a module on the device would be of no use, and takes room
            raise
        self._copied = None if stream is None else stream.record_event()

    def wait(self) -> None:
        """Let what is computed from now on wait for the copies; does not block the host."""
        if self._copied is not None:
            torch.cuda.current_stream(self._device).wait_event(self._copied)

    def drop(self) -> None:
        """Take them off the device; does nothing when they are not there."""
        for tensor, master in self._masters:
            if self._copied is not None:  # allocated for the stream of the copies, used by that of the computation
                tensor.data.record_stream(torch.cuda.current_stream(self._device))
            tensor.data = master
        self._masters.clear()
        self._copied = None
        for tensor in self._tensors():  # what was put into the module while it was on the device
            if tensor.device != HOST:
                tensor.data = tensor.data.to(HOST)

    def _tensors(self) -> Iterator[torch.Tensor]:
        for name, tensor in chain(self._module.named_parameters(), self._module.named_buffers()):
            if self._without is None or not name.startswith(self._without):
                yield tensor

    def _pinned(self, tensor: torch.Tensor) -> torch.Tensor:
        """From pinned memory a copy to a GPU runs beside its computation; where none is left, it runs before it."""
        if self._device.type != "cuda" or tensor.is_pinned():
            return tensor
        try:
            return tensor.pin_memory()
        except RuntimeError as error:
            if "memory" not in str(error):
                raise
            return tensor


class BlockStream:
    """The blocks of one transformer, parked in host memory until `stop`."""

    def __init__(self, blocks: nn.ModuleList, device: torch.device) -> None:
        self._parked = [ParkedWeights(block, device) for block in blocks]
        self._copies = _new_stream(device) if device.type == "cuda" else None
        self._handles: list[RemovableHandle] = []
        for index, block in enumerate(blocks):
            self._handles.append(block.register_forward_pre_hook(partial(self._before, index)))
            # Also when the block fails: its weights must not stay on a device that has no room.
            self._handles.append(block.register_forward_hook(partial(self._after, index), always_call=True))

    @property
    def here(self) -> tuple[int, ...]:
        """The blocks that are on the device now."""
        return tuple(index for index, parked in enumerate(self._parked) if parked.here)

    def release(self) -> None:
        """Take every block off the device; one may be there that was copied ahead."""
        for parked in self._parked:
            parked.drop()

    def stop(self) -> None:
        """Leave the blocks to somebody else, in host memory."""
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
    cuda: Any = torch.cuda  # its classes have no types of their own
    stream: torch.cuda.Stream = cuda.Stream(device)
    return stream
