"""A transformer's blocks on the device one after the other, each only while it computes.

On a GPU the next block is copied while the present one computes. Knows the order of the blocks and nothing else.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from backend.engine.parked_weights import ParkedWeights


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
