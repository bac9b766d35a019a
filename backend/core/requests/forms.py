"""The two forms of a request: what a user asked for, and everything that decides the pixels.

A `RequestDraft` is what the user sent; `rules.resolve_request` makes a `GenerationRequest` of it. Values alone: knows
no model and no file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from backend.core.catalogue.spec import AUTO
from backend.core.domain import Priority
from backend.core.errors.generation import TaskUnreadable
from backend.core.requests.webhooks import Webhook

#: Constant quality of x264; 17 is visually lossless for generated clips.
DEFAULT_CRF = 17

#: Values that do not change the latents: their origin, and what happens to them afterwards.
AFTER_DENOISING = (
    "fps",
    "crf",
    "keep_latents",
    "latents_of",
    "extends",
    "remix_of",
    "preset",
    "on_lora_failure",
    "on_model_failure",
    "force",
)


class Scheduler(StrEnum):
    """The available samplers; the first two reproduce diffusers exactly."""

    UNIPC = "unipc"
    EULER = "euler"
    DMD = "dmd"  # only for models distilled with it


class Fit(StrEnum):
    """How an image is fitted when its aspect ratio differs from the video's."""

    CROP = "crop"  # fill the frame, crop the rest
    PAD = "pad"  # show the whole image, with black bars
    STRETCH = "stretch"  # stretch it to the frame


class OnLoraFailure(StrEnum):
    """What happens to a task whose LoRA cannot be applied in full."""

    SKIP = "skip"  # the task continues without that LoRA, with a warning
    FAIL = "fail"


