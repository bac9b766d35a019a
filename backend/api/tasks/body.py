"""Request bodies for videos: their shape and how they are parsed from JSON or a form.

Accepts the spellings of older clients (camelCase, numbers as text) but nothing ambiguous: no NaN, no duplicate
keys, no object in place of a file. Which values a model accepts is decided elsewhere.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from typing import Annotated, Any, Final, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError
from starlette.datastructures import FormData, UploadFile

from backend.api.http.repeats import KeyHeader, check_key
from backend.api.http.shapes import knows_exact_ids
from backend.api.tasks.webhook import WebhookField, choice_of
from backend.core.catalogue.spec import AUTO
from backend.core.domain import Priority
from backend.core.errors.requests import INVALID_JSON, InvalidRequest, LoraNotFound, MalformedBody
from backend.core.plain_words import nearest
from backend.core.requests.forms import (
    Fit,
    ImageRef,
    LoraChoice,
    OnLoraFailure,
    OnModelFailure,
    RequestDraft,
    Scheduler,
)
from backend.core.requests.frame_size import parse_resolution
from backend.core.requests.rules import MAX_LORAS, MAX_VARIATIONS
from backend.services.media.images import MAX_IMAGE_BYTES, InputStore

#: JSON clients round integers beyond this, so they are rejected.
MAX_WHOLE = 2**53 - 1
MAX_FORM_FIELDS = 64
MAX_FORM_FILES = 4
MAX_FIELD_BYTES = 64 * 1024
IMAGE_FIELDS = ("image", "end_image")
_LORA_FILE = re.compile(r"^(?:loras/)?([^/\\]+?)(?:\.safetensors)?$")


def _number(value: object) -> object:
    """Accept numbers and numeric text; reject booleans and treat an empty form field as absent."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false")
    return None if isinstance(value, str) and not value.strip() else value


