"""What a request will take on the machine that runs it, from its structure and from finished tasks; whether it fits.

Decided before a task is queued; never opens a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from backend.core.catalogue.table import ModelSpec, find_model
from backend.core.errors import DoesNotFit
from backend.core.formats.packed_matrices import PackedMatrices
from backend.core.planning.calibration import MemoryCorrection, refine, refine_load
from backend.core.planning.constraints import OptimizationSettings
from backend.core.planning.cost_model import Basis, Seconds, Workload
from backend.core.planning.machine import Machine
from backend.core.planning.memory_ladder import OomPolicy
from backend.core.planning.optimizer import Decision, WAN22SystemOptimizer
from backend.core.requests import GenerationRequest
from backend.models.lora.library import LoraLibrary
from backend.services.planning.finished_runs import loads, observations, peaks
from backend.store.outputs import OutputStore

#: Weights on the disk below this share of what the table says are another structure: nothing is known of their needs.
#: Half would be the same structure in 8 bits.
_SAME_STRUCTURE_SHARE = 0.4
#: So many of a model's newest videos say how fast this machine is.
_RECENT = 20


@dataclass(frozen=True, slots=True)
class Span:
    """A time to come."""

    seconds: float
    basis: Basis


def _nothing_packed(_spec: ModelSpec) -> None:
    return None


class Forecast:
    """Weighs requests for one machine."""

    def __init__(
        self,
        machine: Machine | Callable[[], Machine],
        outputs: OutputStore,
        loras: LoraLibrary,
        *,
        binding: bool,
        wishes: Callable[[], OptimizationSettings] = OptimizationSettings,
        policy: OomPolicy = OomPolicy.QUALITY,
        packed: Callable[[ModelSpec], PackedMatrices | None] = _nothing_packed,
    ) -> None:
        """Weigh for this machine.

        Args:
            machine: where tasks run, or who is asked for that at every decision.
            outputs: the finished videos, which say how fast it is.
            loras: where a request's LoRAs are.
            binding: whether it is the machine that runs the tasks, so that it may refuse.
            wishes: asked for the operator's constraints at every request.
            policy: what may be given up for memory or time.
            packed: what a model's files have quantised; None = nothing, or it is not known.
        """
        self._machine = machine
        self._outputs = outputs
        self._loras = loras
        self._binding = binding
        self._wishes = wishes
        self._policy = policy
        self._packed = packed

    @property
    def machine(self) -> Machine:
        """The machine as it is known now."""
        return self._machine() if callable(self._machine) else self._machine

    def decide(self, request: GenerationRequest, *, free_vram: int | None = None, measured: bool = True) -> Decision:
        """Weigh every plan for a request.

        Args:
            request: what is to be made.
            free_vram: bytes of the card that others leave; None = not known, all of them count.
            measured: whether finished tasks tell how fast the machine is; without them published rates do.
        """
        machine = self.machine
        if free_vram is not None:
            machine = replace(machine, vram=free_vram if machine.vram is None else min(machine.vram, free_vram))
        optimizer = self._optimizer(request.model, self._wishes(), machine, measured=measured)
        return optimizer.decide(self._work(request), self._policy)

    def decide_native(self, spec: ModelSpec, wishes: OptimizationSettings) -> Decision:
        """Weigh a request that leaves everything to the model, under these constraints; offer nothing instead."""
        work = replace(Workload.native(spec), packed=self._packed(spec))
        return self._optimizer(spec.id, wishes, self.machine).weigh(work, self._policy)

    def until_done(self, ahead: Sequence[tuple[GenerationRequest, float | None]]) -> Span | None:
        """Say how long requests take one after the other, each with its model in memory; None when one is unknown.

        Before anything was measured, nothing is known of a machine that may not be the one that runs them.

        Args:
            ahead: the requests, each with the seconds that it still needs where it runs and that is known.
        """
        optimizers: dict[str, WAN22SystemOptimizer] = {}
        known: dict[Workload, Seconds | None] = {}
        total, measured, machine = 0.0, True, self.machine
        for request, left in ahead:
            if left is not None:
                total += left
                continue
            work = self._work(request)
            if work.model not in optimizers:
                optimizers[work.model] = self._optimizer(work.model, self._wishes(), machine)
            if work not in known:
                known[work] = optimizers[work.model].seconds_of(work, self._policy)
            took = known[work]
            if took is None or (took.basis is Basis.ESTIMATED and not self._binding):
                return None
            total += took.warm
            measured = measured and took.basis is Basis.MEASURED
        return Span(total, Basis.MEASURED if measured else Basis.ESTIMATED)

    def _work(self, request: GenerationRequest) -> Workload:
        found = (self._loras.find(use.id) for use in request.loras)
        lora_bytes = sum(lora.size_bytes for lora in found if lora is not None)
        return Workload.of(request, lora_bytes=lora_bytes, packed=self._packed(find_model(request.model)))

    def _optimizer(
        self, model: str, wishes: OptimizationSettings, machine: Machine, *, measured: bool = True
    ) -> WAN22SystemOptimizer:
        if not measured:
            return WAN22SystemOptimizer(machine, wishes=wishes)
        outputs = self._outputs.of_model(model, limit=_RECENT)
        kind = {"cuda": machine.cuda, "float32": machine.float32}
        rates = refine_load(refine(machine.rates, observations(outputs, **kind)), loads(outputs, **kind))
        correction = MemoryCorrection.of(peaks(outputs, **kind))
        return WAN22SystemOptimizer(machine, rates, wishes, correction=correction)

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
                suggestions=(f"{decision.would_fit}.",),
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