class OnModelFailure(StrEnum):
    """What happens to a task whose model cannot be used."""

    FAIL = "fail"
    OTHER_MODEL = "other_model"  # an installed model that takes the same inputs makes the clip, and the clip says so
    MOCK = "mock"  # a clip that says on every frame that it is a mock


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image stored on this server, upright and without transparency."""

    id: str  #: SHA-256 of the stored file
    width: int  #: pixels
    height: int  #: pixels
    notes: tuple[str, ...] = field(default=(), compare=False)  #: what was changed or chosen when it was read


@dataclass(frozen=True, slots=True)
class LoraFileRef:
    """One file of a LoRA, and the expert it goes to."""

    sha256: str
    name: str
    expert: str  #: "high", "low" or "both"; "both" also where there is one expert


@dataclass(frozen=True, slots=True)
class LoraUse:
    """One LoRA in a request: everything about it that decides the pixels."""

    id: str  #: its name in the list of LoRAs
    strength: float  #: on the high-noise expert, or the only one
    strength_2: float  #: on the low-noise expert
    files: tuple[LoraFileRef, ...]


@dataclass(frozen=True, slots=True)
class LoraChoice:
    """A LoRA as a user names it."""

    id: str
    strength: float = 1.0  #: on the high-noise expert, or the only one
    strength_2: float | None = None  #: on the low-noise expert; None = the same
    expert: str | None = None  #: "high", "low" or "both"; None = derived from its files


@dataclass(frozen=True, slots=True)
class Call:
    """What distinguishes one call that queues tasks from another."""

    key: str | None
    fingerprint: str  #: of what was asked
    repeated: bool = False  #: whether its client sends it again without a key

    @classmethod
    def to(cls, what: str, values: Mapping[str, Any], key: str | None, *, repeated: bool = False) -> Call:
        """Hash what was asked, before anything is chosen or drawn for it: a repeated call has the same hash."""
        asked = {"asked": what, **values}
        if asked.get("webhook") is None:
            asked.pop("webhook", None)  # as versions without webhooks hashed it
        text = json.dumps(asked, sort_keys=True, default=asdict)
        return cls(key, hashlib.sha256(text.encode()).hexdigest(), repeated)


@dataclass(frozen=True, slots=True)
class RequestDraft:
    """What a user asked for; None means "the model's default"."""

    prompt: str
    model: str = AUTO  #: a name, or "auto"
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    any_size: bool = False  #: whether a size that the model cannot make becomes the nearest one, however far away
    num_frames: int | None = None
    seconds: float | None = None  #: the length in another unit; not together with `num_frames`
    fps: float | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    guidance_scale_2: float | None = None
    flow_shift: float | None = None
    scheduler: Scheduler | None = None
    seed: int | None = None
    max_sequence_length: int | None = None
    image: ImageRef | None = None
    end_image: ImageRef | None = None
    image_fit: Fit | None = None
    loras: tuple[LoraChoice, ...] = ()
    on_lora_failure: OnLoraFailure = OnLoraFailure.SKIP
    on_model_failure: OnModelFailure | None = None  #: None = as the server is set
    guidance_start: float | None = None
    guidance_end: float | None = None
    crf: int | None = None
    keep_latents: bool = False
    extends: str | None = None
    remix_of: str | None = None
    preset: str | None = None
    variations: int = 1  #: number of tasks, with consecutive seeds
    priority: Priority = Priority.NORMAL
    force: bool = False  #: queue it even if it does not seem to fit the machine
    idempotency_key: str | None = None
    webhook: Webhook | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A complete request: equal requests give equal frames."""

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
    image: str | None = None  #: id of the stored start image
    end_image: str | None = None  #: id of the stored end image
    image_fit: Fit = Fit.CROP
    loras: tuple[LoraUse, ...] = ()
    on_lora_failure: OnLoraFailure = OnLoraFailure.SKIP
    guidance_start: float = 0.0  #: guidance applies to steps from this share of all steps on
    guidance_end: float = 1.0  #: and before this one
    crf: int = DEFAULT_CRF  #: quality of the file; the model does not see it
    keep_latents: bool = False  #: whether the final latents stay beside the video
    latents_of: str | None = None  #: the output whose kept latents are decoded again, without denoising
    extends: str | None = None  #: the output whose last frame is `image`
    preset: str | None = None  #: the preset that steps, guidance, shift and scheduler came from
    force: bool = False  #: whether it runs even if it does not seem to fit the machine; decides no frame
    on_model_failure: OnModelFailure | None = None  #: None = as the server is set; decides no frame
    remix_of: str | None = None  #: the task whose request this one is, with another prompt

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        left_out = {"force": False, "on_model_failure": None, "remix_of": None}
        return {name: value for name, value in values.items() if name not in left_out or value != left_out[name]}

    @classmethod
    def from_json(cls, values: Any) -> GenerationRequest:
        """Rebuild the request that `to_json` wrote; values unknown to an older version take their defaults.

        Raises:
            TaskUnreadable: a value is damaged, or a newer version wrote one that this version does not know.
        """
        if not isinstance(values, dict):
            raise TaskUnreadable
        unknown = sorted(set(values) - {one.name for one in fields(cls)})
        if unknown:
            raise TaskUnreadable(f"This version does not know {', '.join(unknown)} in this request")
        return cls.understood(values)

    @classmethod
    def understood(cls, values: dict[str, Any]) -> GenerationRequest:
        """Rebuild what this version understands of a request: to show it and to estimate its cost, not to run it.

        Raises:
            TaskUnreadable: a value is damaged.
        """
        try:
            return cls(
                **(
                    {one.name: values[one.name] for one in fields(cls) if one.name in values}
                    | {
                        "scheduler": Scheduler(values["scheduler"]),
                        "image_fit": Fit(values.get("image_fit", Fit.CROP)),
                        "on_lora_failure": OnLoraFailure(values.get("on_lora_failure", OnLoraFailure.SKIP)),
                        "on_model_failure": _chosen(values.get("on_model_failure")),
                        "loras": tuple(
                            LoraUse(**(use | {"files": tuple(LoraFileRef(**file) for file in use["files"])}))
                            for use in values.get("loras", ())
                        ),
                    }
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise TaskUnreadable from None

    @property
    def resolution(self) -> str:
        """The size as the API writes it, `WIDTHxHEIGHT`."""
        return f"{self.width}x{self.height}"

    @property
    def digest(self) -> str:
        """SHA-256 over every value, in canonical JSON: equal digests mean equal files on one machine."""
        return _digest(self.to_json())

    @property
    def denoise_digest(self) -> str:
        """SHA-256 over the values that decide the latents: equal digests mean equal latents on one machine."""
        return _digest({name: value for name, value in self.to_json().items() if name not in AFTER_DENOISING})


def _chosen(value: str | None) -> OnModelFailure | None:
    return None if value is None else OnModelFailure(value)


def _digest(values: dict[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()