def _optional_text(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _whole(value: object) -> object:
    """Cut a number that no field accepts to one that the rules of its field refuse in their own words."""
    value = _number(value)
    try:
        number = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        return value
    return value if number is None else max(-MAX_WHOLE, min(MAX_WHOLE, number))


Whole = Annotated[int | None, BeforeValidator(_whole)]
Real = Annotated[Annotated[float, Field(allow_inf_nan=False)] | None, BeforeValidator(_number)]


def _json_text(value: object) -> object:
    """Parse a list sent as JSON text in a form; an empty field is an empty list."""
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


#: Names of other programs and APIs -> ours.
_MEANT: Final = {
    **dict.fromkeys(("width", "height", "size", "dimensions"), "resolution, such as 832x480"),
    **dict.fromkeys(("frames", "n_frames", "video_length", "length"), "num_frames"),
    **dict.fromkeys(("duration", "secs", "num_seconds"), "seconds"),
    **dict.fromkeys(("model", "model_id", "model_name"), "model_type"),
    **dict.fromkeys(("num_inference_steps", "num_steps", "sampling_steps"), "steps"),
    **dict.fromkeys(("cfg", "cfg_scale", "guidance"), "guidance_scale"),
    **dict.fromkeys(("sampler", "sampler_name", "sample_solver"), "scheduler"),
    **dict.fromkeys(("shift", "sample_shift"), "flow_shift"),
    **dict.fromkeys(("negative", "neg_prompt", "n_prompt"), "negative_prompt"),
    **dict.fromkeys(("n", "count", "batch_size", "num_videos"), "variations"),
    **dict.fromkeys(("lora", "lora_name", "lora_id"), "loras"),
    **dict.fromkeys(("image_url", "input_image", "start_image"), "image or image_id"),
    **dict.fromkeys(("last_image", "tail_image"), "end_image or end_image_id"),
}


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
        AUTO,
        validation_alias=AliasChoices("model_type", "modelType"),
        description="A model id or alias, or `auto`: the best installed model for the request",
        examples=["auto", "tiny-t2v-a14b", "T2V-A14B"],
    )
    prompt: str = Field(description="What to show", examples=["a red circle moving right on a navy background"])
    negative_prompt: str | None = Field(None, description="What not to show")
    resolution: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, description="WIDTHxHEIGHT in pixels", examples=["96x96"]
    )
    num_frames: Whole = Field(None, description="Frames, 4k+1")
    seconds: Real = Field(None, description="Length of the clip in seconds, instead of `num_frames`")
    fps: Real = Field(None, description="Frames per second of the file")
    steps: Whole = Field(None, description="Denoising steps")
    guidance_scale: Real = Field(None, description="Guidance of the high-noise expert, or of the only one")
    guidance_scale_2: Real = Field(None, description="Guidance of the low-noise expert")
    flow_shift: Real = Field(None, description="Shift of the noise schedule")
    scheduler: Annotated[Scheduler | None, BeforeValidator(_optional_text)] = Field(None, description="Sampler")
    seed: Whole = Field(None, description="Same seed and request, same frames; random when left out or -1")
    max_sequence_length: Whole = Field(None, description="Prompt tokens that are read")
    lora_path: str = Field(
        "", validation_alias=AliasChoices("lora_path", "loraPath"), description="A LoRA from the list; empty for none"
    )
    lora_strength: Annotated[float, BeforeValidator(_number)] = Field(
        1.0, ge=0.0, le=2.0, allow_inf_nan=False, validation_alias=AliasChoices("lora_strength", "loraStrength")
    )
    image_id: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, max_length=64, description="A start image stored on the server, instead of the file `image`"
    )
    end_image_id: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, max_length=64, description="The same for `end_image`"
    )
    image_fit: Annotated[Fit | None, BeforeValidator(_optional_text)] = Field(
        None, description="How an image of another aspect ratio is fitted: crop (default), pad or stretch"
    )
    loras: Annotated[list[LoraBody], BeforeValidator(_json_text)] = Field(
        [], max_length=MAX_LORAS, description="LoRAs, several at once; in a form as JSON text"
    )
    on_lora_failure: OnLoraFailure = Field(
        OnLoraFailure.SKIP, description="Whether a task whose LoRA cannot be applied goes on without it or fails"
    )
    on_model_failure: Annotated[OnModelFailure | None, BeforeValidator(_optional_text)] = Field(
        None,
        description="What a task does whose model cannot be used: fail, let another installed model make the clip, or "
        "make a clip that is marked as a mock; left out: as the server is set",
    )
    preset: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None, max_length=200, description="A LoRA that brings its own steps, guidance, shift and scheduler"
    )
    guidance_start: Real = Field(None, description="Guidance applies from this share of the steps on, 0 to 1")
    guidance_end: Real = Field(None, description="Guidance ends at this share of the steps, 0 to 1")
    crf: Whole = Field(None, description="Quality of the file: 1 is best, 17 looks lossless, 51 is worst")
    keep_latents: bool = Field(False, description="Keep the latents, so that the video can be decoded again")
    variations: Annotated[int, BeforeValidator(_number), Field(ge=1, le=MAX_VARIATIONS)] = Field(
        1, description="Queue this many tasks, with seeds that follow each other"
    )
    priority: Priority = Field(Priority.NORMAL, description="Urgent tasks run first")
    client_request_id: Annotated[str | None, BeforeValidator(_optional_text)] = Field(
        None,
        validation_alias=AliasChoices("client_request_id", "clientRequestId"),
        description="Repeating it returns the first task instead of queuing a second one",
    )
    webhook: WebhookField = Field(
        None, description="An address to tell what becomes of the task, or `{url, events, secret}`; in a form as JSON"
    )
    force: bool = Field(False, description="Queue it even if it does not seem to fit this machine")
    dry_run: bool = Field(False, description="Say what the request would become and take, and queue nothing")
    enable_prompt_enhancement: bool = Field(
        False, description="Not offered yet; the answer says so when it is asked for"
    )
    enable_optimization: bool = Field(True, description="Accepted for older clients; the server always chooses a plan")

    _images: dict[str, bytes] = PrivateAttr(default_factory=dict)  # the files of the form, by field

    def draft(self, inputs: InputStore) -> RequestDraft:
        """Convert the body to a domain request and store its images.

        Raises:
            InvalidRequest: the resolution is not WIDTHxHEIGHT, or an image was sent twice.
            InvalidImage: a file is not a usable image.
            InputMissing: an image id is malformed or unknown.
            LoraNotFound: `lora_path` is not a valid LoRA name.
        """
        width, height = (None, None) if self.resolution is None else parse_resolution(self.resolution)
        return RequestDraft(
            **self.model_dump(include=_DRAFT_FIELDS),
            model=self.model_type,
            width=width,
            height=height,
            # A client that knows three models and four sizes leaves both to the server; ours is told which there are.
            any_size=self.model_type.strip().lower() == AUTO and not knows_exact_ids.get(),
            image=self._image("image", self.image_id, inputs),
            end_image=self._image("end_image", self.end_image_id, inputs),
            loras=self._lora_choices(),
            idempotency_key=self.client_request_id,
            webhook=choice_of(self.webhook),
        )

    @property
    def has_image(self) -> bool:
        """Whether a start image was sent or named."""
        return "image" in self._images or self.image_id is not None

    def _image(self, field: str, image_id: str | None, inputs: InputStore) -> ImageRef | None:
        raw = self._images.get(field)
        if raw is not None and image_id is not None:
            raise InvalidRequest(f"Send {field} or {field}_id, not both", details={"field": field})
        if raw is not None:
            return inputs.store(raw, field)
        return None if image_id is None else inputs.find(image_id)

    def _lora_choices(self) -> tuple[LoraChoice, ...]:
        choices = [LoraChoice(one.id, one.strength, one.strength_2, one.expert) for one in self.loras]
        if self.lora_path.strip():
            # Older clients send the `path` from the list; it identifies a LoRA and is never opened as a path.
            named = _LORA_FILE.match(self.lora_path.strip())
            if named is None:
                raise LoraNotFound("There is no LoRA with this name", details={"field": "lora_path"})
            choices.append(LoraChoice(named[1], self.lora_strength))
        return tuple(choices)


