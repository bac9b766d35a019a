"""Progress and time left of one run: phases weighted by the planner's forecast and corrected by what the run measures.

A guess is never shown as a fact: there is no time left before it follows from a measurement, of this run or of finished
ones. Knows neither the engine nor the database.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from backend.core.catalogue.spec import HIGH, LOW, ModelSpec
from backend.core.domain import Phase
from backend.core.planning.cost_model import Basis, Seconds, forwards_of_steps
from backend.core.requests.forms import GenerationRequest
from backend.engine.frames.decode import count_chunks

#: Units of `Phase.DOWNLOAD`: thousandths of the model's bytes. Their seconds depend on the network alone.
DOWNLOAD_PARTS = 1000
EXPERT_PHASE = {HIGH: Phase.DENOISE_HIGH, LOW: Phase.DENOISE_LOW}
_STEPS = (Phase.DENOISE_HIGH, Phase.DENOISE_LOW)
#: Cost of one unit of a phase without a forecast, in denoising steps: weights of the progress bar, never an ETA.
_TYPICAL_DOWNLOAD, _TYPICAL_LOAD, _TYPICAL_ENCODE, _TYPICAL_CHUNK, _TYPICAL_MUX = 0.05, 3.0, 0.3, 0.5, 0.3
#: A phase that is expected to take no time still has a share of the progress.
_SHORTEST = 1e-12


@dataclass(frozen=True, slots=True)
class PhasePlan:
    """The work of one phase."""

    units: int  #: steps, chunks, or 1; 0 = the phase does not happen
    seconds: float  #: expected for one unit, on one scale for all phases of a run
    known: bool = False  #: whether `seconds` comes from finished runs on this machine; else only its share counts


class PhaseClock:
    """Follows one run through its phases; `fraction` never decreases."""

    def __init__(self, plan: Mapping[Phase, PhasePlan], now: Callable[[], float] = time.monotonic) -> None:
        self._plan = dict(plan)
        self._now = now
        self._done: dict[Phase, int] = dict.fromkeys(Phase, 0)
        self._skipped: dict[Phase, int] = dict.fromkeys(Phase, 0)
        self._seconds: dict[Phase, float] = {}
        self._current: Phase | None = None
        self._began = 0.0
        self._last_unit = 0.0
        self._fraction = 0.0
        self._download_left: float | None = None

    def replan(self, plan: Mapping[Phase, PhasePlan]) -> None:
        """Replace the plans of phases that have not begun."""
        self._plan |= plan

    def split_steps(self, forwards: Sequence[tuple[str, int]]) -> None:
        """Distribute the expected denoising over the steps, given the expert and the forwards of every step."""
        plans = [self._plan[phase] for phase in _STEPS]
        expected = sum(plan.units * plan.seconds for plan in plans)
        self.replan(_plan_steps(forwards, expected, known=all(plan.known for plan in plans)))

    def skip(self, phase: Phase, units: int) -> None:
        """Count units of a phase that has not begun as done: an earlier attempt did them, and they take no time."""
        self._done[phase] = self._skipped[phase] = units

    def begin(self, phase: Phase) -> None:
        """Enter a phase; the previous one is over."""
        self.finish()
        self._current = phase
        self._began = self._last_unit = self._now()

    def restart(self, units: int) -> None:
        """Start the current phase over, divided into other units; the time that it has taken so far stays spent."""
        if self._current is not None:
            now, plan = self._now(), self._plan[self._current]
            self._seconds[self._current] = self._seconds.get(self._current, 0.0) + now - self._began
            self._plan[self._current] = PhasePlan(units, plan.units * plan.seconds / units, plan.known)
            self._done[self._current] = self._skipped[self._current] = 0
            self._began = self._last_unit = now

    def advance(self, units: int = 1) -> None:
        """Count finished units of the current phase."""
        if self._current is not None:
            self._done[self._current] += units
            self._last_unit = self._now()

    def expect(self, seconds: float | None) -> None:
        """Take the time left of `Phase.DOWNLOAD` from the download itself; None = unknown at the moment."""
        self._download_left = seconds

    def finish(self) -> None:
        """Leave the current phase."""
        phase = self._current
        if phase is not None:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + self._now() - self._began
            self._done[phase] = self._plan[phase].units
            self._current = None

    @property
    def seconds(self) -> dict[Phase, float]:
        """Seconds spent in each phase that is over."""
        return dict(self._seconds)

    @property
    def fraction(self) -> float:
        """Share of the run that is done, 0..1."""
        shares = {phase: plan.units * max(plan.seconds, _SHORTEST) for phase, plan in self._plan.items() if plan.units}
        total = sum(shares.values())
        if total > 0:
            done = sum(share * min(1.0, self._done[phase] / self._plan[phase].units) for phase, share in shares.items())
            self._fraction = max(self._fraction, min(1.0, done / total))
        return self._fraction

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end, from what was measured in this run or in finished ones; None until that suffices."""
        remaining = 0.0
        for phase, plan in self._plan.items():
            left = plan.units - self._done[phase]
            if left <= 0:
                continue
            if phase is Phase.DOWNLOAD:
                if self._download_left is None:
                    return None
                remaining += self._download_left
                continue
            unit = self._unit_seconds(phase)
            if unit is None:
                return None
            remaining += left * unit
            if phase is self._current:
                remaining -= min(unit, self._now() - self._last_unit)
        return max(0.0, remaining)

    @property
    def unit_seconds(self) -> float | None:
        """Seconds of one unit of the current phase, as measured in it; None before its first unit is done.

        The first one may include what no other does, such as moving an expert's weights to the device.
        """
        return None if self._current is None else self._measured(self._current)

    def _unit_seconds(self, phase: Phase) -> float | None:
        measured = self._measured(phase)
        if measured is not None:
            return measured
        plan = self._plan[phase]
        if phase in _STEPS or not plan.known:
            # The two experts have the same size; of other phases only the share is known.
            for step in _STEPS:
                measured = self._measured(step)
                if measured is not None:
                    return measured * plan.seconds / max(self._plan[step].seconds, _SHORTEST)
        if not plan.known:
            return None
        # Finished runs are history: how fast this run computes tells more about the rest of it.
        return plan.seconds if phase in (Phase.DOWNLOAD, Phase.LOAD) else plan.seconds * self._pace

    @property
    def _pace(self) -> float:
        """Measured by expected seconds of the steps and chunks of this run so far; 1 before the first."""
        pairs = [
            (measured * (done := self._done[phase] - self._skipped[phase]), self._plan[phase].seconds * done)
            for phase in (*_STEPS, Phase.DECODE)
            if self._plan[phase].known and (measured := self._measured(phase)) is not None
        ]
        expected = sum(one for _, one in pairs)
        return sum(one for one, _ in pairs) / expected if expected > 0 else 1.0

    def _measured(self, phase: Phase) -> float | None:
        """Return the seconds per unit of a phase in this run."""
        done = self._done[phase] - self._skipped[phase]
        if done == 0:
            return None
        if phase is self._current:
            return (self._last_unit - self._began) / done
        return self._seconds[phase] / done if phase in self._seconds else None


