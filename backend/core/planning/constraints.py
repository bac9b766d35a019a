"""What the operator asks of the planner: how weights are kept, whether they may be moved, tiles, a limit of VRAM.

Kept in the section `optimization` of the home's config.json; read again whenever somebody plans, so a change counts
from the next request on. Decides nothing: `system_optimizer` obeys them as constraints.

Six well-known sets of optimization settings, by name; what one of them means depends on the card.

A table. What each would do to a request is decided by the planner.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from math import ceil, floor, isfinite
from typing import Any, Final

from backend.core.config.file import ConfigFile
from backend.core.config.section import StoredSection
from backend.core.errors import InvalidRequest, PresetNotFound
from backend.core.planning.hardware import GIB
from backend.core.planning.machine import Machine

SECTION: Final = "optimization"
#: Pixels along the side of a tile.
MIN_TILE, MAX_TILE = 128, 512
#: Less than this holds no step of any model; GiB.
MIN_VRAM_GIB: Final = 1.0


class Quantization(StrEnum):
    """The form in which the experts' weights may be kept."""

    AUTO = "auto"  #: the fastest plan that fits
    BF16 = "bf16"  #: 16 bits: no rounding
    FP8 = "fp8"  #: 8 bits wherever the device can; elsewhere as `auto`


#: Words of older clients: 16-bit weights compute in bfloat16 here, and the 8-bit form is fp8.
_OLDER_WORDS: Final = {"fp16": Quantization.BF16, "int8": Quantization.FP8}


@dataclass(frozen=True, slots=True)
class OptimizationSettings:
    """The constraints; the defaults constrain nothing."""

    quantization: Quantization = Quantization.AUTO
    enable_offload: bool = True  #: False: whatever computes stays on the device
    vae_tile_size: int = 256  #: pixels along the side of a tile, where a plan decodes in tiles
    max_vram_usage_gb: float | None = None  #: GiB that a plan may take at most; None = the card without its reserve

    @property
    def max_vram(self) -> int | None:
        """The limit in bytes."""
        return None if self.max_vram_usage_gb is None else int(self.max_vram_usage_gb * GIB)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any], *, vram: int | None = None) -> OptimizationSettings:
        """Build the settings from JSON values; what is left out is the default.

        Args:
            values: quantization (also fp16 and int8), enable_offload, vae_tile_size, max_vram_usage_gb.
            vram: bytes of the card, which no limit may exceed; None = unknown.

        Raises:
            InvalidRequest: a value is not one of its kind or out of its range, which the message names.
        """
        unknown = set(values) - set(cls.__slots__)
        if unknown:
            raise InvalidRequest(f"There is no optimization setting of this name; there are {', '.join(cls.__slots__)}")
        merged = cls().to_json() | values
        offload = merged["enable_offload"]
        if not isinstance(offload, bool):
            raise InvalidRequest("enable_offload must be true or false", details={"field": "enable_offload"})
        return cls(
            quantization=_quantization(merged["quantization"]),
            enable_offload=offload,
            vae_tile_size=_tile(merged["vae_tile_size"]),
            max_vram_usage_gb=_limit(merged["max_vram_usage_gb"], vram),
        )


#: The settings as a file keeps them.
StoredOptimization = StoredSection[OptimizationSettings]


def stored_optimization(file: ConfigFile) -> StoredOptimization:
    """Return the settings that this file keeps."""
    return StoredSection(file, SECTION, OptimizationSettings.from_json)


def _quantization(value: object) -> Quantization:
    try:
        word = str(value).lower()
        return _OLDER_WORDS.get(word) or Quantization(word)
    except ValueError:
        allowed = [*Quantization, *_OLDER_WORDS]
        raise InvalidRequest(
            f"quantization must be one of {', '.join(allowed)}", details={"field": "quantization", "allowed": allowed}
        ) from None


def _tile(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not MIN_TILE <= value <= MAX_TILE:
        raise _outside("vae_tile_size", MIN_TILE, MAX_TILE, "pixels")
    return value


def _limit(value: object, vram: int | None) -> float | None:
    if value is None:
        return None
    highest = None if vram is None else ceil(vram / GIB)  # cards are sold in round numbers and have a little less
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise _outside("max_vram_usage_gb", MIN_VRAM_GIB, highest, "GiB")
    if value < MIN_VRAM_GIB or (highest is not None and value > highest):
        raise _outside("max_vram_usage_gb", MIN_VRAM_GIB, highest, "GiB")
    return float(value)


def _outside(field: str, lowest: float, highest: float | None, unit: str) -> InvalidRequest:
    words = f"at least {lowest:g}" if highest is None else f"between {lowest:g} and {highest:g}"
    return InvalidRequest(
        f"{field} must be {words} {unit}", details={"field": field, "minimum": lowest, "maximum": highest}
    )


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