class ExtendBody(SubmitBody):
    """A request for the continuation of a video. Whatever is left out is as in that video."""

    model_type: str = Field(
        "auto", validation_alias=AliasChoices("model_type", "modelType"), description="A model id or alias, or `auto`"
    )
    prompt: str = Field("", description="What happens next; the video's own prompt when left out")


class ChangeBody(SubmitBody):
    """Fields of a request to change. Null or an empty text stands for the model's default."""

    prompt: str = Field("", description="What to show")

    def changes(self, inputs: InputStore, *, of_copy: bool = False) -> dict[str, Any]:
        """Return the fields that were sent, as values of `RequestDraft` by name. Raises like `draft`.

        `of_copy`: a new task is made, which may have a key and a webhook of its own.
        """
        sent = self.model_fields_set | self._images.keys()
        if of_copy or self.client_request_id is None:
            sent -= {"client_request_id"}
        if of_copy:
            sent -= {"webhook"}
        if "lora_strength" in sent and "lora_path" not in sent:
            raise InvalidRequest("lora_strength needs lora_path", details={"field": "lora_strength"})
        for field in _ONCE:
            if field in sent:
                raise InvalidRequest(f"{field} belongs to a new request", details={"field": field})
        draft = self.draft(inputs)
        names = {name for field in sent for name in _DRAFT_NAMES.get(field, (field,))}
        return {name: getattr(draft, name) for name in sorted(names)}


#: Fields that a body and a draft share by name; LoRAs have another form.
_DRAFT_FIELDS = SubmitBody.model_fields.keys() & {field.name for field in fields(RequestDraft)} - {"loras", "webhook"}
#: Fields of a submission that are not part of the request itself.
_ONCE: Final = (
    "variations",
    "client_request_id",
    "webhook",
    "dry_run",
    "enable_prompt_enhancement",
    "enable_optimization",
)
#: The fields of a draft that a field of a body becomes, where the names differ.
_DRAFT_NAMES: Final = {
    "model_type": ("model",),
    "resolution": ("width", "height"),
    "image_id": ("image",),
    "end_image_id": ("end_image",),
    "lora_path": ("loras",),
    "lora_strength": ("loras",),
}

BodyT = TypeVar("BodyT", bound=SubmitBody)


async def read_submission(request: Request, idempotency_key: KeyHeader = None) -> SubmitBody:
    """Read the body of a generation request.

    Raises:
        MalformedBody: it is neither JSON nor a form, or cannot be parsed.
        RequestValidationError: a field is missing, unknown or of the wrong type.
        InvalidRequest: an image is no file, or an idempotency key is invalid.
    """
    return await _read(request, SubmitBody, idempotency_key)


async def read_extension(request: Request, idempotency_key: KeyHeader = None) -> SubmitBody:
    """Read the body of a request to extend a video. Raises like `read_submission`."""
    return await _read(request, ExtendBody, idempotency_key)


async def read_changes(request: Request) -> ChangeBody:
    """Read the fields of a request to change; no body changes nothing. Raises like `read_submission`."""
    if "content-type" not in request.headers:
        return ChangeBody.model_validate({})
    return await _read(request, ChangeBody, None)


async def read_copy(request: Request, idempotency_key: KeyHeader = None) -> ChangeBody:
    """Read the fields to change in a new task; as `read_changes`."""
    body = await read_changes(request)
    body.client_request_id = _one_key(idempotency_key, body.client_request_id)
    return body


