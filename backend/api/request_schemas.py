"""The shapes of what clients ask for: a video, its continuation, another file of it.

Only shapes: which values a model accepts is decided further in. Field names and spellings are fixed by the
clients that exist; docs/api.md tells them.
"""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from backend.core.domain import Priority
from backend.core.requests import Fit, OnLoraFailure, Scheduler

#: Whole numbers beyond this are rounded by JSON clients, so they are refused.
MAX_WHOLE = 2**53 - 1


def _number(value: object) -> object:
    """Let numbers and their spellings through; `true` is no number, and an empty form field is no value."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return None if isinstance(value, str) and not value.strip() else value


def _optional_text(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


Whole = Annotated[Annotated[int, Field(ge=-MAX_WHOLE, le=MAX_WHOLE)] | None, BeforeValidator(_number)]
Real = Annotated[Annotated[float, Field(allow_inf_nan=False)] | None, BeforeValidator(_number)]


def _json_text(value: object) -> object:
    """Read a list that came as text in a form; an empty field is no list."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value) if value.strip() else []
    except (ValueError, RecursionError):
        raise ValueError("must be a list, or a list as JSON text") from None


MAX_LORA_STRENGTH = 4.0
Strength = Annotated[
    float, BeforeValidator(_number), Field(ge=-MAX_LORA_STRENGTH, le=MAX_LORA_STRENGTH, allow_inf_nan=False)
]


class LoraBody(BaseModel):
    """One LoRA of a request."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    id: str = Field(max_length=200, description="Its id in the list of LoRAs", examples=["my-style"])
    strength: Strength = Field(1.0, description="On the high-noise expert, or the only one")
    strength_2: Strength | None = Field(None, description="On the low-noise expert; the same when left out")
    expert: str | None = Field(
        None, pattern="^(high|low|both)$", description="Where a file goes whose expert cannot be told from it"
    )


class SubmitBody(BaseModel):
    """A request for a video. Whatever is left out is the model's default."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model_type: str = Field(
        validation_alias=AliasChoices("model_type", "modelType"),
        description="A model id or alias, or `auto`",
        examples=["auto", "tiny-t2v-a14b", "T2V-A14B"],
    )
    prompt: str = Field(description="What to show", examples=["a red circle moving right on a navy background"])
    negative_prompt: str | None = Field(None, description="What not to show")
    resolution: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, description="WIDTHxHEIGHT in pixels", examples=["96x96"]
    )
    num_frames: Whole = Field(None, description="Frames, 4k+1")
    fps: Real = Field(None, description="Frames per second of the file")
    steps: Whole = Field(None, description="Denoising steps")
    guidance_scale: Real = Field(None, description="Guidance of the high-noise expert, or of the only one")
    guidance_scale_2: Real = Field(None, description="Guidance of the low-noise expert")
    flow_shift: Real = Field(None, description="Shift of the noise schedule")
    scheduler: Annotated[Scheduler | None, BeforeValidator(_optional_text)] = Field(None, description="Sampler")
    seed: Whole = Field(None, description="Same seed and request, same frames; drawn when left out")
    max_sequence_length: Whole = Field(None, description="Prompt tokens that are read")
    lora_path: str = Field(
        "", validation_alias=AliasChoices("lora_path", "loraPath"), description="A LoRA from the list; empty for none"
    )
    lora_strength: Annotated[float, BeforeValidator(_number)] = Field(
        1.0, ge=0.0, le=2.0, allow_inf_nan=False, validation_alias=AliasChoices("lora_strength", "loraStrength")
    )
    image_id: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, max_length=64, description="A start image that is on the server already, instead of the file `image`"
    )
    end_image_id: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, max_length=64, description="The same for `end_image`"
    )
    image_fit: Annotated[Fit | None, BeforeValidator(_optional_text)] = Field(
        None, description="What happens to an image of another shape: crop (default), pad or stretch"
    )
    loras: Annotated[list[LoraBody], BeforeValidator(_json_text)] = Field(
        [], max_length=8, description="LoRAs, several at once; in a form as JSON text"
    )
    on_lora_failure: OnLoraFailure = Field(
        OnLoraFailure.SKIP, description="Whether a task whose LoRA cannot be applied goes on without it or fails"
    )
    preset: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, max_length=200, description="A LoRA that brings its own steps, guidance, shift and scheduler"
    )
    guidance_start: Real = Field(None, description="Guidance applies from this share of the steps on, 0 to 1")
    guidance_end: Real = Field(None, description="Guidance ends at this share of the steps, 0 to 1")
    crf: Whole = Field(None, description="Quality of the file: 1 is best, 17 looks lossless, 51 is worst")
    keep_latents: bool = Field(False, description="Keep the latents, so that the video can be decoded again")
    variations: Annotated[int, BeforeValidator(_number), Field(ge=1, le=16)] = Field(
        1, description="Queue this many tasks, with seeds that follow each other"
    )
    priority: Priority = Field(Priority.NORMAL, description="Urgent tasks run first")
    client_request_id: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None,
        validation_alias=AliasChoices("client_request_id", "clientRequestId"),
        description="Repeating it returns the first task instead of queuing a second one",
    )
    dry_run: bool = Field(False, description="Say what the request would become and take, and queue nothing")
    enable_prompt_enhancement: bool = Field(
        False, description="Not offered yet; the answer says so when it is asked for"
    )
    enable_optimization: bool = Field(True, description="Accepted for older clients; the server always chooses a plan")


class ExtendBody(SubmitBody):
    """A request for the continuation of a video. Whatever is left out is as in that video."""

    model_type: str = Field(
        "auto", validation_alias=AliasChoices("model_type", "modelType"), description="A model id or alias, or `auto`"
    )
    prompt: str = Field("", description="What happens next; the video's own prompt when left out")


class RedecodeBody(BaseModel):
    """New settings of the encoder for a video whose latents were kept."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    fps: Real = Field(None, description="Frames per second of the file; as before when left out")
    crf: Whole = Field(None, description="Quality of the file: 1 is best, 51 is worst; as before when left out")
