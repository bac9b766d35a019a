"""How far a run is and how long it will take: weighted phases, measured times, no guesses shown as facts.

What each phase of a request has to do is counted in units that can be compared between requests of any size: for the
plan of a run that begins, and for seconds per unit of work from a run that was recorded.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from backend.core.catalogue.spec import HIGH, LOW
from backend.core.domain import Output
from backend.core.planning.calibration import WARM_SECONDS
from backend.core.requests import GenerationRequest, guidance_plan
from backend.engine.frames.decode import count_chunks
from backend.services.planning.finished_runs import DECODE, DENOISE, ENCODE, FINISH, LOAD, whole_phases


class Phase(StrEnum):
    """The parts of a run, in their order."""

    DOWNLOAD = "download"
    LOAD = "load"
    ENCODE = "encode"
    DENOISE_HIGH = "denoise_high"
    DENOISE_LOW = "denoise_low"
    DECODE = "decode"
    MUX = "mux"


#: Cost of one unit of each phase, in denoising steps, until something was measured. Only shares of the
#: progress bar depend on it; an ETA is never given from these numbers alone.
_TYPICAL = {
    Phase.DOWNLOAD: 0.05,
    Phase.LOAD: 3.0,
    Phase.ENCODE: 0.3,
    Phase.DENOISE_HIGH: 1.0,
    Phase.DENOISE_LOW: 1.0,
    Phase.DECODE: 0.5,
    Phase.MUX: 0.3,
}
#: A phase that took no measurable time still has a share of the progress.
_SHORTEST = 1e-12
#: Units of `Phase.DOWNLOAD`: thousandths of the model's bytes. What one takes is up to the network and not remembered.
DOWNLOAD_PARTS = 1000
_STEPS = (Phase.DENOISE_HIGH, Phase.DENOISE_LOW)


def _alike(phase: Phase) -> Phase:
    """Name the phase that stands for this one: the two experts have the same size, so their steps cost the same."""
    return Phase.DENOISE_HIGH if phase in _STEPS else phase


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """What a phase has to do."""

    units: int  #: steps, chunks, or 1; 0 = the phase does not happen
    work: float  #: size of one unit, to compare runs of other sizes; any scale, the same in all runs


class CostHistory:
    """Seconds per unit of work, by model and phase, from earlier runs on this machine."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, Phase], float] = {}

    def rate(self, model: str, phase: Phase) -> float | None:
        """Seconds per unit of work, or None when this was never measured."""
        return self._rates.get((model, _alike(phase)))

    def seed(self, model: str, rates: Mapping[Phase, float]) -> None:
        """Take over what earlier processes measured, where this one has measured nothing yet."""
        for phase, rate in rates.items():
            self._rates.setdefault((model, _alike(phase)), max(rate, _SHORTEST))

    def record(self, model: str, phase: Phase, rate: float) -> None:
        """Take in a measurement; newer ones count more."""
        key = model, _alike(phase)
        rate = max(rate, _SHORTEST)
        old = self._rates.get(key)
        self._rates[key] = rate if old is None else (old + rate) / 2


