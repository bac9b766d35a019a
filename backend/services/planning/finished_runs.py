"""Extracts what the records of finished videos show about the machine: phase times, load times and peak memory.

Reads records of any version; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from backend.core.domain import Output
from backend.core.planning.calibration import Observation, Peak
from backend.core.planning.cost_model import Workload
from backend.core.planning.footprint import footprint
from backend.core.planning.memory_ladder import MemoryUse
from backend.core.planning.memory_plan import PLANS
from backend.core.requests import GenerationRequest

LOAD, ENCODE, DENOISE, DECODE, FINISH = "load", "encode", "denoise", "decode", "finish"
#: In the order of a run; the two experts are one phase here.
_PHASES: Final = (LOAD, ENCODE, DENOISE, DECODE, FINISH)
_SECONDS: Final = ("load", "encode", "denoise_high", "denoise_low", "decode")
#: The phase in which memory is needed, by its use.
_USED_IN: Final = {
    MemoryUse.LOAD: LOAD,
    MemoryUse.TEXT: ENCODE,
    MemoryUse.IMAGE: ENCODE,
    MemoryUse.STEP: DENOISE,
    MemoryUse.DECODE: DECODE,
}
_PLANS = {plan.name: plan for plan in PLANS}


def whole_phases(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the phases that a run completed before memory ran out for the first time; all if it never did.

    The phase in which it did contains a failed attempt, and later ones ran under another plan than the recorded one. A
    record of an older version lacks what the memory was needed for; no phase counts then.
    """
    fallbacks = result.get("fallbacks")
    if not fallbacks:
        return _PHASES
    try:
        return _PHASES[: min(_PHASES.index(_USED_IN[MemoryUse(one["use"])]) for one in fallbacks)]
    except (KeyError, TypeError, ValueError):
        return ()


def observations(outputs: Iterable[Output], *, cuda: bool, float32: bool = False) -> Iterator[Observation]:
    """Yield the phase times of each run; phases that it did not complete are None.

    Args:
        outputs: the finished videos.
        cuda: whether to select runs on a card or those on a processor.
        float32: whether to select runs on a card in float32 or the others.
    """
    for output, request, result in _runs(outputs, cuda=cuda, float32=float32):
        seconds = {name: float(value) for name, value in result["seconds"].items()}
        whole = set(whole_phases(result))
        if result.get("resumed_from_step") is not None or request.latents_of is not None:
            whole -= {ENCODE, DENOISE}
        # The record is embedded in the file, so it was written first: the rest is the time for completing the file.
        rest = output.generation_seconds - sum(seconds.get(name, 0.0) for name in _SECONDS)
        denoised = seconds.get("denoise_high", 0.0) + seconds.get("denoise_low", 0.0)
        yield Observation(
            Workload.of(request),
            denoise_seconds=denoised if DENOISE in whole else None,
            decode_seconds=seconds.get("decode") if DECODE in whole else None,
            encode_seconds=seconds.get("encode") if ENCODE in whole else None,
            finish_seconds=rest if rest > 0 and FINISH in whole else None,
        )


def loads(outputs: Iterable[Output], *, cuda: bool, float32: bool = False) -> Iterator[tuple[Workload, float]]:
    """Yield each run that needed the whole model, and the seconds it waited for it; arguments as above."""
    for _, request, result in _runs(outputs, cuda=cuda, float32=float32):
        if request.latents_of is None and LOAD in whole_phases(result):
            yield Workload.of(request), float(result["seconds"].get("load", 0.0))


def peaks(outputs: Iterable[Output], *, cuda: bool, float32: bool = False) -> Iterator[Peak]:
    """Yield predicted and peak memory of each run whose record has both."""
    for _, request, result in _runs(outputs, cuda=cuda, float32=float32):
        plan = _PLANS.get(str(result.get("plan")))
        if plan is None or result.get("fallbacks"):
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
        ram, vram = (result.get(f"peak_{name}_bytes") for name in ("ram", "vram"))
        yield Peak(needs, ram=None if ram is None else int(ram), vram=None if vram is None else int(vram))


def _runs(
    outputs: Iterable[Output], *, cuda: bool, float32: bool
) -> Iterator[tuple[Output, GenerationRequest, Mapping[str, Any]]]:
    for output in outputs:
        try:
            if str(output.metadata["device"]).startswith("cuda") is not cuda:
                continue
            request = GenerationRequest.from_json(output.metadata["request"])
            result = output.metadata["result"]
            if cuda and (result.get("precision") == "float32") is not float32:
                continue
            _check(result)
        except (KeyError, TypeError, ValueError, AttributeError):  # a record of another version
            continue
        yield output, request, result


def _check(result: Mapping[str, Any]) -> None:
    """Raise like `int` and `float` if a field of a record is not a number."""
    for value in result["seconds"].values():
        float(value)
    for name in ("ram", "vram"):
        int(result.get(f"peak_{name}_bytes") or 0)
