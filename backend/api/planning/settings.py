"""Routes and shapes of the optimization settings: the planner's constraints, their presets, and recommendations.

Unknown values are absent from responses.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from backend.api.http.deps import ServicesDep
from backend.api.http.routing import Routes, refusals
from backend.api.http.shapes import Timestamp
from backend.api.planning.estimate import MachineView, machine_view
from backend.core.domain import iso, utcnow
from backend.core.planning.constraints import OptimizationSettings
from backend.core.planning.optimizer import Option
from backend.services.planning.advisor import Effect, PresetEffect, Recommendation, to_gib
from backend.services.planning.resource_check import Resource
from backend.services.system.container import Services

router = Routes(tags=["optimization"])

PresetId = Annotated[str, Path(description="Id of the preset, as listed", max_length=64)]
#: Relative difference below which two times count as equal.
_SAME = 0.005
_FREEABLE = {Resource.VRAM: "VRAM", Resource.RAM: "memory", Resource.DISK: "disk space"}
_REFUSED = refusals({400: "No model can run here with this preset; nothing was changed", 404: "Unknown preset"})


class OptimizationBody(BaseModel):
    """The planner's constraints; omitted fields keep their values."""

    model_config = ConfigDict(extra="forbid")

    quantization: str | None = Field(None, description="auto, bf16 or fp8; older names: fp16 (bf16), int8 (fp8)")
    enable_offload: bool | None = Field(None, description="false: everything that computes stays on the device")
    vae_tile_size: int | None = Field(None, description="Side of a tile in pixels, 128 to 512")
    max_vram_usage_gb: float | None = Field(
        None, description="GiB that a plan may use, 1 up to the card's memory; null: the card less a reserve"
    )


class OptimizationValues(BaseModel):
    """The settings in force."""

    quantization: str
    enable_offload: bool
    vae_tile_size: int
    max_vram_usage_gb: float | None = Field(None, description="Absent: the card less a reserve")


class EffectView(BaseModel):
    """The effect of settings on one model at its native size; all numbers are estimates."""

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
    """Settings that apply from the next request."""

    message: str
    current_vram_usage_gb: float | None = None
    estimated_vram_savings_gb: float | None = Field(
        None, description="For the largest model that fits both with and without them"
    )
    recommendations: list[str]
    effects: list[EffectView]


class PresetView(BaseModel):
    """One preset and its effect on this machine."""

    name: str
    description: str
    settings: OptimizationValues
    recommended_for: str
    compatible: bool
    compatibility_reason: str
    vram_savings_gb: float | None = None
    min_vram_gb: float | None = Field(None, description="Memory of the smallest card that can run any of the models")
    performance_impact: str
    quality_impact: str
    estimated_time_multiplier: float | None = Field(None, description="Relative to no settings")
    effects: list[EffectView]


class PresetSystem(BaseModel):
    """The machine that the presets were evaluated for."""

    total_vram_gb: float | None = None
    recommended_presets: list[str]


class Presets(BaseModel):
    """All presets."""

    presets: dict[str, PresetView]
    system_info: PresetSystem


class PresetApplied(BaseModel):
    """A preset that now applies."""

    message: str
    preset: str
    settings: OptimizationValues
    compatibility_reason: str


class RecommendationView(BaseModel):
    """A recommendation."""

    kind: str = Field(description="settings, memory, machine or resources")
    message: str
    reason: str = Field(description="The numbers behind it")
    settings: dict[str, Any] | None = Field(
        None, description="Body for POST /api/v1/system/optimization that applies it"
    )


class Recommendations(BaseModel):
    """Possible improvements; may be empty."""

    recommendations: list[RecommendationView]
    timestamp: Timestamp


class UsageView(BaseModel):
    """Current usage."""

    cpu_percent: float
    ram_percent: float
    ram_free_gb: float
    vram_percent: float | None = None
    vram_free_gb: float | None = None
    disk_free_gb: float


class Analysis(BaseModel):
    """How this machine generates videos, and possible improvements."""

    machine: MachineView
    settings: OptimizationValues
    current_usage: UsageView
    effects: list[EffectView]
    mean_seconds_by_phase: dict[str, dict[str, float]] = Field(description="By model, averaged over its newest videos")
    recommendations: list[RecommendationView]
    timestamp: Timestamp


@router.get("/system/optimization", response_model_exclude_none=False, summary="Optimization settings")
def settings(services: ServicesDep) -> OptimizationValues:
    """Return the optimization settings in force."""
    return values_view(services.advisor.current())


@router.post("/system/optimization", summary="Change the optimization settings")
def change(body: OptimizationBody, services: ServicesDep) -> OptimizationChanged:
    """Store settings and apply them to every estimate, request and plan from now on."""
    advisor = services.advisor
    changed = advisor.change(body.model_dump(exclude_unset=True))
    effects = advisor.effects(changed)
    savings = [effect.vram_saved for effect in effects if effect.vram_saved is not None]
    reading = services.stats.read()
    return OptimizationChanged(
        **values_view(changed).model_dump(),
        message=f"Optimization settings updated; they apply from the next request{_in_our_words(body, changed)}",
        current_vram_usage_gb=round(reading.vram_used_mb / 1024, 3) if reading.gpus else None,
        estimated_vram_savings_gb=to_gib(savings[0]) if savings else None,
        recommendations=[f"{one.message} ({one.reason})" for one in advisor.recommendations()],
        effects=[effect_view(effect) for effect in effects],
    )


