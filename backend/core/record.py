"""The record of a run: what a finished video says about how it was generated.

It is stored in the MP4 file and in the output's row. Knows the device by its name; knows no loaded model and no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

from pydantic import TypeAdapter

from backend import __version__
from backend.core.catalogue.table import find_model
from backend.core.domain import Phase
from backend.core.errors.generation import TaskUnreadable
from backend.core.requests.forms import GenerationRequest

METADATA_FORMAT: Final = 1
PRODUCT: Final = "wan22"
_REQUEST: Final = TypeAdapter(GenerationRequest)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What came out of a run and how it went, in the order of the JSON object; None = not recorded."""

    frames: int | None = None
    frames_sha256: str | None = None  #: over the decoded frames before encoding, uint8 RGB
    quality: str | None = None  #: "ok", or what is wrong with the clip
    seconds: dict[Phase, float] | None = None  #: of each phase that had ended when the record was written
    expert_steps: dict[str, int] | None = None  #: number of steps of each expert
    warnings: tuple[str, ...] = ()
    loras: tuple[dict[str, Any], ...] = ()  #: their receipts, as plain JSON values
    resumed_from_step: int | None = None  #: the step after which this attempt resumed; None = from the start
    kept_latents: bool = False  #: whether the latents are stored beside the video
    attention: str | None = None  #: attention kernel of the experts
    convolution: str | None = None  #: convolutions of the VAE
    precision: str | None = None  #: number format in which the experts computed
    peak_vram_bytes: int | None = None  #: peak of tensor memory on the card
    peak_ram_bytes: int | None = None  #: peak memory of the worker process
    plan: str | None = None  #: the memory plan in force at the end
    plan_reason: str | None = None  #: why the run started with the plan that it started with
    mock: str | None = None  #: why no model made the clip; None = a model did
    instead_of: str | None = None  #: the model of the request, where another one made the clip
    fallbacks: tuple[dict[str, str], ...] = ()  #: plans abandoned because memory ran out, in order; {} = unreadable

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; seconds are rounded to milliseconds."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        for name in ("mock", "instead_of", "convolution"):
            if plain[name] is None:  # as records were before
                del plain[name]
        return plain | {"seconds": {str(phase): round(value, 3) for phase, value in (self.seconds or {}).items()}}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunResult:
        """Read what `to_json` of any version wrote.

        Raises:
            ValueError, TypeError, AttributeError, OverflowError: a value has the wrong type.
        """
        texts = ["frames_sha256", "quality", "attention", "convolution", "precision", "plan", "plan_reason"]
        texts += ["mock", "instead_of"]
        counts = ("frames", "resumed_from_step", "peak_vram_bytes", "peak_ram_bytes")
        seconds, steps = values.get("seconds"), values.get("expert_steps")
        known = set(Phase)
        plain: dict[str, Any] = {name: str(values[name]) for name in texts if values.get(name) is not None}
        plain |= {name: int(values[name]) for name in counts if values.get(name) is not None}
        return cls(
            **plain,
            seconds=None
            if seconds is None
            else {Phase(name): float(value) for name, value in seconds.items() if name in known},
            expert_steps=None if steps is None else {name: int(count) for name, count in steps.items()},
            warnings=tuple(str(one) for one in _list(values.get("warnings"))),
            loras=tuple(one for one in _list(values.get("loras")) if isinstance(one, dict)),
            kept_latents=bool(values.get("kept_latents")),
            fallbacks=_fallbacks(values.get("fallbacks")),
        )


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything that a video says about how it was generated."""

    request: dict[str, Any]  #: as recorded; `requested` parses it
    model: str | None
    repository: str | None  #: where the model was published
    weights_sha256: str | None  #: over the weights that produced the latents
    libraries: dict[str, str]  #: name -> version
    device: str | None  #: in words
    result: RunResult | None  #: None = absent or malformed
    task_id: str | None = None
    format: int = METADATA_FORMAT
    product: str | None = PRODUCT
    version: str | None = __version__  #: of the program that wrote it

    @classmethod
    def of(
        cls,
        task_id: str,
        request: GenerationRequest,
        result: RunResult,
        *,
        device: str,
        weights_sha256: str | None,
        libraries: dict[str, str],
    ) -> RunRecord:
        """Describe a run of this version."""
        spec = find_model(request.model)
        return cls(request.to_json(), spec.id, spec.repo_id, weights_sha256, libraries, device, result, task_id)

    @property
    def requested(self) -> GenerationRequest | None:
        """The request that reproduces the clip; None if this version cannot read it."""
        try:
            # The record may have come with a file of anybody's, so every type is checked, without conversion.
            _REQUEST.validate_json(json.dumps(self.request, allow_nan=False), strict=True)
            return GenerationRequest.from_json(self.request)
        except (TypeError, ValueError, TaskUnreadable):
            return None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return {
            "format": self.format,
            "product": self.product,
            "version": self.version,
            "task_id": self.task_id,
            "request": self.request,
            "model": {"id": self.model, "repository": self.repository, "weights_sha256": self.weights_sha256},
            "libraries": self.libraries,
            "device": self.device,
            "result": None if self.result is None else self.result.to_json(),
        }

    def brief(self) -> dict[str, Any]:
        """Return the values that say what was asked for, and what became of it in a word; a record of its own."""
        result = {} if self.result is None else {"mock": self.result.mock, "instead_of": self.result.instead_of}
        names = ("format", "product", "version", "task_id", "request", "model")
        whole = self.to_json()
        return {name: whole[name] for name in names} | {"result": {n: v for n, v in result.items() if v is not None}}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> RunRecord:
        """Read the record of any version; absent values become None or empty, and nothing is raised."""
        model = _object(values.get("model"))
        try:
            result = RunResult.from_json(values["result"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            result = None
        written = values.get("format")
        libraries = _object(values.get("libraries"))
        return cls(
            request=_object(values.get("request")),
            model=_text(model.get("id")),
            repository=_text(model.get("repository")),
            weights_sha256=_text(model.get("weights_sha256")),
            libraries={name: version for name, version in libraries.items() if isinstance(version, str)},
            device=_text(values.get("device")),
            result=result,
            task_id=_text(values.get("task_id")),
            format=written if isinstance(written, int) else 0,
            product=_text(values.get("product")),
            version=_text(values.get("version")),
        )


#: Values that a repeated request omits: their effect is already in its other values.
_LEFT_OUT: Final = {"latents_of", "extends", "preset", "remix_of"}


def body_of(request: GenerationRequest) -> dict[str, Any]:
    """Return the body of a submit that requests exactly this, with nothing left to defaults."""
    values = {name: value for name, value in request.to_json().items() if name not in _LEFT_OUT}
    del values["width"], values["height"], values["model"], values["image"], values["end_image"]
    return values | {
        "model_type": request.model,
        "resolution": request.resolution,
        "image_id": request.image,
        "end_image_id": request.end_image,
        "loras": [
            {
                "id": use.id,
                "strength": use.strength,
                "strength_2": use.strength_2,
                # A single file keeps the expert it was applied to; the files of a pair have their own.
                "expert": use.files[0].expert if len(use.files) == 1 else None,
            }
            for use in request.loras
        ],
    }


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _fallbacks(value: object) -> tuple[dict[str, str], ...]:
    """Read fallbacks; an unreadable one is kept as an empty object, because something did run out of memory."""
    if not value:
        return ()
    return tuple(_object(one) for one in value) if isinstance(value, Iterable) else ({},)
