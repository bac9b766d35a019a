"""What a request will take on the machine that runs it, from its structure and from finished tasks; whether it fits.

Decided before a task is queued; never opens a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from backend.core.cost_model import Observation, Workload, rates_of, refine
from backend.core.domain import Output
from backend.core.errors import DoesNotFit
from backend.core.model_table import find_model
from backend.core.requests import GenerationRequest
from backend.core.system_optimizer import Decision, Machine, WAN22SystemOptimizer
from backend.models.lora.library import LoraLibrary
from backend.store.outputs import OutputStore

#: Weights on the disk below this share of what the table says are another structure: nothing is known of their needs.
#: Half would be the same structure in 8 bits.
_SAME_STRUCTURE_SHARE = 0.4
#: So many of the newest videos say how fast this machine is.
_RECENT = 20


class Forecast:
    """Weighs requests for one machine."""

    def __init__(self, machine: Machine, outputs: OutputStore, loras: LoraLibrary, *, binding: bool) -> None:
        """Weigh for this machine; `binding` says that it is the one that runs the tasks, so that it may refuse."""
        self.machine = machine
        self._outputs = outputs
        self._loras = loras
        self._binding = binding

    def decide(self, request: GenerationRequest) -> Decision:
        """Weigh every plan for a request."""
        found = (self._loras.find(use.id) for use in request.loras)
        lora_bytes = sum(lora.size_bytes for lora in found if lora is not None)
        machine = self.machine
        rates = rates_of(machine.name if machine.cuda else None, machine.cores)
        rates = refine(rates, _observations(self._outputs.list(limit=_RECENT), request.model, cuda=machine.cuda))
        return WAN22SystemOptimizer(machine, rates).decide(Workload.of(request, lora_bytes=lora_bytes))

    def check(self, request: GenerationRequest, model_bytes: int) -> None:
        """Refuse a request that cannot fit the machine that would run it.

        The embedded models run wherever this program does, and on a machine that is not this one nothing is known.
        Neither is anything of a model whose files, `model_bytes` together, are far smaller than those in the table.
        Asked where these bytes are known: before a task is queued, or before the first one is fetched for it.

        Raises:
            DoesNotFit: no plan fits; the details name a request that does.
        """
        spec = find_model(request.model)
        if not self._binding or spec.embedded or model_bytes < _SAME_STRUCTURE_SHARE * spec.weights_gb * 1e9:
            return
        decision = self.decide(request)
        if not decision.fits:
            raise DoesNotFit(
                decision.reason,
                suggestions=(suggestion_in_words(decision),),
                details={"model": request.model, "would_fit": suggestion(decision)},
            )


def suggestion(decision: Decision) -> dict[str, Any] | None:
    """Return the request that would fit, in the words of the API."""
    work = decision.instead
    if work is None:
        return None
    return {
        "model_type": work.model,
        "resolution": f"{work.width}x{work.height}",
        "num_frames": work.num_frames,
        "steps": work.steps,
    }


def suggestion_in_words(decision: Decision) -> str:
    """Say what would fit."""
    work = decision.instead
    if work is None:
        return "Use a machine with more memory; no model that takes this request fits here."
    return f"{work.model} at {work.width}x{work.height} with {work.num_frames} frames would fit."


def _observations(outputs: Sequence[Output], model: str, *, cuda: bool) -> Iterator[Observation]:
    """Read what this model's finished tasks took; small models reach other rates than large ones on the same device."""
    for output in outputs:
        try:
            if str(output.metadata["device"]).startswith("cuda") is not cuda:
                continue
            request = GenerationRequest.from_json(output.metadata["request"])
            if request.model != model:
                continue
            result = output.metadata["result"]
            seconds = {name: float(value) for name, value in result["seconds"].items()}
            whole = result.get("resumed_from_step") is None and request.latents_of is None
            denoise = seconds.get("denoise_high", 0.0) + seconds.get("denoise_low", 0.0)
            yield Observation(Workload.of(request), denoise if whole else None, seconds.get("decode"))
        except (KeyError, TypeError, ValueError, AttributeError):  # a record of another version
            continue
