"""The shapes of the optimization routes: settings, presets, advice. A value that is not known is absent."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from backend.api.estimate_schemas import MachineView
from backend.api.schemas import Timestamp


class OptimizationBody(BaseModel):
    """What the operator asks of the planner; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    quantization: str | None = Field(None, description="auto, bf16 or fp8; older words: fp16 (bf16), int8 (fp8)")
    enable_offload: bool | None = Field(None, description="false: whatever computes stays on the device")
    vae_tile_size: int | None = Field(None, description="Pixels along the side of a tile, 128 to 512")
    max_vram_usage_gb: float | None = Field(
        None, description="GiB that a plan may take, 1 up to the card; null: the whole card but a reserve"
    )


class OptimizationValues(BaseModel):
    """The settings in force."""

    quantization: str
    enable_offload: bool
    vae_tile_size: int
    max_vram_usage_gb: float | None = Field(description="null: the whole card but a reserve")


class EffectView(BaseModel):
    """What settings do to one model at its own size; every number is estimated."""

    model_id: str
    fits: bool
    reason: str
    plan: str | None = None
    vram_gb: float | None = None
    ram_gb: float | None = None
    seconds: float | None = Field(None, description="A run with the model in memory; absent for an unknown card")
    plan_without_settings: str | None = None
    vram_without_settings_gb: float | None = None
    seconds_without_settings: float | None = None


class OptimizationChanged(OptimizationValues):
    """Settings that count from the next request on."""

    message: str
    current_vram_usage_gb: float | None = None
    estimated_vram_savings_gb: float | None = Field(
        None, description="For the largest model that fits with and without them"
    )
    recommendations: list[str]
    effects: list[EffectView]


class PresetView(BaseModel):
    """One preset, and what the planner says about it on this machine."""

    name: str
    description: str
    settings: OptimizationValues
    recommended_for: str
    compatible: bool
    compatibility_reason: str
    vram_savings_gb: float | None = None
    min_vram_gb: float | None = Field(None, description="Of the smallest card that could make any of the models")
    performance_impact: str
    quality_impact: str
    estimated_time_multiplier: float | None = Field(None, description="Against no settings at all")
    effects: list[EffectView]


class PresetSystem(BaseModel):
    """The machine that the presets were weighed for."""

    total_vram_gb: float | None = None
    recommended_presets: list[str]


class Presets(BaseModel):
    """All presets."""

    presets: dict[str, PresetView]
    system_info: PresetSystem


class PresetApplied(BaseModel):
    """A preset that is in force now."""

    message: str
    preset: str
    settings: OptimizationValues
    compatibility_reason: str


class RecommendationView(BaseModel):
    """Something worth doing."""

    kind: str = Field(description="settings, memory, machine or resources")
    message: str
    reason: str = Field(description="The numbers that it was decided from")
    settings: dict[str, Any] | None = Field(None, description="What to send to POST /api/v1/system/optimization for it")


class Recommendations(BaseModel):
    """What would make things better; empty where there is nothing to say."""

    recommendations: list[RecommendationView]
    timestamp: Timestamp


class UsageView(BaseModel):
    """What is in use now."""

    cpu_percent: float
    ram_percent: float
    ram_free_gb: float
    vram_percent: float | None = None
    vram_free_gb: float | None = None
    disk_free_gb: float


class Analysis(BaseModel):
    """How this machine makes videos now, and what would change that."""

    machine: MachineView
    settings: OptimizationValues
    current_usage: UsageView
    effects: list[EffectView]
    mean_seconds_by_phase: dict[str, dict[str, float]] = Field(description="By model, over its newest videos")
    recommendations: list[RecommendationView]
    timestamp: Timestamp
