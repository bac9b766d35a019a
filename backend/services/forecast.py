"""What a request will take on the machine that runs it, from its structure and from finished tasks; whether it fits.

Decided before a task is queued; never opens a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from backend.core.cost_model import Observation, Workload, rates_of, refine
from backend.core.domain import Output
from backend.core.errors import DoesNotFit
from backend.core.memory_ladder import OomPolicy
from backend.core.model_table import ModelSpec, find_model
from backend.core.optimization_settings import OptimizationSettings
from backend.core.requests import GenerationRequest, ImageRef, RequestDraft, resolve_request
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

    def __init__(
        self,
        machine: Machine,
        outputs: OutputStore,
        loras: LoraLibrary,
        *,
        binding: bool,
        policy: OomPolicy = OomPolicy.QUALITY,
        wishes: Callable[[], OptimizationSettings] = OptimizationSettings,
    ) -> None:
        """Weigh for this machine.

        Args:
            machine: where tasks run.
            outputs: the finished videos, which say how fast it is.
            loras: where a request's LoRAs are.
            binding: whether it is the machine that runs the tasks, so that it may refuse.
            policy: what may be given up for memory or time.
            wishes: asked for the operator's constraints at every request.
        """
        self.machine = machine
        self._outputs = outputs
        self._loras = loras
        self._binding = binding
        self._policy = policy
        self._wishes = wishes

    def decide(self, request: GenerationRequest, *, free_vram: int | None = None, measured: bool = True) -> Decision:
        """Weigh every plan for a request.

        Args:
            request: what is to be made.
            free_vram: bytes of the card that others leave; None = not known, all of them count.
            measured: whether finished tasks tell how fast the machine is; without them published rates do.
        """
        optimizer = self._optimizer(request.model, self._wishes(), free_vram, measured=measured)
        return optimizer.decide(self._work(request), self._policy)

    def decide_native(self, spec: ModelSpec, wishes: OptimizationSettings) -> Decision:
        """Weigh a request that leaves everything to the model, under these constraints; offer nothing instead."""
        return self._optimizer(spec.id, wishes).weigh(self._work(native_request(spec)), self._policy)

    def _work(self, request: GenerationRequest) -> Workload:
        found = (self._loras.find(use.id) for use in request.loras)
        return Workload.of(request, lora_bytes=sum(lora.size_bytes for lora in found if lora is not None))

    def _optimizer(
        self, model: str, wishes: OptimizationSettings, free_vram: int | None = None, *, measured: bool = True
    ) -> WAN22SystemOptimizer:
        machine = self.machine
        if free_vram is not None:
            machine = replace(machine, vram=free_vram if machine.vram is None else min(machine.vram, free_vram))
        rates = rates_of(machine.name if machine.cuda else None, machine.cores)
        if measured:
            outputs = self._outputs.list(limit=_RECENT)
            rates = refine(rates, _observations(outputs, model, cuda=machine.cuda))
        return WAN22SystemOptimizer(machine, rates, wishes)

    def check(self, request: GenerationRequest, bytes_on_disk: int) -> None:
        """Refuse a request that cannot fit the machine that would run it.

        The embedded models run wherever this program does, and on a machine that is not this one nothing is known.
        Neither is anything of a model whose files, `bytes_on_disk` together, are far smaller than those in the table.

        Raises:
            DoesNotFit: no plan fits; the details name a request that does.
        """
        spec = find_model(request.model)
        if not self._binding or spec.embedded or bytes_on_disk < _SAME_STRUCTURE_SHARE * spec.weights_gb * 1e9:
            return
        decision = self.decide(request)
        if not decision.fits:
            raise DoesNotFit(
                decision.reason,
                suggestions=(suggestion_in_words(decision),),
                details={"model": request.model, "would_fit": suggestion(decision)},
            )


def native_request(spec: ModelSpec) -> GenerationRequest:
    """Return a request that leaves everything to the model, with an image of its size where it needs one."""
    image = ImageRef("", spec.width, spec.height) if spec.needs_image else None
    return resolve_request(spec, RequestDraft("-", image=image))[0]


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
