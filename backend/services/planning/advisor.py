"""The effect of optimization settings on this machine according to the planner: savings, presets, recommendations.

Weighs the models that matter here at their native size, and reads the times of finished tasks. Measures nothing itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from backend.core.catalogue.table import ModelSpec
from backend.core.domain import Output
from backend.core.errors.lookups import PresetDoesNotFit
from backend.core.errors.requests import InvalidRequest
from backend.core.planning.constraints import (
    PRESETS,
    OptimizationPreset,
    OptimizationSettings,
    StoredOptimization,
    find_preset,
)
from backend.core.planning.hardware import GIB
from backend.core.planning.machine import VRAM_RESERVE, VRAM_RESERVE_SHARE, Machine
from backend.core.planning.memory_plan import Storage
from backend.core.planning.optimizer import Decision
from backend.core.record import RunRecord
from backend.models.folder.manager import ModelManager
from backend.services.planning.forecast import Forecast
from backend.store.gallery.outputs import OutputStore

#: Number of newest videos to evaluate.
RECENT: Final = 20
#: Settings that slow a video down by more than this factor are worth a recommendation.
_NOTABLE: Final = 1.1


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of settings on one model at its native size."""

    spec: ModelSpec
    free: Decision  #: without any constraint
    bound: Decision  #: under the settings

    @property
    def vram_saved(self) -> int | None:
        """VRAM saved by the settings, in bytes; None without a card, or if one of the two does not fit."""
        if self.free.chosen is None or self.bound.chosen is None or not self.bound.machine.cuda:
            return None
        return self.free.chosen.needs.vram - self.bound.chosen.needs.vram

    @property
    def slower(self) -> float | None:
        """Run time relative to no settings; None if times are unknown or one of the two does not fit."""
        if self.free.chosen is None or self.bound.chosen is None or not self.bound.seconds_known:
            return None
        return self.bound.chosen.seconds.warm / self.free.chosen.seconds.warm


