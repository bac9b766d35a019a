"""What each phase of a request has to do, in units that can be compared between requests of any size.

One place for both ways: a plan for a run that begins, and seconds per unit of work from a run that was recorded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from statistics import median

from backend.core.domain import Output
from backend.core.planning.calibration import WARM_SECONDS
from backend.core.requests import HIGH, LOW, GenerationRequest, guidance_plan
from backend.engine.frames.decode import count_chunks
from backend.services.finished_runs import DECODE, DENOISE, ENCODE, FINISH, LOAD, whole_phases
from backend.services.phase_clock import DOWNLOAD_PARTS, CostHistory, Phase, PhasePlan

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