async def _read(request: Request, shape: type[BodyT], idempotency_key: str | None) -> BodyT:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    images: dict[str, bytes] = {}
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        limits = {"max_files": MAX_FORM_FILES, "max_fields": MAX_FORM_FIELDS, "max_part_size": MAX_FIELD_BYTES}
        async with request.form(**limits) as form:
            values, images = await _from_form(form)
    elif kind == "application/json" or kind.endswith("+json"):
        values = _from_json(await request.body())
    else:
        raise MalformedBody("The body must be JSON (application/json) or a form (multipart/form-data)")
    return checked_body(shape, values, images, idempotency_key)


def checked_body(
    shape: type[BodyT], values: dict[str, Any], images: dict[str, bytes], idempotency_key: str | None
) -> BodyT:
    """Make a body of its fields and the files of its images. Raises like `read_submission`."""
    try:
        body = shape.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        hinted = [with_meant(fault, shape) | {"loc": ("body", *fault["loc"])} for fault in faults]
        raise RequestValidationError(hinted) from None
    body._images = images
    body.client_request_id = _one_key(idempotency_key, body.client_request_id)
    return body


def with_meant(fault: Any, shape: type[SubmitBody]) -> dict[str, Any]:
    """Name the field that was probably meant where an unknown one was sent."""
    if fault["type"] != "extra_forbidden" or len(fault["loc"]) != 1:
        return dict(fault)
    name = str(fault["loc"][0])
    return dict(fault) | {"ctx": {"meant": _MEANT.get(name.lower()) or nearest(name, shape.model_fields)}}


def _from_json(raw: bytes) -> dict[str, Any]:
    try:
        values = json.loads(raw, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeats)
    except (ValueError, RecursionError):  # also invalid UTF-8, a number of 5,000 digits, 100,000 nested brackets
        raise MalformedBody(INVALID_JSON) from None
    if not isinstance(values, dict):
        raise MalformedBody("The body must be a JSON object")
    for field in IMAGE_FIELDS:
        # Some HTTP clients serialize a file as `{}` when they send JSON.
        if values.pop(field, None) not in (None, ""):
            raise InvalidRequest(
                f"{field} must be a file in a form (multipart/form-data); in JSON it cannot be read",
                suggestions=(
                    "Send the request as multipart/form-data, or the image to POST /api/v1/inputs and then its id as "
                    f"{field}_id.",
                ),
                details={"field": field},
            )
    return values


async def _from_form(form: FormData) -> tuple[dict[str, Any], dict[str, bytes]]:
    values: dict[str, Any] = {}
    images: dict[str, bytes] = {}
    for name, value in form.multi_items():
        if name in values or name in images:
            raise MalformedBody("A field of the form was sent twice")
        if isinstance(value, UploadFile):
            if name not in IMAGE_FIELDS:
                raise InvalidRequest("Only `image` and `end_image` may be files")
            if value.size or value.filename:  # browsers send an unnamed empty file for an empty input
                # One byte too many is enough to refuse it, after everything that matters more.
                images[name] = await value.read(MAX_IMAGE_BYTES + 1)
        elif name in IMAGE_FIELDS:
            if value.strip():
                raise InvalidRequest(f"{name} must be a file", details={"field": name})
        else:
            values[name] = value
    return values, images


def _refuse_constant(_: str) -> object:
    raise ValueError("not JSON")


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("repeated key")
    return values


def _one_key(header: str | None, field: str | None) -> str | None:
    if header is not None and field is not None and header != field:
        raise InvalidRequest("The header Idempotency-Key and the field client_request_id differ")
    return check_key(header if header is not None else field)


def request_body_docs(shape: type[SubmitBody] = SubmitBody) -> dict[str, Any]:
    """Return the OpenAPI description of a body read by `read_submission` or `read_extension`."""
    schema = shape.model_json_schema()
    definitions = schema.pop("$defs", {})
    fields = {name: _inlined(field, definitions) for name, field in schema["properties"].items()}
    json_schema = schema | {"properties": fields}
    binary = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, AVIF, HEIC, BMP or TIFF"}
    form_schema = json_schema | {"properties": fields | dict.fromkeys(IMAGE_FIELDS, binary)}
    content = {"application/json": {"schema": json_schema}, "multipart/form-data": {"schema": form_schema}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return _inlined(definitions[node["$ref"].rpartition("/")[2]], definitions) | rest
        return {key: _inlined(value, definitions) for key, value in node.items()}
    return [_inlined(item, definitions) for item in node] if isinstance(node, list) else node