@dataclass(frozen=True, slots=True)
class PresetEffect:
    """The effect of one preset here."""

    preset: OptimizationPreset
    settings: OptimizationSettings
    effects: tuple[Effect, ...]

    @property
    def main(self) -> Effect:
        """The effect on the largest model that fits with it, or on the largest one if none fits."""
        return next((one for one in self.effects if one.bound.fits), self.effects[0])

    @property
    def compatible(self) -> bool:
        """Whether any of the models that matter here fits with it."""
        return any(one.bound.fits for one in self.effects)

    @property
    def reason(self) -> str:
        """Why it is compatible, or why not."""
        return f"{self.main.spec.id}: {self.main.bound.reason}"

    @property
    def least_vram(self) -> int | None:
        """Smallest card in bytes that can run the least demanding model; None if no card is needed."""
        needs = [
            option.needs.vram
            for effect in self.effects
            for option in effect.bound.options
            if option.possible and option.needs.vram
        ]
        if not needs:
            return None
        least = min(needs)
        return int(max(least + VRAM_RESERVE, least / (1 - VRAM_RESERVE_SHARE), least / (self.preset.vram_share or 1.0)))

    @property
    def rounds_weights(self) -> bool:
        """Whether the chosen plan stores weights in 8 bits."""
        chosen = self.main.bound.chosen
        return chosen is not None and chosen.plan.storage is Storage.FP8


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A recommendation."""

    kind: str  #: settings, memory or machine
    message: str
    reason: str  #: including the numbers behind it
    settings: dict[str, Any] | None = None  #: values to send to the settings endpoint


class OptimizationAdvisor:
    """Advises on the machine and the models of one server."""

    def __init__(
        self, kept: StoredOptimization, forecast: Forecast, models: ModelManager, outputs: OutputStore
    ) -> None:
        self._kept = kept
        self._forecast = forecast
        self._models = models
        self._outputs = outputs

    @property
    def machine(self) -> Machine:
        """The machine that decisions are made for."""
        return self._forecast.machine

    def current(self) -> OptimizationSettings:
        """Return the settings in force."""
        return self._kept.current()

    def change(self, values: dict[str, Any]) -> OptimizationSettings:
        """Put settings in force; those not named keep their values.

        Raises:
            InvalidRequest: a value is out of its range on this machine; nothing was changed.
            BadSettings: config.json cannot be read, and is left unchanged.
        """
        return self._kept.change(values, self.parser(values))

    def parser(self, values: Mapping[str, Any]) -> Callable[[dict[str, Any]], OptimizationSettings]:
        """Return the parser that judges new values by this machine.

        Raises:
            InvalidRequest: they limit the memory of a card that is not there.
        """
        machine = self.machine
        if values.get("max_vram_usage_gb") is not None and not machine.cuda:
            raise InvalidRequest(
                "This machine has no card whose memory could be limited",
                suggestions=("Leave max_vram_usage_gb out, or send null.",),
                details={"field": "max_vram_usage_gb"},
            )
        return partial(OptimizationSettings.from_json, vram=machine.vram)

    def effects(self, settings: OptimizationSettings) -> tuple[Effect, ...]:
        """Return the effect of settings on each model that matters here, largest first."""
        free = OptimizationSettings()
        return tuple(
            Effect(spec, self._forecast.decide_native(spec, free), self._forecast.decide_native(spec, settings))
            for spec in self._references()
        )

    def native_decisions(self) -> dict[ModelSpec, Decision]:
        """Weigh a clip of every model at its native size under the settings in force."""
        current = self.current()
        return {state.spec: self._forecast.decide_native(state.spec, current) for state in self._models.states()}

    def presets(self) -> list[PresetEffect]:
        """Return the effect of each preset here."""
        return [self._weighed(preset) for preset in PRESETS.values()]

    def apply(self, preset_id: str) -> PresetEffect:
        """Put a preset in force.

        Raises:
            PresetNotFound: the id is unknown.
            PresetDoesNotFit: no model could make a video here with it; nothing was changed.
            BadSettings: config.json cannot be read, and is left unchanged.
        """
        weighed = self._weighed(find_preset(preset_id))
        if not weighed.compatible:
            raise PresetDoesNotFit(weighed.reason, details={"preset": preset_id})
        self.change(weighed.settings.to_json())
        return weighed

    def recommendations(self) -> list[Recommendation]:
        """Return possible improvements, each with its numbers; may be empty."""
        current = self.current()
        found = [one for effect in self.effects(current) if (one := self._about(effect, current)) is not None]
        return found + _about_fallbacks(self._outputs.list(limit=RECENT))

    def phases(self) -> dict[str, dict[str, float]]:
        """Return the mean seconds of each phase by model, over the newest videos."""
        sums: dict[str, Counter[str]] = {}
        counts: Counter[str] = Counter()
        for output in self._outputs.list(limit=RECENT):
            record = RunRecord.from_json(output.metadata)
            model = record.request.get("model")
            if model and record.result and record.result.seconds:
                counts[model] += 1
                sums.setdefault(model, Counter()).update(record.result.seconds)
        return {model: {phase: total / counts[model] for phase, total in one.items()} for model, one in sums.items()}

    def _references(self) -> list[ModelSpec]:
        """Return the models that matter here: the installed full-size ones, or, with none, all that a card may hold."""
        states = self._models.states()
        large = [state for state in states if not state.spec.embedded]
        here = [state for state in large if state.available]
        chosen = here or (large if self.machine.cuda else [state for state in states if state.available])
        return sorted((state.spec for state in chosen or states), key=lambda spec: spec.weights_gb, reverse=True)

    def _weighed(self, preset: OptimizationPreset) -> PresetEffect:
        settings = preset.on(self.machine)
        return PresetEffect(preset, settings, self.effects(settings))

    def _about(self, effect: Effect, current: OptimizationSettings) -> Recommendation | None:
        model, free, bound = effect.spec.id, effect.free, effect.bound
        free_values = OptimizationSettings().to_json()
        looser = {name: free_values[name] for name, value in current.to_json().items() if value != free_values[name]}
        if free.chosen is None:
            return Recommendation(
                "machine", f"{model} at its native size needs another machine or a smaller request", free.reason
            )
        if bound.chosen is None:
            message = f"The optimization settings keep {model} from running; without them it fits"
            return Recommendation("settings", message, f"{bound.reason}. Without them: {free.reason}", looser)
        times = effect.slower
        if times is not None and times > _NOTABLE:
            reason = (
                f"{bound.chosen.seconds.warm:.0f} s with {bound.chosen.name}, "
                f"{free.chosen.seconds.warm:.0f} s with {free.chosen.name} ({free.chosen.seconds.basis})"
            )
            message = f"With the optimization settings {model} takes {times:.1f} times as long as without"
            return Recommendation("settings", message, reason, looser)
        return None


def _about_fallbacks(outputs: Sequence[Output]) -> list[Recommendation]:
    """Recommend a VRAM limit if finished tasks ran out of memory."""
    results = [RunRecord.from_json(output.metadata).result for output in outputs]
    readable = [[one for one in result.fallbacks if {"from", "to"} <= set(one)] for result in results if result]
    taken = [steps[0] for steps in readable if steps]
    if not taken:
        return []
    where, count = Counter((step["from"], step["to"]) for step in taken).most_common(1)[0]
    return [
        Recommendation(
            "memory",
            "Lower max_vram_usage_gb, so that runs start with the plan that they end up with",
            f"{len(taken)} of the last {len(outputs)} videos ran out of memory; {count} of them went from {where[0]} "
            f"to {where[1]}",
        )
    ]


def to_gib(size: int | None) -> float | None:
    """Convert bytes to GiB, rounded for responses."""
    return None if size is None else round(size / GIB, 3)
