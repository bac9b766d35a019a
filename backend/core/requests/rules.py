"""What a model makes of a request: gaps filled from its spec, sizes snapped, illegal values refused, steps guided.

Every changed value comes with a sentence, and every refusal with the nearest legal value. Pure calculation; knows
nothing about tensors.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from backend.core.catalogue.spec import LOW, ModelSpec
from backend.core.errors.requests import ImageNotAccepted, ImageRequired, InvalidRequest
from backend.core.requests.forms import DEFAULT_CRF, Fit, GenerationRequest, ImageRef, LoraUse, RequestDraft, Scheduler
from backend.core.requests.frame_size import same_aspect, size_for_aspect, snap_frames, snap_size
from backend.core.requests.prompts import MAX_PROMPT_TOKENS, clean_prompt

MAX_SEED = 2**32 - 1
MAX_STEPS = 100
MAX_VARIATIONS = 16
MAX_LORAS = 8
#: The seed that asks for a random one, as in other programs.
RANDOM_SEED = -1
MAX_GUIDANCE = 20.0
MAX_FPS = 60.0
MAX_SECONDS = 600.0
#: 0 would be lossless, in an H.264 profile that browsers do not play.
MIN_CRF = 1
MAX_CRF = 51
#: Values that default to the field of the same name in the model's spec.
_FROM_SPEC = (
    "negative_prompt",
    "fps",
    "steps",
    "guidance_scale",
    "guidance_scale_2",
    "flow_shift",
    "max_sequence_length",
)


def resolve_request(
    spec: ModelSpec, draft: RequestDraft, loras: tuple[LoraUse, ...] = ()
) -> tuple[GenerationRequest, tuple[str, ...]]:
    """Turn a draft into a complete request for this model, with one sentence for each changed value.

    `loras` are the files and strengths that the draft's choices stand for.

    Raises:
        InvalidRequest: a value is out of range; the message names the nearest legal one.
        ImageRequired, ImageNotAccepted: the model needs an image, or takes none.
    """
    check_images(spec, image=draft.image is not None, end_image=draft.end_image is not None)
    guidance_start = _in_range("guidance_start", _or(draft.guidance_start, 0.0), 0.0, 1.0)
    guidance_end = _in_range("guidance_end", _or(draft.guidance_end, 1.0), 0.0, 1.0)
    if guidance_start > guidance_end:
        raise InvalidRequest("guidance_start must not be after guidance_end", details={"field": "guidance_start"})
    defaults = {name: getattr(spec, name) for name in _FROM_SPEC} | {
        "scheduler": Scheduler.DMD if spec.renoise_at else Scheduler.UNIPC,
        "seed": secrets.randbelow(MAX_SEED + 1),
    }
    names = {field.name for field in fields(GenerationRequest)} & {field.name for field in fields(draft)}
    given = {name: getattr(draft, name) for name in names} | ({"seed": None} if draft.seed == RANDOM_SEED else {})
    values: dict[str, Any] = defaults | {name: one for name, one in given.items() if one is not None}
    values |= {
        "model": spec.id,
        "loras": loras,
        "image": None if draft.image is None else draft.image.id,
        "end_image": None if draft.end_image is None else draft.end_image.id,
        "prompt": clean_prompt("prompt", values["prompt"]),
        "negative_prompt": clean_prompt("negative_prompt", values["negative_prompt"]),
        "fps": check_fps(values["fps"]),
        "steps": int(_in_range("steps", values["steps"], 1, MAX_STEPS)),
        "guidance_scale": _in_range("guidance_scale", values["guidance_scale"], 0.0, MAX_GUIDANCE),
        "guidance_scale_2": _guidance_scale_2(spec, draft),
        "flow_shift": _in_range("flow_shift", values["flow_shift"], 0.1, 30.0),
        "seed": int(_in_range("seed", values["seed"], 0, MAX_SEED)),
        "max_sequence_length": _prompt_tokens(spec, values["max_sequence_length"]),
        "crf": check_crf(values.get("crf", DEFAULT_CRF)),
    }
    check_sampler(spec, values["scheduler"])
    values, distilled_notes = _as_distilled(spec, values)
    width, height, notes = _size(spec, draft)
    frames, frame_notes = _length(spec, draft, values["fps"])
    if draft.end_image is not None and frames < 2:
        raise InvalidRequest("A clip with an end image needs at least 5 frames", details={"field": "num_frames"})
    request = GenerationRequest(**values | {"width": width, "height": height, "num_frames": frames})
    return request, notes + frame_notes + distilled_notes


def check_sampler(spec: ModelSpec, scheduler: Scheduler) -> None:
    """Check a sampler against the training of the model.

    Raises:
        InvalidRequest: the model was distilled for another one, or not distilled for this one.
    """
    if spec.renoise_at and scheduler is not Scheduler.DMD:
        raise InvalidRequest(
            f"{spec.id} was distilled for the sampler {Scheduler.DMD} and makes nothing with {scheduler}",
            suggestions=("Leave `scheduler` out.",),
            details={"field": "scheduler", "nearest": Scheduler.DMD.value},
        )
    if scheduler is Scheduler.DMD and not spec.renoise_at:
        raise InvalidRequest(
            f"{spec.id} was not distilled for the sampler {Scheduler.DMD}",
            suggestions=("Leave `scheduler` out, or use a FastWan model.",),
            details={"field": "scheduler", "nearest": Scheduler.UNIPC.value},
        )


def _as_distilled(spec: ModelSpec, values: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Set the values fixed by a model's distillation, with one sentence for each that differed."""
    if not spec.renoise_at:
        return values, ()
    fixed = {
        "steps": len(spec.renoise_at),
        "guidance_scale": spec.guidance_scale,
        "flow_shift": spec.flow_shift,
    }
    notes = tuple(
        f"{name} {values[name]:g} became {value:g}, which {spec.id} was distilled for"
        for name, value in fixed.items()
        if values[name] != value
    )
    return values | fixed, notes


