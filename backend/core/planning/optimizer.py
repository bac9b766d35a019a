"""Chooses the memory plan of a request on a machine, with reasons, and finds what would fit where nothing does.

Pure calculation over a machine, which may be imagined. Knows neither the queue nor any files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Final

from backend.core.catalogue.table import Mode, ModelSpec, models_in_force
from backend.core.planning.calibration import MemoryCorrection
from backend.core.planning.constraints import OptimizationSettings, Quantization
from backend.core.planning.cost_model import Rates, Seconds, Workload, seconds
from backend.core.planning.footprint import Footprint, footprint
from backend.core.planning.hardware import in_gib
from backend.core.planning.machine import Machine
from backend.core.planning.memory_ladder import OomPolicy
from backend.core.planning.memory_plan import PLANS, MemoryPlan, Placement, Storage, in_precision
from backend.core.requests.frame_size import TEMPORAL_STRIDE

#: Lowest compute capability with bfloat16 and conversions from fp8.
FP8_CAPABILITY: Final = (8, 0)
#: Weights are rounded, and pictures decoded in tiles, only if that makes a run faster by more than this factor:
#: estimates are accurate to a quarter, so a smaller gain may not exist and would not justify changed pixels.
DEVIATION_GAIN: Final = 1.25
#: Fewest frames of a clip that is offered as an alternative.
SHORTEST: Final = 5


@dataclass(frozen=True, slots=True)
class Option:
    """One plan for one request on one machine."""

    plan: MemoryPlan
    needs: Footprint
    seconds: Seconds
    fits: bool
    reason: str  #: why it was chosen or not, in a sentence
    possible: bool = True  #: whether device, model and constraints allow it at all, with any amount of memory
    float32: bool = False  #: whether the device computes in float32, so that no weights are kept in bfloat16

    @property
    def name(self) -> str:
        """The plan's name, with what the weights are really kept in."""
        return in_precision(self.plan.name, float32=self.float32)

    @property
    def words(self) -> str:
        """The same with the plan's switches."""
        return in_precision(self.plan.words, float32=self.float32)


@dataclass(frozen=True, slots=True)
class Decision:
    """All plans for a request, the chosen one, and what would fit where none does."""

    work: Workload
    machine: Machine
    options: tuple[Option, ...]
    chosen: Option | None
    seconds_known: bool  #: False: the card is in no table, and nothing was measured on it
    instead: Workload | None = None  #: a request that fits, if this one does not

    @property
    def fits(self) -> bool:
        """Whether this machine can run the request, as far as is known."""
        return self.chosen is not None

    @property
    def reason(self) -> str:
        """The reason for the decision, in a sentence."""
        if self.chosen is not None:
            return self.chosen.reason
        return f"{self.work.model} at {_size(self.work)} does not fit this machine: even {self.start.reason}"

    @property
    def start(self) -> Option:
        """The plan that a worker starts with: the chosen one, or, if none fits, the one that lacks the least memory."""
        if self.chosen is not None:
            return self.chosen
        possible = [option for option in self.options if option.possible] or self.options
        return min(possible, key=lambda option: (_lack(option.needs, self.machine), option.seconds.warm))

    @property
    def would_fit(self) -> str:
        """What would fit instead, in a sentence."""
        if self.instead is None:
            return "Nothing would fit: no model can run this request in so little memory"
        return f"{self.instead.model} at {_size(self.instead)} would fit"


