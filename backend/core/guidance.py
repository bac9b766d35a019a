"""Which steps of a run are guided, and how strongly.

A pure calculation over the request. Knows nothing about tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

from backend.core.requests import GenerationRequest

HIGH = "high"
LOW = "low"


def guidance_plan(request: GenerationRequest, experts: Sequence[str]) -> tuple[float | None, ...]:
    """Return the guidance scale of every step; None = the step makes one pass, without the negative prompt.

    A step is guided when its expert's scale is above 1 and the step lies in the request's interval
    (`guidance_start <= index / steps < guidance_end`).

    diffusers' pipelines look at the first scale only: above 1, every step makes both passes. Where this plan
    leaves out a pass because a scale is exactly 1, the result is the same but for rounding (there the pipeline
    computes `n + 1 * (p - n)`). Where only one of the scales is above 1, each expert follows its own here: the
    pipeline would guide both or neither, also with a scale below 1.
    """
    total = len(experts)
    return tuple(_scale(request, expert, index / total) for index, expert in enumerate(experts))


def _scale(request: GenerationRequest, expert: str, position: float) -> float | None:
    scale = request.guidance_scale
    if expert == LOW and request.guidance_scale_2 is not None:  # else one scale serves both, as in the pipeline
        scale = request.guidance_scale_2
    inside = request.guidance_start <= position < request.guidance_end
    return scale if inside and scale > 1.0 else None