class PhaseClock:
    """Follows one run through its phases; `fraction` never goes back."""

    def __init__(
        self,
        model: str,
        plan: Mapping[Phase, PhasePlan],
        history: CostHistory,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._plan = dict(plan)
        self._history = history
        self._now = now
        self._done: dict[Phase, int] = dict.fromkeys(Phase, 0)
        self._skipped: dict[Phase, int] = dict.fromkeys(Phase, 0)
        self._seconds: dict[Phase, float] = {}
        self._current: Phase | None = None
        self._began = 0.0
        self._last_unit = 0.0
        self._fraction = 0.0
        self._foretold: float | None = None
        self._disturbed = False

    def replan(self, phase: Phase, units: int, work: float | None = None) -> None:
        """Correct the number of units of a phase that has not begun, and the size of one."""
        self._plan[phase] = PhasePlan(units, self._plan[phase].work if work is None else work)

    def skip(self, phase: Phase, units: int) -> None:
        """Count units of a phase that has not begun as done: an earlier attempt did them, and they take no time."""
        self._done[phase] = self._skipped[phase] = units

    def begin(self, phase: Phase) -> None:
        """Enter a phase; the one before is over."""
        self.finish()
        self._current = phase
        self._began = self._last_unit = self._now()

    def restart(self, units: int, work: float) -> None:
        """Begin the current phase anew, in other units; the time that it has taken so far stays spent."""
        if self._current is not None:
            now = self._now()
            self._seconds[self._current] = self._seconds.get(self._current, 0.0) + now - self._began
            self._plan[self._current] = PhasePlan(units, work)
            self._done[self._current] = self._skipped[self._current] = 0
            self._began = self._last_unit = now

    def disturb(self) -> None:
        """Take from now on nothing of this run as an example: a try failed, and what follows is made in another way."""
        self._disturbed = True

    def advance(self, units: int = 1) -> None:
        """Count finished units of the current phase."""
        if self._current is not None:
            self._done[self._current] += units
            self._last_unit = self._now()

    def expect(self, seconds: float | None) -> None:
        """Take the time to the end of `Phase.DOWNLOAD` from who measures its bytes; None = not known now."""
        self._foretold = seconds

    def finish(self) -> None:
        """Leave the current phase and remember what it cost."""
        phase = self._current
        if phase is None:
            return
        elapsed = self._now() - self._began
        self._seconds[phase] = self._seconds.get(phase, 0.0) + elapsed
        plan = self._plan[phase]
        measured = plan.units - self._skipped[phase]
        remembered = phase is not Phase.DOWNLOAD and not self._disturbed
        if remembered and self._done[phase] >= plan.units and measured > 0:
            self._history.record(self._model, phase, elapsed / (measured * plan.work))
        self._done[phase] = plan.units
        self._current = None

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each phase that is over."""
        return {str(phase): value for phase, value in self._seconds.items()}

    @property
    def fraction(self) -> float:
        """How much is done, 0..1."""
        weights = {phase: plan.units * self._weight(phase) for phase, plan in self._plan.items()}
        total = sum(weights.values())
        if total > 0:
            done = sum(
                weight * min(1.0, self._done[phase] / self._plan[phase].units)
                for phase, weight in weights.items()
                if self._plan[phase].units
            )
            self._fraction = max(self._fraction, min(1.0, done / total))
        return self._fraction

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end from what was measured in this run and earlier ones; None until that suffices."""
        remaining = 0.0
        for phase, plan in self._plan.items():
            left = plan.units - self._done[phase]
            if left <= 0:
                continue
            if phase is Phase.DOWNLOAD:
                if self._foretold is None:
                    return None
                remaining += self._foretold
                continue
            unit = self._unit_seconds(phase)
            if unit is None:
                return None
            remaining += left * unit
            if phase is self._current:
                remaining -= min(unit, self._now() - self._last_unit)
        return max(0.0, remaining)

    def _weight(self, phase: Phase) -> float:
        """Cost of one unit, on one scale for all phases: seconds when every phase was measured before."""
        rates = {p: self._history.rate(self._model, p) for p, plan in self._plan.items() if plan.units}
        rate = rates.get(phase)
        if rate is not None and all(value is not None for value in rates.values()):
            return rate * self._plan[phase].work
        return _TYPICAL[phase]

    def _unit_seconds(self, phase: Phase) -> float | None:
        measured = self._measured(phase)
        if measured is not None:
            return measured
        for other in _STEPS if phase in _STEPS else ():
            measured = self._measured(other)
            if measured is not None:
                return measured
        rate = self._history.rate(self._model, phase)
        if rate is not None:
            return rate * self._plan[phase].work
        step = self._unit_seconds(Phase.DENOISE_HIGH) if phase not in _STEPS else None
        return None if step is None else step * _TYPICAL[phase]

    def _measured(self, phase: Phase) -> float | None:
        """Seconds per unit of a phase in this run."""
        done = self._done[phase] - self._skipped[phase]
        if done == 0:
            return None
        if phase is self._current:
            return (self._last_unit - self._began) / done
        return self._seconds[phase] / done if phase in self._seconds else None


EXPERT_PHASE = {HIGH: Phase.DENOISE_HIGH, LOW: Phase.DENOISE_LOW}
#: What `finished_runs` calls the phases that are remembered.
_NAMES = {
    Phase.LOAD: LOAD,
    Phase.ENCODE: ENCODE,
    Phase.DENOISE_HIGH: DENOISE,
    Phase.DENOISE_LOW: DENOISE,
    Phase.DECODE: DECODE,
    Phase.MUX: FINISH,
}
#: How many of a model's newest videos say what to expect.
_RECENT = 5


def plan_phases(
    request: GenerationRequest, *, warm: bool, fetch: bool = False, expert_steps: Mapping[str, int] | None = None
) -> dict[Phase, PhasePlan]:
    """Plan a run.

    Args:
        request: what will be made.
        warm: whether the model is loaded already.
        fetch: whether its files have to be fetched first.
        expert_steps: steps of each expert; without them, what is known before the model is loaded: two experts
            share the steps evenly.
    """
    pixels = float(request.width * request.height * request.num_frames)
    chunks = count_chunks(request.num_frames)
    denoises = request.latents_of is None
    if expert_steps is None:
        high = request.steps if request.guidance_scale_2 is None else request.steps // 2
        expert_steps = {HIGH: high, LOW: request.steps - high}
    experts = [HIGH] * expert_steps.get(HIGH, 0) + [LOW] * expert_steps.get(LOW, 0)
    passes = {HIGH: 0, LOW: 0}
    for expert, scale in zip(experts, guidance_plan(request, experts), strict=True):
        passes[expert] += 1 if scale is None else 2
    guided = sum(passes.values()) > len(experts)
    plan = {
        Phase.DOWNLOAD: PhasePlan(DOWNLOAD_PARTS if fetch else 0, 1.0),
        Phase.LOAD: PhasePlan(0 if warm else 1, 1.0),
        Phase.ENCODE: PhasePlan(int(denoises), 2.0 if guided else 1.0),  # two texts, or one
        Phase.DECODE: PhasePlan(chunks, pixels / chunks),
        Phase.MUX: PhasePlan(1, pixels),
    }
    for expert, phase in EXPERT_PHASE.items():
        steps = experts.count(expert)
        plan[phase] = PhasePlan(steps if denoises else 0, pixels * passes[expert] / steps if steps else pixels)
    return plan


def learn(history: CostHistory, outputs: Iterable[Output], device: str) -> None:
    """Tell a fresh history what the recorded videos (newest first) took on this device."""
    rates: dict[str, dict[Phase, list[float]]] = defaultdict(lambda: defaultdict(list))
    for output in outputs:
        if output.metadata.get("device") != device:
            continue
        try:
            model, measured = _rates(output)
        except (KeyError, TypeError, ValueError, AttributeError):  # a record of another version
            continue
        for phase, rate in measured.items():
            if len(rates[model][phase]) < _RECENT:
                rates[model][phase].append(rate)
    for model, known in rates.items():
        history.seed(model, {phase: median(values) for phase, values in known.items()})


def _rates(output: Output) -> tuple[str, dict[Phase, float]]:
    """Return the model and its seconds per unit of work, as far as one video tells them."""
    request = GenerationRequest.from_json(output.metadata["request"])
    result = output.metadata["result"]
    plan = plan_phases(request, warm=False, expert_steps=result["expert_steps"])
    seconds = {Phase(name): float(value) for name, value in result["seconds"].items()}
    seconds.pop(Phase.DOWNLOAD, None)  # is not part of the time that a video is said to take
    # The record is inside the file, so it was written before the file was: the rest is what that took.
    seconds.setdefault(Phase.MUX, max(0.0, output.generation_seconds - sum(seconds.values())))
    whole = whole_phases(result)
    if result.get("resumed_from_step") is not None:  # an earlier attempt made some of the steps
        whole = tuple(name for name in whole if name != DENOISE)
    seconds = {phase: value for phase, value in seconds.items() if _NAMES[phase] in whole}
    rates = {
        phase: seconds[phase] / (part.units * part.work)
        for phase, part in plan.items()
        if part.units and seconds.get(phase, 0.0) > 0.0
    }
    if seconds.get(Phase.LOAD, 0.0) < WARM_SECONDS:
        rates.pop(Phase.LOAD, None)
    return request.model, rates