class WAN22SystemOptimizer:
    """Decides for one machine."""

    def __init__(
        self,
        machine: Machine,
        rates: Rates | None = None,
        constraints: OptimizationSettings | None = None,
        *,
        correction: MemoryCorrection | None = None,
    ) -> None:
        """Decide for this machine.

        Args:
            machine: the device and the memory.
            rates: its measured rates; None = the published ones.
            constraints: the operator's; plans that violate one are rejected. None = unconstrained.
            correction: measured by predicted memory of its finished runs.
        """
        self.constraints = constraints or OptimizationSettings()
        self.machine = replace(machine, vram_limit=self.constraints.max_vram)
        self._correction = correction or MemoryCorrection()
        self.rates = rates or machine.rates

    def decide(self, work: Workload, policy: OomPolicy = OomPolicy.QUALITY) -> Decision:
        """Choose the fastest plan that fits, and among equals the one that changes no pixel.

        Plans that change pixels are chosen only for a large gain (`DEVIATION_GAIN`), unless the policy is speed. If the
        memory is unknown nothing is refused: the plan that moves nothing is chosen.
        """
        decision = self.weigh(work, policy)
        return decision if decision.fits else replace(decision, instead=self._instead(work))

    def seconds_of(self, work: Workload, policy: OomPolicy = OomPolicy.QUALITY) -> Seconds | None:
        """Return the time of the chosen plan; None if none fits or the rates are unknown."""
        chosen = self.weigh(work, policy).chosen
        return chosen.seconds if chosen is not None and self.rates.known else None

    def weigh(self, work: Workload, policy: OomPolicy = OomPolicy.QUALITY) -> Decision:
        """Decide without searching for an alternative."""
        weighed = [self._option(plan, work) for plan in _variants(self.constraints.vae_tile_size)]
        fitting = [option for option in weighed if option.fits]
        best = _best(fitting, policy)
        if best is not None:
            chosen = replace(best, reason=self._why(best, fitting))
            weighed = [chosen if option is best else self._compared(option, best) for option in weighed]
            best = chosen
        return Decision(work, self.machine, tuple(weighed), best, self.rates.known)

    def _needs(self, plan: MemoryPlan, work: Workload) -> Footprint:
        needs = footprint(
            work.architecture,
            plan,
            work.size,
            text_tokens=work.text_tokens,
            encoded_frames=work.encoded_frames,
            lora_bytes=work.lora_bytes,
            cpu=not self.machine.cuda,
            float32=self.machine.float32,
            packed=work.packed,
        )
        return self._correction.apply(needs)

    def _option(self, plan: MemoryPlan, work: Workload) -> Option:
        machine, needs = self.machine, self._needs(plan, work)
        forbidden = self._forbidden(plan, work)
        lacks = "" if forbidden else _lacks(needs, machine)
        words = in_precision(plan.words, float32=machine.in_float32)
        reason = forbidden or (f"{words} needs {lacks}" if lacks else "fits")
        times = seconds(work, plan, self.rates, cpu=not machine.cuda, float32=machine.float32)
        return Option(plan, needs, times, not forbidden and not lacks, reason, not forbidden, machine.in_float32)

    def _forbidden(self, plan: MemoryPlan, work: Workload) -> str:
        """Return why device, model or constraints rule a plan out; empty if they allow it."""
        if not self.machine.cuda:
            if plan.placement is not Placement.RESIDENT or plan.text_encoder_on_cpu:
                return "the processor computes in the host's memory: there is nothing to move"
            if plan.storage is Storage.FP8:
                return "fp8 storage needs a CUDA card; the processor computes in float32"
        if plan.storage is Storage.FP8 and work.packed is not None:
            return f"the files of {work.model} are quantised, and their weights stay as they are"
        if plan.placement is Placement.EXPERT_SWAP and work.spec.experts == 1:
            return f"{work.model} has one expert: there is nothing to swap"
        capability = self.machine.compute_capability
        if plan.storage is Storage.FP8 and capability is not None and capability < FP8_CAPABILITY:
            return f"fp8 storage needs compute capability 8.0, this card has {capability[0]}.{capability[1]}"
        return self._violates(plan, can_round=work.packed is None)

    def _violates(self, plan: MemoryPlan, *, can_round: bool) -> str:
        """Name the operator's constraint that a plan violates; empty if none."""
        constraints, capability = self.constraints, self.machine.compute_capability
        if constraints.quantization is Quantization.BF16 and plan.storage is Storage.FP8:
            return "the optimization settings keep weights in bf16"
        can_fp8 = can_round and self.machine.cuda and (capability is None or capability >= FP8_CAPABILITY)
        if constraints.quantization is Quantization.FP8 and plan.storage is Storage.BF16 and can_fp8:
            return "the optimization settings keep weights in fp8"
        if not constraints.enable_offload and (plan.placement is not Placement.RESIDENT or plan.text_encoder_on_cpu):
            return "the optimization settings keep everything on the device"
        return ""

    def _why(self, best: Option, fitting: list[Option]) -> str:
        machine = self.machine
        if machine.cuda and machine.usable_vram is None:
            return f"{best.words}: the card's memory is unknown, so nothing is offloaded"
        parts = []
        if machine.usable_vram is not None:
            allowed = f", {in_gib(machine.vram_limit)} allowed" if machine.limited else ""
            parts.append(f"{in_gib(best.needs.vram)} of {in_gib(machine.vram)} VRAM{allowed}")
        if machine.ram is not None:
            parts.append(f"{in_gib(best.needs.ram)} of {in_gib(machine.ram)} RAM")
        rank = "the only plan that fits" if len(fitting) == 1 else f"the fastest of the {len(fitting)} plans that fit"
        if any(option.seconds.warm < best.seconds.warm for option in fitting):
            exact = _exact(best.plan)
            rank = "the fastest plan that fits and " + ("changes no pixel" if exact else "rounds no weights")
        return f"{best.words}: {rank}" + (f" ({', '.join(parts)})" if parts else "")

    def _compared(self, option: Option, best: Option) -> Option:
        if not option.fits:
            return option
        slower = option.seconds.warm - best.seconds.warm
        if slower < -0.005 * best.seconds.warm:
            price = "decoding in tiles" if _unrounded(option.plan) else "rounding the weights"
            return replace(option, reason=f"fits and is faster, but not by enough to justify {price}")
        if slower < 0.005 * max(best.seconds.warm, 1.0):
            why = "fits and is equally fast, but has no advantage"
        elif self.rates.known:
            why = f"fits, but takes {slower:.0f} s more" if slower >= 1 else f"fits, but takes {slower:.1f} s more"
        else:
            why = "fits, but is slower"
        return replace(option, reason=why)

    def _fits(self, work: Workload) -> bool:
        return any(
            not self._forbidden(plan, work) and not _lacks(self._needs(plan, work), self.machine)
            for plan in _variants(self.constraints.vae_tile_size)
        )

    def _instead(self, work: Workload) -> Workload | None:
        """Find the request nearest to this one that fits: shorter, then smaller, then of another model."""
        nearest = self._first_that_fits(_smaller(work))
        if nearest is not None:
            return nearest
        others = sorted(models_in_force().specs, key=lambda spec: spec.weights_gb, reverse=True)
        for spec in others:
            if spec == work.spec or not _serves(spec, work):
                continue
            native = Workload.native(spec, image=bool(work.encoded_frames))
            nearest = self._first_that_fits([native, *_smaller(native)])
            if nearest is not None:
                return nearest
        return None

    def _first_that_fits(self, candidates: Sequence[Workload]) -> Workload | None:
        """Return the first of one model's requests that fits; the last one must be the smallest in every respect."""
        if not candidates or not self._fits(candidates[-1]):
            return None  # common when the weights alone are too large: no need to weigh a thousand sizes
        return next(filter(self._fits, candidates))


