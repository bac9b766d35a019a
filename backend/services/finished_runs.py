"""What the records of finished videos say about the machine: seconds of phases, loads, and memory at its highest.

Reads records, also those of other versions; decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from backend.core.calibration import Observation, Peak
from backend.core.cost_model import Workload
from backend.core.domain import Output
from backend.core.footprint import footprint
from backend.core.memory_plan import PLANS
from backend.core.requests import GenerationRequest

_PHASES = ("load", "encode", "denoise_high", "denoise_low", "decode")
_PLANS = {plan.name: plan for plan in PLANS}


def observations(outputs: Iterable[Output], *, cuda: bool) -> Iterator[Observation]:
    """Yield what each run on a card, or on a processor, took; what it did not do as a whole is left out."""
    for output, request, result in _runs(outputs, cuda=cuda):
        seconds = {name: float(value) for name, value in result["seconds"].items()}
        whole = result.get("resumed_from_step") is None and request.latents_of is None
        # The record is inside the file, so it was written before the file was: the rest is what that took.
        rest = output.generation_seconds - sum(seconds.get(name, 0.0) for name in _PHASES)
        yield Observation(
            Workload.of(request),
            denoise_seconds=seconds.get("denoise_high", 0.0) + seconds.get("denoise_low", 0.0) if whole else None,
            decode_seconds=seconds.get("decode"),
            encode_seconds=seconds.get("encode") if whole else None,
            finish_seconds=rest if rest > 0 else None,
        )


def loads(outputs: Iterable[Output], *, cuda: bool) -> Iterator[tuple[Workload, float]]:
    """Yield each run that needed the whole model, and how long it waited for it."""
    for _, request, result in _runs(outputs, cuda=cuda):
        if request.latents_of is None:
            yield Workload.of(request), float(result["seconds"].get("load", 0.0))


def peaks(outputs: Iterable[Output], *, cuda: bool) -> Iterator[Peak]:
    """Yield what each run was said to need and what it had at its highest, where its record tells both."""
    for _, request, result in _runs(outputs, cuda=cuda):
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
        )
        ram, vram = (result.get(f"peak_{name}_bytes") for name in ("ram", "vram"))
        yield Peak(needs, ram=None if ram is None else int(ram), vram=None if vram is None else int(vram))


def _runs(outputs: Iterable[Output], *, cuda: bool) -> Iterator[tuple[Output, GenerationRequest, Mapping[str, Any]]]:
    for output in outputs:
        try:
            if str(output.metadata["device"]).startswith("cuda") is not cuda:
                continue
            request = GenerationRequest.from_json(output.metadata["request"])
            result = output.metadata["result"]
            _check(result)
        except (KeyError, TypeError, ValueError, AttributeError):  # a record of another version
            continue
        yield output, request, result


def _check(result: Mapping[str, Any]) -> None:
    """Raise like `int` and `float` when a number of a record is none."""
    for value in result["seconds"].values():
        float(value)
    for name in ("ram", "vram"):
        int(result.get(f"peak_{name}_bytes") or 0)
