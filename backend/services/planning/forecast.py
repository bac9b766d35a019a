"""Time and memory that a request needs on the machine that runs it, from the model's structure and finished tasks.

Used before a task is queued; never opens a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cache, partial
from typing import Any

from backend.core.catalogue.table import ModelSpec, find_model
from backend.core.domain import Task
from backend.core.errors.actions import resubmit
from backend.core.errors.generation import TaskUnreadable
from backend.core.errors.requests import DoesNotFit
from backend.core.formats.packed_matrices import PackedMatrices
from backend.core.planning.calibration import MemoryCorrection, refine, refine_load
from backend.core.planning.constraints import OptimizationSettings
from backend.core.planning.cost_model import Basis, Workload
from backend.core.planning.machine import Machine
from backend.core.planning.memory_ladder import OomPolicy
from backend.core.planning.optimizer import Decision, WAN22SystemOptimizer
from backend.core.requests.forms import GenerationRequest
from backend.models.lora.library import LoraLibrary
from backend.services.planning.finished_runs import loads, observations, peaks
from backend.store.gallery.outputs import OutputStore

#: Weights smaller than this share of the catalogue's figure belong to another structure, whose needs are unknown.
#: Half would be the same structure in 8 bits.
_SAME_STRUCTURE_SHARE = 0.4
#: Number of a model's newest videos from which the machine's speed is derived.
_RECENT = 20


@dataclass(frozen=True, slots=True)
class Span:
    """A predicted duration."""

    seconds: float
    basis: Basis


def _nothing_packed(_spec: ModelSpec) -> None:
    return None


@dataclass(frozen=True)
class Forecast:
    """Weighs requests for one machine."""

    runs_on: Machine | Callable[[], Machine]  #: where tasks run; a function is called at every decision
    outputs: OutputStore  #: finished videos, which show how fast the machine is
    loras: LoraLibrary
    _: KW_ONLY
    binding: bool  #: whether `runs_on` is the machine that runs the tasks, so that requests may be refused
    constraints: Callable[[], OptimizationSettings] = OptimizationSettings  #: the operator's, read at every decision
    policy: OomPolicy = OomPolicy.QUALITY  #: what may be given up for memory or time
    #: What a model's files hold quantised; None = nothing, or unknown.
    packed: Callable[[ModelSpec], PackedMatrices | None] = _nothing_packed

    @property
    def machine(self) -> Machine:
        """The machine as currently known."""
        return self.runs_on() if callable(self.runs_on) else self.runs_on

    def decide(self, request: GenerationRequest, *, free_vram: int | None = None, measured: bool = True) -> Decision:
        """Weigh every plan for a request.

        Args:
            request: the request.
            free_vram: bytes of the card that other programs leave free; None = unknown, so the whole card counts.
            measured: whether to derive the machine's speed from finished tasks; otherwise published rates are used.
        """
        return self._decide(self._work(request), free_vram, measured=measured)

    def decide_native(self, spec: ModelSpec, constraints: OptimizationSettings) -> Decision:
        """Weigh the model's default request under these constraints, without searching for an alternative."""
        work = replace(Workload.native(spec), packed=self.packed(spec))
        return self._optimizer(spec.id, constraints, self.machine).weigh(work, self.policy)

    def until_done(self, tasks: Sequence[Task]) -> Span | None:
        """Predict how long queued tasks take one after the other, each with its model already in memory.

        A running task counts with the rest of its own estimate, except the last one, whose end is wanted.
        None without tasks, or if the duration of one of them is unknown: before anything was measured, nothing is known
        about a machine that may not be the one that runs them.
        """
        if not tasks:
            return None
        optimizer_of = cache(partial(self._optimizer, constraints=self.constraints(), machine=self.machine))
        seconds_of = cache(lambda work: optimizer_of(work.model).seconds_of(work, self.policy))
        total, measured = 0.0, True
        for task in tasks:
            if task.eta_seconds is not None and task is not tasks[-1]:
                total += task.eta_seconds
                continue
            try:
                work = self._work(GenerationRequest.understood(task.request))
            except TaskUnreadable:
                return None
            seconds = seconds_of(work)
            if seconds is None or (seconds.basis is Basis.ESTIMATED and not self.binding):
                return None
            total += seconds.warm
            measured = measured and seconds.basis is Basis.MEASURED
        return Span(total, Basis.MEASURED if measured else Basis.ESTIMATED)

    def shortfall(self, request: GenerationRequest, model_bytes: int | None) -> Decision | None:
        """Return the decision that no plan of a request fits the machine that would run it; None otherwise.

        None also where that cannot be known: on a machine that is not this one, and for a model whose files are far
        smaller than in the catalogue; and for the embedded models, which run wherever this program does.
        `model_bytes` is the total size of the files; None = not known yet, so the catalogue counts.
        """
        spec = find_model(request.model)
        small = model_bytes is not None and model_bytes < _SAME_STRUCTURE_SHARE * spec.weights_gb * 1e9
        if not self.binding or spec.embedded or small:
            return None
        decision = self.decide(request)
        return None if decision.fits else decision

    def check(self, request: GenerationRequest, model_bytes: int | None) -> None:
        """Refuse a request that cannot fit the machine that would run it, unless it is forced.

        Called before a task is queued, and again before its model is downloaded, when its size is known.

        Raises:
            DoesNotFit: no plan fits; the details name a request that does.
        """
        decision = None if request.force else self.shortfall(request, model_bytes)
        if decision is not None:
            fitting = suggestion(decision)
            asked = {
                "model_type": request.model,
                "resolution": request.resolution,
                "num_frames": request.num_frames,
                "steps": request.steps,
            }
            changes = {name: value for name, value in (fitting or {}).items() if asked[name] != value}
            raise DoesNotFit(
                decision.reason,
                suggestions=(f"{decision.would_fit}.", "To queue it nevertheless, set `force`."),
                details={"model": request.model, "would_fit": fitting},
                actions=(*((resubmit(**changes),) if changes else ()), resubmit(force=True)),
            )

    def _work(self, request: GenerationRequest) -> Workload:
        found = (self.loras.find(use.id) for use in request.loras)
        work = Workload.of(request, lora_bytes=sum(lora.size_bytes for lora in found if lora is not None))
        return replace(work, packed=self.packed(work.spec))

    def _decide(self, work: Workload, free_vram: int | None = None, *, measured: bool = True) -> Decision:
        machine = self.machine
        if free_vram is not None:
            machine = replace(machine, vram=free_vram if machine.vram is None else min(machine.vram, free_vram))
        optimizer = self._optimizer(work.model, self.constraints(), machine, measured=measured)
        return optimizer.decide(work, self.policy)

    def _optimizer(
        self, model: str, constraints: OptimizationSettings, machine: Machine, *, measured: bool = True
    ) -> WAN22SystemOptimizer:
        if not measured:
            return WAN22SystemOptimizer(machine, constraints=constraints)
        outputs = self.outputs.of_model(model, limit=_RECENT)
        kind = {"cuda": machine.cuda, "float32": machine.float32}
        rates = refine_load(refine(machine.rates, observations(outputs, **kind)), loads(outputs, **kind))
        correction = MemoryCorrection.of(peaks(outputs, **kind))
        return WAN22SystemOptimizer(machine, rates, constraints, correction=correction)


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
