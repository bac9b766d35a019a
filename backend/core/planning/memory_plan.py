"""The closed set of memory plans: how a model is laid out between a device and the host's memory.

Free combinations of offload and precision switches break each other, so only these plans exist, and each is tested.
`optimizer` chooses one for a machine; the engine carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Placement(StrEnum):
    """Where the experts' weights are during denoising."""

    RESIDENT = "resident"  #: all experts on the device, all the time
    EXPERT_SWAP = "expert-swap"  #: one expert on the device, the other in host memory
    BLOCK_STREAM = "block-stream"  #: a few blocks on the device at a time, all others in host memory

    @property
    def offloads(self) -> bool:
        """Whether weights leave the device between their uses."""
        return self is not Placement.RESIDENT


class Storage(StrEnum):
    """How the experts' weights are stored; they compute in bfloat16, on a CPU and some cards in float32."""

    BF16 = "bf16"
    FP8 = "fp8"
    GGUF = "gguf"  #: the file's own quantisation; set by the file, not by a plan


#: Default side of a tile in pixels, as in diffusers (`tile_sample_min_height`).
TILE_SIZE: Final = 256
#: Smallest useful side: below it, most of a tile is overlap with its neighbours.
SMALLEST_TILE: Final = 128


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """One plan."""

    placement: Placement
    storage: Storage
    tiled_decode: bool = False  #: decode in overlapping tiles: less memory, slightly different pixels
    text_encoder_on_cpu: bool = False
    tile_size: int = 256  #: side of a tile in pixels if decoding is tiled; tiles overlap by a quarter
    vae_on_cpu: bool = False  #: never planned: the last rung, used when a denoised clip would otherwise be lost

    def adapted_to(self, actual: MemoryPlan) -> MemoryPlan:
        """Return this plan for a model laid out as `actual`: no plan changes the storage of a GGUF file."""
        return replace(self, storage=Storage.GGUF) if actual.storage is Storage.GGUF else self

    @property
    def name(self) -> str:
        """The plan without its switches, as shown in tables."""
        return f"{self.placement}-{self.storage}"

    @property
    def words(self) -> str:
        """The plan with its switches, as shown in receipts and reasons."""
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
        """Whether a model under this plan can switch to another one without being read from its files again.

        Weights quantised in the file stay so under every plan; weights rounded by a plan cannot be restored.
        """
        return self.storage in (Storage.BF16, Storage.GGUF, other.storage)

    def lowered_to(self, other: MemoryPlan) -> MemoryPlan:
        """Return the plan that, part by part, needs no more memory than either of the two."""
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


def in_precision(words: str, *, float32: bool) -> str:
    """Return words with plans named by what the weights are kept in where everything computes in float32."""
    return words.replace(f"-{Storage.BF16}", "-fp32") if float32 else words


#: All combinations of placement and storage; the two switches combine with each of them.
PLANS: Final = tuple(
    MemoryPlan(placement, storage) for storage in (Storage.BF16, Storage.FP8) for placement in Placement
)
