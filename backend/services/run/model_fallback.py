"""What a worker does with a request under the policy in force: the model, another model, or a mock.

A clip that is not what was asked for says so: in its warnings, its record, an alert, and the fields of the API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import structlog

from backend.core.catalogue.table import ModelSpec
from backend.core.config.file import ConfigFile
from backend.core.config.generation_policy import GenerationMode, stored_policy
from backend.core.domain import Output
from backend.core.errors.base import WanError
from backend.core.errors.generation import OutOfMemory
from backend.core.errors.models import HubRateLimited, HubUnreachable, ModelDamaged, ModelUnavailable
from backend.core.errors.requests import DoesNotFit, InvalidRequest, UnknownModel
from backend.core.paths import Home
from backend.core.requests.forms import GenerationRequest, ImageRef, OnModelFailure, RequestDraft
from backend.core.requests.rules import resolve_request
from backend.models.download.hub import hub_is_forbidden
from backend.models.folder.manager import ModelManager
from backend.services.planning.forecast import Forecast
from backend.services.run.mock_clip import MockClip
from backend.services.run.report import Report

#: The model of a request cannot be used, as opposed to a fault of the request, the disk or the network.
MODEL_FAILURES = (ModelUnavailable, ModelDamaged, UnknownModel, DoesNotFit, OutOfMemory)

#: Publishes plain JSON values as an alert of the task.
Alert = Callable[[dict[str, str]], None]

log = structlog.get_logger(__name__)


class Pipeline(Protocol):
    """What makes real clips (`real_generation_pipeline.RealGenerationPipeline`)."""

    def generate(
        self,
        task_id: str,
        request: GenerationRequest,
        *,
        report: Report,
        poll: Callable[[], None] | None = None,
        instead_of: tuple[str, str] | None = None,
    ) -> Output:
        """Make the video of a task."""


class ModelFallback:
    """Generates under the policy of the request and of the server."""

    def __init__(self, home: Home, pipeline: Pipeline, models: ModelManager, forecast: Forecast) -> None:
        self._policy = stored_policy(ConfigFile(home.config_file))
        self._pipeline = pipeline
        self._mock = MockClip(home)
        self._models = models
        self._forecast = forecast

    def generate(
        self, task_id: str, request: GenerationRequest, *, report: Report, poll: Callable[[], None], alert: Alert
    ) -> Output:
        """Generate the video of a task as the policy allows.

        The arguments are those of `RealGenerationPipeline.generate`; `alert` receives what the user has to know. Raises
        like that, and where nothing else is allowed or possible, with the error of the requested model.
        """
        policy = self._policy.current()

        def mock(reason: str) -> Output:
            message = f"This clip is a mock: {reason}"
            alert(_news("mock", message, original_model=request.model))
            return self._mock.generate(task_id, request, reason, report=report, poll=poll, seconds=policy.mock_seconds)

        if policy.mode is GenerationMode.MOCK:
            return mock("mock generation is switched on")
        try:
            return self._pipeline.generate(task_id, request, report=report, poll=poll)
        except MODEL_FAILURES as error:
            if isinstance(error, HubUnreachable | HubRateLimited) and not hub_is_forbidden():
                raise  # the task waits for the hub
            allowed = request.on_model_failure or policy.on_model_failure
            reason = error.message.rstrip(".")
            if allowed is OnModelFailure.MOCK:
                return mock(reason)
            if allowed is OnModelFailure.FAIL or request.latents_of is not None:
                raise
            return self._by_another(task_id, request, error, report=report, poll=poll, alert=alert)

    def _by_another(
        self,
        task_id: str,
        request: GenerationRequest,
        error: WanError,
        *,
        report: Report,
        poll: Callable[[], None],
        alert: Alert,
    ) -> Output:
        for other in self._others(request):
            sentence = f"{other.model} made this clip instead of {request.model}: {error.message.rstrip('.')}"
            dropped = f"; the LoRAs {', '.join(one.id for one in request.loras)} were left out" if request.loras else ""
            log.warning("task.other_model", model=other.model, instead_of=request.model, reason=error.message)
            alert(
                _news(
                    "other_model",
                    sentence + dropped,
                    original_model=request.model,
                    alternative_model=other.model,
                )
            )
            try:
                output = self._pipeline.generate(
                    task_id, other, report=report, poll=poll, instead_of=(request.model, sentence + dropped)
                )
            except MODEL_FAILURES as another:
                log.warning("task.other_model_failed", model=other.model, error=another.code)
                continue
            return replace(output, model=other.model)
        raise error

    def _others(self, request: GenerationRequest) -> Iterator[GenerationRequest]:
        """Yield the request as other installed models can serve it, the best one for this machine first."""
        images = {"image": request.image is not None, "end_image": request.end_image is not None}
        for spec in self._models.fitting(**images):
            if spec.id != request.model:
                try:
                    other = translated(request, spec)
                except InvalidRequest:
                    continue
                if spec.embedded or self._forecast.decide(other).fits:
                    yield other


def _news(kind: str, message: str, **models: str) -> dict[str, str]:
    return {"alert_type": kind, "severity": "warning", "message": message} | models


def translated(request: GenerationRequest, spec: ModelSpec) -> GenerationRequest:
    """Return what a request means for another model: prompt, images, seed, size and length; the rest is its own.

    Raises:
        InvalidRequest: the model cannot serve it, at its own size and length either.
    """
    draft = RequestDraft(
        request.prompt,
        spec.id,
        negative_prompt=request.negative_prompt,
        image=_image(request.image, request),
        end_image=_image(request.end_image, request),
        image_fit=request.image_fit,
        seed=request.seed,
        crf=request.crf,
        width=request.width,
        height=request.height,
        num_frames=request.num_frames,
    )
    try:
        return resolve_request(spec, draft)[0]
    except InvalidRequest:
        return resolve_request(spec, replace(draft, width=None, height=None, num_frames=None))[0]


def _image(image: str | None, request: GenerationRequest) -> ImageRef | None:
    return None if image is None else ImageRef(image, request.width, request.height)
