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
    """The form in which the experts' weights are kept; they compute in bfloat16, on a CPU and some cards in float32."""

    BF16 = "bf16"
    FP8 = "fp8"
    GGUF = "gguf"  #: the file's own quantisation; decided by the file, not by a plan


#: Side of a tile in pixels where nothing else is said; the one that diffusers takes (`tile_sample_min_height`).
TILE_SIZE: Final = 256
#: The smallest side that is worth it: below, most of a tile is its overlap with others.
SMALLEST_TILE: Final = 128


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """One plan."""

    placement: Placement
    storage: Storage
    tiled_decode: bool = False  #: decode in overlapping tiles: less memory, pixels differ a little
    text_encoder_on_cpu: bool = False
    tile_size: int = 256  #: pixels along the side of a tile, where decoding is tiled; tiles overlap by a quarter
    vae_on_cpu: bool = False  #: never chosen beforehand: the last rung, where a finished clip would else be lost

    def adapted_to(self, actual: MemoryPlan) -> MemoryPlan:
        """Return this plan for a model that is laid out as `actual`: a GGUF file's storage is no plan's choice."""
        return replace(self, storage=Storage.GGUF) if actual.storage is Storage.GGUF else self

    @property
    def name(self) -> str:
        """The plan in one word, as tables name it."""
        return f"{self.placement}-{self.storage}"

    @property
    def words(self) -> str:
        """The plan with its switches, as receipts and reasons name it."""
        tiled = "tiled decode" if self.tile_size == TILE_SIZE else f"tiled decode ({self.tile_size} px)"
        extras = [
            word
            for word, on in (
                (tiled, self.tiled_decode),
                ("text encoder on the CPU", self.text_encoder_on_cpu),
                ("VAE on the CPU", self.vae_on_cpu),
            )
            if on
        ]
        return self.name + (f" with {' and '.join(extras)}" if extras else "")

    def reaches(self, other: MemoryPlan) -> bool:
        """Whether a model that is laid out so can go over to another plan without being read from its files again.

        What its file has quantised stays so under every plan; what a plan has rounded does not come back.
        """
        return self.storage in (Storage.BF16, Storage.GGUF, other.storage)

    def lowered_to(self, other: MemoryPlan) -> MemoryPlan:
        """Return the plan that needs no more than either of the two, part by part."""
        order = list(Placement)
        tiles = [plan.tile_size for plan in (self, other) if plan.tiled_decode]
        return MemoryPlan(
            max(self.placement, other.placement, key=order.index),
            self.storage if self.storage is not Storage.BF16 else other.storage,
            self.tiled_decode or other.tiled_decode,
            self.text_encoder_on_cpu or other.text_encoder_on_cpu,
            min(tiles) if tiles else self.tile_size,
            self.vae_on_cpu or other.vae_on_cpu,
        )


#: Every placement and storage that may be combined; the two switches go with each of them.
PLANS: Final = tuple(
    MemoryPlan(placement, storage) for storage in (Storage.BF16, Storage.FP8) for placement in Placement
)
