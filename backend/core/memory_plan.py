"""How a model is laid out between a device and the host's memory: the closed set of plans.

Free combinations of offload and precision switches break each other, so there are these and no others, each of
them tested. Which one a machine gets is decided in `system_optimizer`; how one is carried out, in the engine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Placement(StrEnum):
    """Where the experts' weights are while they work."""

    RESIDENT = "resident"  #: all experts on the device, all the time
    EXPERT_SWAP = "expert-swap"  #: one expert on the device, the other in host memory
    BLOCK_STREAM = "block-stream"  #: a few blocks on the device at a time, all others in host memory


class Storage(StrEnum):
    """The form in which the experts' weights are kept; all of them compute in bfloat16 (float32 on a CPU)."""

    BF16 = "bf16"
    FP8 = "fp8"
    GGUF = "gguf"  #: the file's own quantisation; decided by the file, not by a plan


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """One plan."""

    placement: Placement
    storage: Storage
    tiled_decode: bool = False  #: decode in overlapping tiles: less memory, pixels differ a little
    text_encoder_on_cpu: bool = False

    def asks_for(self, actual: MemoryPlan) -> bool:
        """Whether a model that is laid out as `actual` is what this plan wants.

        The storage of a quantised GGUF file is no plan's choice.
        """
        return actual == (replace(self, storage=Storage.GGUF) if actual.storage is Storage.GGUF else self)

    @property
    def name(self) -> str:
        """The plan in one word, as receipts and tables name it."""
        return f"{self.placement}-{self.storage}"


#: Every placement and storage that may be combined; the two switches go with each of them.
PLANS: Final = tuple(
    MemoryPlan(placement, storage) for storage in (Storage.BF16, Storage.FP8) for placement in Placement
)