@router.get("/optimization/presets", summary="Optimization presets")
def presets(services: ServicesDep) -> Presets:
    """List the six presets, each with its effect on this machine."""
    weighed = services.advisor.presets()
    fitting = [one for one in weighed if one.compatible]
    machine = services.advisor.machine
    return Presets(
        presets={one.preset.id: _preset(one) for one in weighed},
        system_info=PresetSystem(
            total_vram_gb=to_gib(machine.vram) if machine.cuda else None,
            recommended_presets=[one.preset.id for one in fitting if (one.main.slower or 1.0) <= 1.0],
        ),
    )


@router.post(
    "/optimization/apply-preset/{preset_id}",
    response_model_exclude_none=False,
    summary="Apply a preset",
    responses=_REFUSED,
)
def apply(preset_id: PresetId, services: ServicesDep) -> PresetApplied:
    """Apply a preset's settings, as `POST /api/v1/system/optimization` does."""
    applied = services.advisor.apply(preset_id)
    return PresetApplied(
        message=f"{applied.preset.name} applies from the next request",
        preset=preset_id,
        settings=values_view(applied.settings),
        compatibility_reason=applied.reason,
    )


@router.get("/optimization/recommendations", summary="Recommendations")
def recommendations(services: ServicesDep) -> Recommendations:
    """List changes that would make videos possible, faster or safer, with the numbers behind each; may be empty."""
    return Recommendations(recommendations=advice(services), timestamp=iso(utcnow()))


@router.get("/optimization/analysis", summary="Analysis of this machine")
def analysis(services: ServicesDep) -> Analysis:
    """Return each model's plan and the reason for it, the mean time of each phase, and recommendations."""
    advisor, usage = services.advisor, services.check_resources().usage
    current = advisor.current()
    phases = advisor.phases()
    return Analysis(
        machine=machine_view(advisor.machine),
        settings=values_view(current),
        current_usage=UsageView(
            cpu_percent=round(100 * usage.cpu, 1),
            ram_percent=round(100 * usage.ram, 1),
            ram_free_gb=usage.ram_free_gb,
            vram_percent=None if usage.vram is None else round(100 * usage.vram, 1),
            vram_free_gb=usage.vram_free_gb,
            disk_free_gb=usage.disk_free_gb,
        ),
        effects=[effect_view(effect) for effect in advisor.effects(current)],
        mean_seconds_by_phase={
            model: {name: round(seconds, 3) for name, seconds in phases[model].items()} for model in phases
        },
        recommendations=advice(services),
        timestamp=iso(utcnow()),
    )


def advice(services: Services) -> list[RecommendationView]:
    """Return recommendations from the planner, the finished tasks and the current usage."""
    short = [
        Recommendation("resources", f"Free {_FREEABLE[one.resource]} before the next large video", one.sentence)
        for one in services.check_resources().shortages
        if one.resource in _FREEABLE
    ]
    return [
        RecommendationView(kind=one.kind, message=one.message, reason=one.reason, settings=one.settings)
        for one in (*services.advisor.recommendations(), *short)
    ]


def _in_our_words(body: OptimizationBody, changed: OptimizationSettings) -> str:
    """Explain which setting an older client's name for the storage of weights stands for."""
    word = changed.quantization if body.quantization is None else body.quantization.lower()
    return "" if word == changed.quantization else f"; {word} is stored as {changed.quantization}"


def values_view(settings: OptimizationSettings) -> OptimizationValues:
    """Build the view of settings."""
    return OptimizationValues(**settings.to_json())


def effect_view(effect: Effect) -> EffectView:
    """Build the view of the effect on a model."""
    free, bound = effect.free.chosen, effect.bound.chosen
    return EffectView(
        model_id=effect.spec.id,
        fits=effect.bound.fits,
        reason=effect.bound.reason,
        plan=None if bound is None else bound.name,
        vram_gb=None if bound is None or not effect.bound.machine.cuda else to_gib(bound.needs.vram),
        ram_gb=None if bound is None else to_gib(bound.needs.ram),
        seconds=_warm(bound, known=effect.bound.seconds_known),
        plan_without_settings=None if free is None else free.name,
        vram_without_settings_gb=None if free is None or not effect.free.machine.cuda else to_gib(free.needs.vram),
        seconds_without_settings=_warm(free, known=effect.free.seconds_known),
    )


def _warm(option: Option | None, *, known: bool) -> float | None:
    return round(option.seconds.warm, 2) if option is not None and known else None


def _preset(weighed: PresetEffect) -> PresetView:
    preset, main = weighed.preset, weighed.main
    times = main.slower if main.bound.fits else None
    return PresetView(
        name=preset.name,
        description=preset.description,
        settings=values_view(weighed.settings),
        recommended_for=preset.recommended_for,
        compatible=weighed.compatible,
        compatibility_reason=weighed.reason,
        vram_savings_gb=to_gib(main.vram_saved),
        min_vram_gb=to_gib(weighed.least_vram),
        performance_impact=_performance(weighed, times),
        quality_impact="weights rounded to 8 bits" if weighed.rounds_weights else "none: weights in 16 bits or more",
        estimated_time_multiplier=None if times is None else round(times, 3),
        effects=[effect_view(effect) for effect in weighed.effects],
    )


def _performance(weighed: PresetEffect, times: float | None) -> str:
    if not weighed.compatible:
        return "none of the relevant models can run with it"
    if times is None:
        return "unknown for this machine"
    model = weighed.main.spec.id
    same = abs(times - 1) < _SAME
    return f"{model} takes as long as without the preset" if same else f"{model} takes {times:.2f} times as long"
