"""Extracts what the records of finished videos show about the machine: phase times, load times and peak memory.

Reads records of any version; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from backend.core.domain import Output, Phase
from backend.core.planning.calibration import Observation, Peak
from backend.core.planning.cost_model import Workload
from backend.core.planning.footprint import footprint
from backend.core.planning.memory_ladder import MemoryUse
from backend.core.planning.memory_plan import PLANS, in_precision
from backend.core.record import RunRecord, RunResult
from backend.core.requests.forms import GenerationRequest

#: In the order of a run; a download says nothing about the machine.
_PHASES: Final = tuple(phase for phase in Phase if phase is not Phase.DOWNLOAD)
_STEPS: Final = (Phase.DENOISE_HIGH, Phase.DENOISE_LOW)
_PLANS = {in_precision(plan.name, float32=wide): plan for plan in PLANS for wide in (True, False)}


def whole_phases(result: RunResult) -> tuple[Phase, ...]:
    """Return the phases that a run completed before memory ran out for the first time; all if it never did.

    The phase in which it did contains a failed attempt, and later ones ran under another plan than the recorded one. A
    record of an older version lacks what the memory was needed for; no phase counts then.
    """
    if not result.fallbacks:
        return _PHASES
    try:
        return _PHASES[: min(_PHASES.index(MemoryUse(one["use"]).phase) for one in result.fallbacks)]
    except (KeyError, ValueError):
        return ()


def observations(outputs: Iterable[Output], *, cuda: bool, float32: bool = False) -> Iterator[Observation]:
    """Yield the phase times of each run; phases that it did not complete are None.

    Args:
        outputs: the finished videos.
        cuda: whether to select runs on a card or those on a processor.
        float32: whether to select runs on a card in float32 or the others.
    """
    for output, request, result in _runs(outputs, cuda=cuda, float32=float32):
        seconds = result.seconds or {}
        whole = set(whole_phases(result))
        if result.resumed_from_step is not None or request.latents_of is not None:
            whole -= {Phase.ENCODE, *_STEPS}
        # The record is inside the file, so it was written before the file was finished: finishing it took the rest.
        rest = output.generation_seconds - sum(seconds.get(phase, 0.0) for phase in _PHASES[:-1])
        yield Observation(
            Workload.of(request),
            denoise_seconds=sum(seconds.get(step, 0.0) for step in _STEPS) if whole.issuperset(_STEPS) else None,
            decode_seconds=seconds.get(Phase.DECODE) if Phase.DECODE in whole else None,
            encode_seconds=seconds.get(Phase.ENCODE) if Phase.ENCODE in whole else None,
            finish_seconds=rest if rest > 0 and Phase.MUX in whole else None,
        )


def loads(outputs: Iterable[Output], *, cuda: bool, float32: bool = False) -> Iterator[tuple[Workload, float]]:
    """Yield each run that needed the whole model, and the seconds it waited for it; arguments as above."""
    for _, request, result in _runs(outputs, cuda=cuda, float32=float32):
        if request.latents_of is None and Phase.LOAD in whole_phases(result):
            yield Workload.of(request), (result.seconds or {}).get(Phase.LOAD, 0.0)


def peaks(outputs: Iterable[Output], *, cuda: bool, float32: bool = False) -> Iterator[Peak]:
    """Yield predicted and peak memory of each run whose record has both."""
    for _, request, result in _runs(outputs, cuda=cuda, float32=float32):
        plan = _PLANS.get(str(result.plan))
        if plan is None or result.fallbacks:
            continue
        work = Workload.of(request)
        needs = footprint(
            work.architecture,
            plan,
            work.size,
            text_tokens=work.text_tokens,
            encoded_frames=work.encoded_frames,
            cpu=not cuda,
            float32=float32,
        )
        yield Peak(needs, ram=result.peak_ram_bytes, vram=result.peak_vram_bytes)


def _runs(
    outputs: Iterable[Output], *, cuda: bool, float32: bool
) -> Iterator[tuple[Output, GenerationRequest, RunResult]]:
    for output in outputs:
        record = RunRecord.from_json(output.metadata)
        request, result = record.requested, record.result
        if request is None or result is None or result.seconds is None or record.device is None:
            continue
        if str(record.device).startswith("cuda") is not cuda:
            continue
        if not cuda or (result.precision == "float32") is float32:
            yield output, request, result
