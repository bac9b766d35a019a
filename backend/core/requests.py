"""A generation request: what the user wrote, and what was made of it.

`RequestDraft` holds the user's words; `resolve_request` fills every gap from the model's spec, snaps
what can be snapped and says so, and refuses the rest with the nearest legal value. The result,
`GenerationRequest`, fixes every value that decides the pixels.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from backend.core.errors import InvalidRequest
from backend.core.model_table import ModelSpec

MAX_PROMPT_CHARS = 500
MAX_NEGATIVE_PROMPT_CHARS = 1000
MAX_SEED = 2**32 - 1
MAX_STEPS = 100
MAX_GUIDANCE = 20.0
MAX_FPS = 60.0
#: Frames are 4k+1 because the VAE packs four frames into one latent frame after the first.
TEMPORAL_STRIDE = 4


class Scheduler(StrEnum):
    """The samplers on offer; both are exact copies of what diffusers does."""

    UNIPC = "unipc"
    EULER = "euler"


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """What a user asked for; None means "the model's default"."""

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: float | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    flow_shift: float | None = None
    scheduler: Scheduler | None = None
    seed: int | None = None
    max_sequence_length: int | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request in which nothing is left open: the same one gives the same frames."""

    model: str
    prompt: str
    negative_prompt: str
    width: int  #: pixels
    height: int  #: pixels
    num_frames: int  #: 4k+1
    fps: float  #: frames per second of the file; the model does not see it
    steps: int
    guidance_scale: float  #: high-noise expert, or the only one
    guidance_scale_2: float | None  #: low-noise expert; None where there is one expert
    flow_shift: float
    scheduler: Scheduler
    seed: int
    max_sequence_length: int  #: prompt tokens

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return asdict(self) | {"scheduler": str(self.scheduler)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> GenerationRequest:
        """Build the request that `to_json` wrote."""
        return cls(**(values | {"scheduler": Scheduler(values["scheduler"])}))

    @property
    def resolution(self) -> str:
        """The size as the API writes it, `WIDTHxHEIGHT`."""
        return f"{self.width}x{self.height}"

    @property
    def digest(self) -> str:
        """SHA-256 over every value, in canonical JSON: equal digests mean equal frames on one machine."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def resolve_request(spec: ModelSpec, draft: RequestDraft) -> tuple[GenerationRequest, tuple[str, ...]]:
    """Turn a draft into a full request for this model, with one sentence for each value that was changed.

    Raises:
        InvalidRequest: a value is out of range; the message gives the nearest legal one.
    """
    notes: list[str] = []
    width, height = _size(spec, draft, notes)
    if draft.guidance_scale_2 is not None and spec.guidance_scale_2 is None:
        raise InvalidRequest(
            f"guidance_scale_2 belongs to models with two experts; {spec.id} has one",
            details={"field": "guidance_scale_2"},
        )
    guidance_scale_2 = spec.guidance_scale_2
    if guidance_scale_2 is not None and draft.guidance_scale_2 is not None:
        guidance_scale_2 = _in_range("guidance_scale_2", draft.guidance_scale_2, 0.0, MAX_GUIDANCE)
    request = GenerationRequest(
        model=spec.id,
        prompt=_text("prompt", draft.prompt, MAX_PROMPT_CHARS, required=True),
        negative_prompt=_text(
            "negative_prompt",
            spec.negative_prompt if draft.negative_prompt is None else draft.negative_prompt,
            MAX_NEGATIVE_PROMPT_CHARS,
            required=False,
        ),
        width=width,
        height=height,
        num_frames=_frames(spec, draft, notes),
        fps=_in_range("fps", _or(draft.fps, spec.fps), 1.0, MAX_FPS),
        steps=int(_in_range("steps", _or(draft.steps, spec.steps), 1, MAX_STEPS)),
        guidance_scale=_in_range("guidance_scale", _or(draft.guidance_scale, spec.guidance_scale), 0.0, MAX_GUIDANCE),
        guidance_scale_2=guidance_scale_2,
        flow_shift=_in_range("flow_shift", _or(draft.flow_shift, spec.flow_shift), 0.1, 30.0),
        scheduler=draft.scheduler or Scheduler.UNIPC,
        seed=int(_in_range("seed", secrets.randbelow(MAX_SEED + 1) if draft.seed is None else draft.seed, 0, MAX_SEED)),
        max_sequence_length=int(
            _in_range("max_sequence_length", _or(draft.max_sequence_length, spec.max_sequence_length), 8, 512)
        ),
    )
    return request, tuple(notes)


def parse_resolution(text: str) -> tuple[int, int]:
    """Read `WIDTHxHEIGHT`.

    Raises:
        InvalidRequest: the text has another form, or a side is not positive.
    """
    width, cross, height = text.strip().lower().partition("x")
    digits = cross and width.isascii() and width.isdigit() and height.isascii() and height.isdigit()
    if not digits or len(text) > 16:
        raise InvalidRequest("Invalid resolution format. Write it as WIDTHxHEIGHT, such as 1280x720")
    if int(width) == 0 or int(height) == 0:
        raise InvalidRequest("Invalid resolution values. Both sides must be positive")
    return int(width), int(height)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _text(field: str, text: str, limit: int, *, required: bool) -> str:
    text = text.strip()
    if required and not text:
        raise InvalidRequest(f"{field.capitalize()} cannot be empty", details={"field": field})
    if len(text) > limit:
        raise InvalidRequest(
            f"{field} may have at most {limit} characters; this one has {len(text)}", details={"field": field}
        )
    # PostgreSQL cannot store NUL, JSON cannot carry a lone surrogate, and no encoder knows either.
    if any((ord(c) < 32 and c not in "\n\t\r") or 0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise InvalidRequest(f"{field} contains control characters", details={"field": field})
    return text


def _in_range(field: str, value: float, low: float, high: float) -> float:
    if not math.isfinite(value) or not low <= value <= high:
        nearest = low if not math.isfinite(value) or value < low else high
        raise InvalidRequest(
            f"{field.capitalize()} must be between {low} and {high}",
            details={"field": field, "minimum": low, "maximum": high, "nearest": nearest},
        )
    return value


def _size(spec: ModelSpec, draft: RequestDraft, notes: list[str]) -> tuple[int, int]:
    width, height = int(_or(draft.width, spec.width)), int(_or(draft.height, spec.height))
    if width < 1 or height < 1:
        raise InvalidRequest("Invalid resolution values. Both sides must be positive", details={"field": "resolution"})
    step = spec.size_multiple
    snapped = tuple(max(spec.min_side, round(side / step) * step) for side in (width, height))
    too_small = min(width, height) < spec.min_side
    if too_small or snapped[0] * snapped[1] > spec.max_pixels:
        legal = _nearest_size(spec, width / height)
        raise InvalidRequest(
            f"{spec.id} cannot make {width}x{height}; the nearest size it can make is {legal[0]}x{legal[1]}",
            details={"field": "resolution", "nearest": f"{legal[0]}x{legal[1]}"},
        )
    if snapped != (width, height):
        notes.append(
            f"resolution {width}x{height} became {snapped[0]}x{snapped[1]}: {spec.id} needs multiples of {step}"
        )
    return snapped[0], snapped[1]


def _nearest_size(spec: ModelSpec, aspect: float) -> tuple[int, int]:
    """Return the model's native area in about this aspect, inside its limits."""
    step = spec.size_multiple
    aspect = min(4.0, max(0.25, aspect))
    width = math.sqrt(spec.width * spec.height * aspect)
    sides = (max(spec.min_side, round(side / step) * step) for side in (width, width / aspect))
    first, second = sides
    return (first, second) if first * second <= spec.max_pixels else (spec.width, spec.height)


def _frames(spec: ModelSpec, draft: RequestDraft, notes: list[str]) -> int:
    frames = int(_or(draft.num_frames, spec.num_frames))
    if not 1 <= frames <= spec.max_frames:
        nearest = 1 if frames < 1 else spec.max_frames
        raise InvalidRequest(
            f"num_frames must be between 1 and {spec.max_frames} for {spec.id}",
            details={"field": "num_frames", "nearest": nearest},
        )
    snapped = round((frames - 1) / TEMPORAL_STRIDE) * TEMPORAL_STRIDE + 1
    if snapped != frames:
        notes.append(f"num_frames {frames} became {snapped}: the model makes 4k+1 frames")
    return snapped