def _prompt_tokens(spec: ModelSpec, tokens: int) -> int:
    field = "max_sequence_length"
    if spec.image_tokens and tokens != MAX_PROMPT_TOKENS:
        # Such a transformer takes all but the last 512 tokens for the image (`WanAttnProcessor` of diffusers).
        raise InvalidRequest(
            f"{field.capitalize()} must be {MAX_PROMPT_TOKENS} for {spec.id}", details={"field": field}
        )
    return int(_in_range(field, tokens, 8, MAX_PROMPT_TOKENS))


def check_images(spec: ModelSpec, *, image: bool, end_image: bool) -> None:
    """Check the images of a request against the model.

    Raises:
        ImageRequired: an image that it needs is missing.
        ImageNotAccepted: an image was given that it cannot use.
    """
    if (image or end_image) and not spec.takes_image:
        raise ImageNotAccepted(f"{spec.id} makes video from text alone and takes no image")
    if spec.needs_image and not image:
        raise ImageRequired(f"Start image is required for {spec.id} model")
    if end_image and not spec.takes_end_image:
        raise ImageNotAccepted(
            f"{spec.id} takes a start image and no end image",
            suggestions=("Use an I2V model of Wan2.2 for an end image.",),
        )


def check_crf(crf: int) -> int:
    """Check the quality of the file. Raises InvalidRequest."""
    return int(_in_range("crf", crf, MIN_CRF, MAX_CRF))


def check_fps(fps: float) -> float:
    """Check the frame rate of the file. Raises InvalidRequest."""
    return _in_range("fps", fps, 1.0, MAX_FPS)


def _size(spec: ModelSpec, draft: RequestDraft) -> tuple[int, int, tuple[str, ...]]:
    """Return width and height as requested, by the image or by default, and what was changed in them and the images."""
    image = draft.image
    if draft.width is None and draft.height is None and image is not None:
        width, height = size_for_aspect(spec, image.width / image.height)
        notes: tuple[str, ...] = ()
        if (width, height) != (spec.width, spec.height):
            notes = (f"resolution is {width}x{height}, by the shape of the image ({image.width}x{image.height})",)
    else:
        asked = int(_or(draft.width, spec.width)), int(_or(draft.height, spec.height))
        width, height, notes = snap_size(spec, *asked, however_far=draft.any_size)
    for name, one in (("image", image), ("end_image", draft.end_image)):
        if one is not None and not same_aspect((one.width, one.height), (width, height)):
            done = {Fit.CROP: "cropped", Fit.PAD: "padded with black", Fit.STRETCH: "stretched"}
            how = done[draft.image_fit or Fit.CROP]
            notes += (f"{name} of {one.width}x{one.height} is {how} to the shape of {width}x{height}",)
    return width, height, sum((one.notes for one in (image, draft.end_image) if one), notes)


