"""Six well-known sets of optimization settings, by name; what one of them means depends on the card.

A table. What each would do to a request is decided by the planner.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Final

from backend.core.errors import PresetNotFound
from backend.core.hardware import GIB
from backend.core.machine import Machine
from backend.core.optimization_settings import MIN_VRAM_GIB, OptimizationSettings, Quantization


@dataclass(frozen=True, slots=True)
class OptimizationPreset:
    """One set."""

    id: str
    name: str
    description: str
    recommended_for: str
    quantization: Quantization
    enable_offload: bool
    vae_tile_size: int
    vram_share: float | None = None  #: of the card's memory; None = all but the reserve

    def on(self, machine: Machine) -> OptimizationSettings:
        """Return the settings that it means on this machine; without a card there is no limit of VRAM."""
        limit = None
        if self.vram_share is not None and machine.cuda and machine.vram is not None:
            limit = max(MIN_VRAM_GIB, floor(10 * self.vram_share * machine.vram / GIB) / 10)
        return OptimizationSettings(self.quantization, self.enable_offload, self.vae_tile_size, limit)


PRESETS: Final = {
    preset.id: preset
    for preset in (
        OptimizationPreset(
            "balanced",
            "Balanced",
            "The fastest plan that leaves a part of the card to other programs",
            "a machine that is also used for something else",
            Quantization.AUTO,
            enable_offload=True,
            vae_tile_size=256,
            vram_share=0.85,
        ),
        OptimizationPreset(
            "memory_efficient",
            "Memory efficient",
            "Weights in 8 bit where the card can, and not much more than half of its memory",
            "a card that is shared with another program",
            Quantization.FP8,
            enable_offload=True,
            vae_tile_size=256,
            vram_share=0.6,
        ),
        OptimizationPreset(
            "ultra_efficient",
            "Ultra efficient",
            "Weights in 8 bit where the card can, the smallest tiles, a third of its memory",
            "a small card, or one that is nearly full",
            Quantization.FP8,
            enable_offload=True,
            vae_tile_size=128,
            vram_share=0.35,
        ),
        OptimizationPreset(
            "high_performance",
            "High performance",
            "Everything stays on the card in 16 bit: nothing is moved while it computes",
            "a card that holds a whole model",
            Quantization.BF16,
            enable_offload=False,
            vae_tile_size=512,
        ),
        OptimizationPreset(
            "quality_focused",
            "Quality first",
            "No weight is rounded to 8 bit; what does not fit is moved instead, which takes time",
            "final clips",
            Quantization.BF16,
            enable_offload=True,
            vae_tile_size=512,
        ),
        OptimizationPreset(
            "speed_focused",
            "Speed first",
            "The fastest plan that fits the whole card, in 8 bit where that is what fits",
            "drafts",
            Quantization.AUTO,
            enable_offload=True,
            vae_tile_size=512,
        ),
    )
}


def find_preset(preset_id: str) -> OptimizationPreset:
    """Return the preset of this id.

    Raises:
        PresetNotFound: there is none.
    """
    try:
        return PRESETS[preset_id]
    except KeyError:
        raise PresetNotFound(f"There is no such preset; there are {', '.join(PRESETS)}") from None