def plan_phases(
    spec: ModelSpec, request: GenerationRequest, forecast: Seconds | None, *, warm: bool, fetch: bool = False
) -> dict[Phase, PhasePlan]:
    """Plan a run.

    Args:
        spec: the model of the request.
        request: what is generated.
        forecast: the planner's seconds for this request on this machine; None = typical shares.
        warm: whether the model is in memory.
        fetch: whether its files have to be downloaded first.
    """
    chunks = count_chunks(request.num_frames)
    denoises = request.latents_of is None
    steps = request.steps if denoises else 0
    if forecast is None:
        encode, decode = _TYPICAL_ENCODE, _TYPICAL_CHUNK * chunks
        forecast = Seconds(None, encode, float(steps), 0.0, decode, _TYPICAL_MUX, Basis.ESTIMATED)
    known = forecast.basis is Basis.MEASURED
    denoise = forecast.denoise + forecast.transfer
    step = denoise / steps if steps else forecast.decode / chunks / _TYPICAL_CHUNK
    # A forecast is about the whole model; a request that only decodes loads the decoder alone.
    load = forecast.load if denoises else None
    forwards = forwards_of_steps(spec, request)[:steps]
    return {
        Phase.DOWNLOAD: PhasePlan(DOWNLOAD_PARTS if fetch else 0, _TYPICAL_DOWNLOAD * step),
        Phase.LOAD: PhasePlan(int(not warm), _TYPICAL_LOAD * step if load is None else load, load is not None),
        Phase.ENCODE: PhasePlan(int(denoises), forecast.encode, known),
        **_plan_steps(forwards, denoise, known=known),
        Phase.DECODE: PhasePlan(chunks, forecast.decode / chunks, known),
        Phase.MUX: PhasePlan(1, forecast.finish, known),
    }


def _plan_steps(forwards: Sequence[tuple[str, int]], seconds: float, *, known: bool) -> dict[Phase, PhasePlan]:
    one = seconds / max(1, sum(count for _, count in forwards))
    plans = {}
    for expert, phase in EXPERT_PHASE.items():
        counts = [count for name, count in forwards if name == expert]
        plans[phase] = PhasePlan(len(counts), one * sum(counts) / max(1, len(counts)), known)
    return plans