def _length(spec: ModelSpec, draft: RequestDraft, fps: float) -> tuple[int, tuple[str, ...]]:
    """Return the number of frames: as requested, from the seconds of the clip, or the model's default."""
    if draft.seconds is None:
        return snap_frames(spec, int(_or(draft.num_frames, spec.num_frames)))
    if draft.num_frames is not None:
        raise InvalidRequest("Set num_frames or seconds, not both", details={"field": "seconds"})
    seconds = _in_range("seconds", draft.seconds, 0.0, MAX_SECONDS)
    frames, notes = snap_frames(spec, max(1, 4 * round((seconds * fps - 1) / 4) + 1))
    return frames, (*notes, f"{seconds:g} s at {fps:g} frames per second became {frames} frames")


def _guidance_scale_2(spec: ModelSpec, draft: RequestDraft) -> float | None:
    if draft.guidance_scale_2 is None:
        return spec.guidance_scale_2
    if spec.guidance_scale_2 is None:
        raise InvalidRequest(
            f"guidance_scale_2 belongs to models with two experts; {spec.id} has one",
            details={"field": "guidance_scale_2"},
        )
    return _in_range("guidance_scale_2", draft.guidance_scale_2, 0.0, MAX_GUIDANCE)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _in_range(field: str, value: float, low: float, high: float) -> float:
    if not math.isfinite(value) or not low <= value <= high:
        nearest = low if not math.isfinite(value) or value < low else high
        # A seed is a name, not an amount: the nearest legal one means nothing.
        advice = {} if field == "seed" else {"nearest": nearest}
        raise InvalidRequest(
            f"{field.capitalize()} must be between {low} and {high}",
            details={"field": field, "minimum": low, "maximum": high} | advice,
        )
    return value


def native_request(
    spec: ModelSpec,
    size: tuple[int, int] | None = None,
    num_frames: int | None = None,
    steps: int | None = None,
    *,
    image: bool = False,
) -> GenerationRequest:
    """Return a request with the model's defaults for everything else, and with an image where it needs one.

    Raises:
        InvalidRequest: the model cannot generate this.
    """
    width, height = size or (spec.width, spec.height)
    picture = ImageRef("", width, height) if image or spec.needs_image else None
    draft = RequestDraft("-", width=width, height=height, num_frames=num_frames, steps=steps, image=picture)
    return resolve_request(spec, draft)[0]


def guidance_plan(request: GenerationRequest, experts: Sequence[str]) -> tuple[float | None, ...]:
    """Return the guidance scale of every step; None = the step takes one pass, without the negative prompt.

    A step is guided when its expert's scale is above 1 and the step lies in the request's interval
    (`guidance_start <= index / steps < guidance_end`).

    diffusers' pipelines check only the first scale: above 1, every step takes both passes. Where this plan omits
    a pass because a scale is exactly 1, the result is the same but for rounding (the pipeline computes
    `n + 1 * (p - n)`). Where only one scale is above 1, each expert follows its own here; the pipeline would guide
    both or neither, even with a scale below 1.
    """
    total = len(experts)
    return tuple(_scale(request, expert, index / total) for index, expert in enumerate(experts))


def _scale(request: GenerationRequest, expert: str, position: float) -> float | None:
    scale = request.guidance_scale
    if expert == LOW and request.guidance_scale_2 is not None:  # else one scale serves both, as in the pipeline
        scale = request.guidance_scale_2
    inside = request.guidance_start <= position < request.guidance_end
    return scale if inside and scale > 1.0 else None