@lru_cache(maxsize=8)
def _variants(tile: int) -> tuple[MemoryPlan, ...]:
    """Return every plan with and without its two switches, with tiles of this size."""
    return tuple(
        replace(plan, tiled_decode=tiled, text_encoder_on_cpu=on_cpu, tile_size=tile if tiled else plan.tile_size)
        for plan in PLANS
        for tiled in (False, True)
        for on_cpu in (False, True)
    )


def _best(fitting: list[Option], policy: OomPolicy) -> Option | None:
    """Return the plan to choose; None if none fits."""

    def order(option: Option) -> tuple[float, tuple[bool, bool, bool, int]]:
        return option.seconds.warm, _deviation(option.plan)

    fastest = min(fitting, key=order, default=None)
    if fastest is None or policy is OomPolicy.SPEED:
        return fastest
    for allowed in (_exact, _unrounded):
        best = min((option for option in fitting if allowed(option.plan)), key=order, default=None)
        if best is not None and best.seconds.warm <= DEVIATION_GAIN * fastest.seconds.warm:
            return best
    return fastest


def _exact(plan: MemoryPlan) -> bool:
    """Whether a plan changes no pixel."""
    return _unrounded(plan) and not plan.tiled_decode


def _unrounded(plan: MemoryPlan) -> bool:
    return plan.storage is Storage.BF16


def _deviation(plan: MemoryPlan) -> tuple[bool, bool, bool, int]:
    """Order plans of equal speed: first those that change no pixel, then those that transfer least."""
    moves = list(Placement).index(plan.placement)
    return plan.storage is not Storage.BF16, plan.tiled_decode, plan.text_encoder_on_cpu, moves


def _smaller(work: Workload) -> list[Workload]:
    """Return smaller legal requests, most pixels first; among equals the larger picture."""
    spec = work.spec
    shortest = min(work.num_frames, SHORTEST)
    sizes = {
        (_side(spec, work.width * eighths // 8), _side(spec, work.height * eighths // 8), frames)
        for eighths in range(1, 9)
        for frames in range(work.num_frames, shortest - 1, -TEMPORAL_STRIDE)
    }
    ordered = sorted(sizes, key=lambda size: (prod(size), size), reverse=True)
    return [work.resized(*size) for size in ordered if prod(size) < prod(work.size)]


def _side(spec: ModelSpec, side: int) -> int:
    lowest = -(-spec.min_side // spec.size_multiple) * spec.size_multiple
    return max(lowest, side // spec.size_multiple * spec.size_multiple)


def _serves(spec: ModelSpec, work: Workload) -> bool:
    """Whether another model accepts the inputs of this request."""
    if work.encoded_frames or work.spec.mode is Mode.I2V:
        return spec.takes_image
    return not spec.needs_image


def _lacks(needs: Footprint, machine: Machine) -> str:
    """Name the memory that is too small; empty if all of it suffices or is unknown."""
    memories = (
        ("VRAM", needs.vram, machine.vram, machine.usable_vram),
        ("RAM", needs.ram, machine.ram, machine.usable_ram),
    )
    found = []
    for name, need, total, usable in memories:
        if usable is not None and need > usable:
            if name == "VRAM" and machine.limited:
                found.append(f"{in_gib(need)} VRAM of {in_gib(usable)} that the optimization settings allow")
            elif total is not None:
                found.append(f"{in_gib(need)} {name} of {in_gib(total)} (with {in_gib(total - usable)} in reserve)")
    return " and ".join(found)


def _lack(needs: Footprint, machine: Machine) -> int:
    """Return the number of missing bytes."""
    vram = 0 if machine.usable_vram is None else max(0, needs.vram - machine.usable_vram)
    return vram + (0 if machine.usable_ram is None else max(0, needs.ram - machine.usable_ram))


def _size(work: Workload) -> str:
    return f"{work.width}x{work.height}, {work.num_frames} frames"
