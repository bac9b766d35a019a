"""The memory plan that a run falls back to when memory runs out, within the operator's policy.

Decides and records the fallbacks; the engine carries the plans out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from backend.core.domain import Phase
from backend.core.errors.generation import OutOfMemory
from backend.core.planning.memory_plan import SMALLEST_TILE, MemoryPlan, Placement, Storage, in_precision

_PLACEMENTS = tuple(Placement)  # by memory, largest first
_ALLOW = "Let tasks continue with less memory: set WAN22_OOM_POLICY to `quality`."
_ROUND = "Allow weights to be rounded to eight bits: set WAN22_OOM_POLICY to `speed`."


class OomPolicy(StrEnum):
    """What may be given up when memory runs out."""

    NONE = "none"  #: nothing: the task fails
    #: Time; the weights keep their precision. Placement changes no bit. Decoding in tiles changes pixels slightly, and
    #: a component on another device rounds differently (docs/api.md): better than losing hours of denoising.
    QUALITY = "quality"
    SPEED = "speed"  #: as `quality`, and in addition the precision of the weights


class MemoryUse(StrEnum):
    """What the memory was needed for."""

    LOAD = "load"
    TEXT = "text"
    IMAGE = "image"
    STEP = "step"
    DECODE = "decode"

    @property
    def phase(self) -> Phase:
        """The phase of a run that needs it; for steps the first of the two."""
        return _PHASE[self]


_PHASE = {
    MemoryUse.LOAD: Phase.LOAD,
    MemoryUse.TEXT: Phase.ENCODE,
    MemoryUse.IMAGE: Phase.ENCODE,
    MemoryUse.STEP: Phase.DENOISE_HIGH,
    MemoryUse.DECODE: Phase.DECODE,
}
_WORDS = {
    MemoryUse.LOAD: "loading",
    MemoryUse.TEXT: "encoding the prompt",
    MemoryUse.IMAGE: "encoding the image",
    MemoryUse.STEP: "a step",
    MemoryUse.DECODE: "decoding",
}
_EXPERTS = (MemoryUse.LOAD, MemoryUse.STEP)
_VAE = (MemoryUse.IMAGE, MemoryUse.DECODE)


@dataclass(frozen=True, slots=True)
class Fallback:
    """One step down the ladder."""

    use: MemoryUse
    at: str  #: the activity in words
    before: str  #: the plan that did not fit
    after: str  #: the plan that replaced it
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return plain JSON values for the record of the video."""
        return {
            "at": self.at,
            "use": self.use.value,
            "from": self.before,
            "to": self.after,
            "reason": self.reason,
        }

    def in_precision(self, *, float32: bool) -> Fallback:
        """Return the same with the plans named by what the weights are really kept in."""
        before, after = (in_precision(plan, float32=float32) for plan in (self.before, self.after))
        return replace(self, before=before, after=after)

    @property
    def sentence(self) -> str:
        """The fallback as a warning of the task."""
        return f"Memory ran out at {self.at}; continued with the plan {self.after} instead of {self.before}"


@dataclass(slots=True)
class MemoryLadder:
    """The rungs of one attempt."""

    policy: OomPolicy
    side: int  #: longer side of the picture in pixels; only smaller tiles save memory
    taken: list[Fallback] = field(default_factory=list)

    def down(self, plan: MemoryPlan, error: OutOfMemory, use: MemoryUse, at: str | None = None) -> MemoryPlan:
        """Return the next lower plan, and record the fallback.

        Args:
            plan: the plan that did not fit.
            error: raised again, with advice, when no rung is left.
            use: what the memory was needed for, unless the error names it.
            at: the activity in words, where it is more specific than `use`.
        """
        use = MemoryUse(error.use or use)
        lower = next(self._rungs(plan, use, host=error.host), None)
        if lower is None:
            raise self._end(error, use) from error
        self.taken.append(Fallback(use, at or _WORDS[use], plan.words, lower.words, error.message))
        return lower

    def _rungs(self, plan: MemoryPlan, use: MemoryUse, *, host: bool) -> Iterator[MemoryPlan]:
        """Yield the plans below this one, best first; moving weights off the device does not help a full host."""
        if self.policy is OomPolicy.NONE:
            return
        rung = _PLACEMENTS.index(plan.placement)
        # While text or pixels are computed the experts are off the device already, unless they are resident.
        lowest = len(_PLACEMENTS) - 1 if use in _EXPERTS else 1
        if not host and rung < lowest:
            yield replace(plan, placement=_PLACEMENTS[rung + 1])
        if use in _EXPERTS and self.policy is OomPolicy.SPEED and plan.storage is Storage.BF16:
            yield replace(plan, storage=Storage.FP8)
        if use is MemoryUse.TEXT and not host and not plan.text_encoder_on_cpu:
            yield replace(plan, text_encoder_on_cpu=True)
        if use in _VAE:
            tile = max(SMALLEST_TILE, plan.tile_size // 2) if plan.tiled_decode else plan.tile_size
            if tile >= self.side:
                tile = SMALLEST_TILE
            if tile < self.side and (not plan.tiled_decode or tile < plan.tile_size):
                yield replace(plan, tiled_decode=True, tile_size=tile)
            if not host and not plan.vae_on_cpu:
                yield replace(plan, vae_on_cpu=True)

    def _end(self, error: OutOfMemory, use: MemoryUse) -> OutOfMemory:
        advice: tuple[str, ...] = OutOfMemory.suggestions
        if self.policy is OomPolicy.NONE:
            advice = (_ALLOW, *advice)
        elif self.policy is OomPolicy.QUALITY and use in _EXPERTS:
            advice = (_ROUND, *advice)
        return OutOfMemory(error.message, suggestions=advice, use=error.use, host=error.host)
