"""The operator's constraints on plans: storage of the weights, offloading, tile size, a VRAM limit; and six presets.

Stored in the section `optimization` of the home's config.json and read at every decision, so a change applies from the
next request. Decides nothing: `optimizer` rejects the plans that violate a constraint.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, floor
from typing import Any, Final

from backend.core.config.definition import Number, OneOf, Switch, plain, read_settings, setting
from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection
from backend.core.errors.lookups import PresetNotFound
from backend.core.planning.hardware import GIB
from backend.core.planning.machine import Machine

SECTION: Final = "optimization"
#: Side of a tile, in pixels.
MIN_TILE, MAX_TILE = 128, 512
#: The smallest VRAM limit, in GiB; no model can run a step in less.
MIN_VRAM_GIB: Final = 1.0
#: The limit where the card is not known; no card has as much.
_VRAM: Final = Number(MIN_VRAM_GIB, 10_000, "GiB", optional=True)


class Quantization(StrEnum):
    """How the experts' weights may be stored."""

    AUTO = "auto"  #: the fastest plan that fits
    BF16 = "bf16"  #: 16 bits: no rounding
    FP8 = "fp8"  #: 8 bits where the device supports it, otherwise as `auto`


#: Values sent by older clients: 16-bit weights compute in bfloat16 here, and the 8-bit form is fp8.
_OLDER_WORDS: Final = {"fp16": Quantization.BF16, "int8": Quantization.FP8}


@dataclass(frozen=True, slots=True)
class OptimizationSettings:
    """The constraints; by default there are none."""

    quantization: Quantization = setting(
        Quantization.AUTO,
        "How the experts' weights may be stored: auto is the fastest plan that fits, bf16 rounds nothing, fp8 takes "
        "8 bits where the device supports them",
        OneOf(Quantization, _OLDER_WORDS),
    )
    enable_offload: bool = setting(
        True,
        "Whether weights may leave the device between their uses; false keeps everything that computes on it",
        Switch(),
    )
    vae_tile_size: int = setting(
        256, "Side of a tile, for plans that decode in tiles", Number(MIN_TILE, MAX_TILE, "pixels", whole=True)
    )
    max_vram_usage_gb: float | None = setting(
        None, "Most GiB of the card that a plan may use; null is the card less a reserve", _VRAM
    )

    @property
    def max_vram(self) -> int | None:
        """The VRAM limit in bytes; None = no limit."""
        return None if self.max_vram_usage_gb is None else int(self.max_vram_usage_gb * GIB)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return plain(self)

    @classmethod
    def from_json(cls, values: dict[str, Any], *, vram: int | None = None) -> OptimizationSettings:
        """Build the settings from JSON values; missing names get their default.

        Args:
            values: by field name; quantization may also be fp16 or int8.
            vram: bytes of the card, the upper bound of the VRAM limit; None = unknown.

        Raises:
            InvalidRequest: a name is unknown, or a value illegal; the message names what is allowed.
        """
        if vram is not None and "max_vram_usage_gb" in values:
            card = ceil(vram / GIB)  # cards have a little less than their nominal size
            replace(_VRAM, highest=card).check("max_vram_usage_gb", values["max_vram_usage_gb"])
        return read_settings(cls, values, "optimization setting")


StoredOptimization = StoredSection[OptimizationSettings]


def stored_optimization(file: ConfigFile) -> StoredOptimization:
    """Return the settings stored in this file."""
    return StoredSection(file, SECTION, OptimizationSettings.from_json)


@dataclass(frozen=True, slots=True)
class OptimizationPreset:
    """A named set of optimization settings; its VRAM limit depends on the card."""

    id: str
    name: str
    description: str
    recommended_for: str
    quantization: Quantization
    enable_offload: bool
    vae_tile_size: int
    vram_share: float | None = None  #: share of the card's memory; None = all but the reserve

    def on(self, machine: Machine) -> OptimizationSettings:
        """Return the settings for this machine; without a card there is no VRAM limit."""
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
            "The fastest plan that leaves part of the card to other programs",
            "a machine that is also used for something else",
            Quantization.AUTO,
            enable_offload=True,
            vae_tile_size=256,
            vram_share=0.85,
        ),
        OptimizationPreset(
            "memory_efficient",
            "Memory efficient",
            "8-bit weights where the card supports them, and not much more than half of its memory",
            "a card that is shared with another program",
            Quantization.FP8,
            enable_offload=True,
            vae_tile_size=256,
            vram_share=0.6,
        ),
        OptimizationPreset(
            "ultra_efficient",
            "Ultra efficient",
            "8-bit weights where the card supports them, the smallest tiles, a third of its memory",
            "a small card, or one that is nearly full",
            Quantization.FP8,
            enable_offload=True,
            vae_tile_size=128,
            vram_share=0.35,
        ),
        OptimizationPreset(
            "high_performance",
            "High performance",
            "Everything stays on the card in 16 bits: nothing is offloaded while it computes",
            "a card that holds a whole model",
            Quantization.BF16,
            enable_offload=False,
            vae_tile_size=512,
        ),
        OptimizationPreset(
            "quality_focused",
            "Quality first",
            "No weight is rounded to 8 bits; what does not fit is offloaded instead, which takes time",
            "final clips",
            Quantization.BF16,
            enable_offload=True,
            vae_tile_size=512,
        ),
        OptimizationPreset(
            "speed_focused",
            "Speed first",
            "The fastest plan that fits the whole card, in 8 bits where nothing else fits",
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
        PresetNotFound: the id is unknown.
    """
    try:
        return PRESETS[preset_id]
    except KeyError:
        raise PresetNotFound(f"There is no preset with this id; the presets are {', '.join(PRESETS)}") from None
