"""Suggests what to do when a model is not installed or does not fit: use another one, wait, or reduce the request.

Knows the files, the planner and the downloads. Starts nothing and queues nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from backend.core.catalogue.table import ModelSpec
from backend.core.errors.requests import InvalidRequest
from backend.core.planning.optimizer import Decision
from backend.core.requests.forms import GenerationRequest, ImageRef, RequestDraft
from backend.core.requests.rules import resolve_request
from backend.models.folder.manager import ModelManager, ModelState, Presence
from backend.services.downloads.runner import ModelDownloads
from backend.services.downloads.state import RUNNING, DownloadState
from backend.services.models.availability import ModelAvailability
from backend.services.planning.forecast import Forecast


class Strategy(StrEnum):
    """The kind of suggestion, in the words of older clients."""

    QUEUE_AND_WAIT = "queue_and_wait"  #: submit the request, or wait for the running download
    ALTERNATIVE_MODEL = "alternative_model"
    DOWNLOAD_AND_RETRY = "download_and_retry"
    REDUCE_REQUIREMENTS = "reduce_requirements"
    HYBRID_APPROACH = "hybrid_approach"  #: the other model now, the wanted one after its download


class Level(StrEnum):
    """How much something matters."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Want:
    """The request that cannot be served as it is."""

    spec: ModelSpec
    size: tuple[int, int] | None = None  #: width and height; None = the model's own
    quality: Level = Level.MEDIUM
    speed: Level = Level.MEDIUM
    max_wait_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another model that is installed and fits."""

    spec: ModelSpec
    same_size: bool  #: whether it makes the requested size
    time_ratio: float | None  #: its estimated time as a multiple of the wanted model's; None = unknown

    @property
    def compatibility(self) -> float:
        """The share of three that holds: takes the same inputs (always), makes the same size, is a full-size model."""
        return round((1 + self.same_size + (not self.spec.embedded)) / 3, 2)

    @property
    def reason(self) -> str:
        """Why it is suggested, and its limits."""
        words = f"{self.spec.id} is here, takes the same inputs and fits this machine"
        if self.spec.embedded:
            words += "; it is a miniature that knows a small world of moving shapes"
        if not self.same_size:
            words += f"; it makes {self.spec.width}x{self.spec.height} instead of the size that was asked for"
        return words


@dataclass(frozen=True, slots=True)
class FallbackSuggestion:
    """The suggestion."""

    strategy: Strategy
    action: str  #: what to call
    message: str
    can_queue: bool  #: whether the request would be accepted as it is
    alternative: Alternative | None = None
    wait_seconds: float | None = None  #: until the running download ends; None = none runs, or unknown


class FallbackAdvisor:
    """Makes the suggestions for one server."""

    def __init__(
        self, models: ModelManager, forecast: Forecast, downloads: ModelDownloads, supply: ModelAvailability
    ) -> None:
        self._models = models
        self._forecast = forecast
        self._downloads = downloads
        self._supply = supply

    def suggest(self, want: Want) -> FallbackSuggestion:
        """Suggest what to do.

        Raises:
            InvalidRequest: the model cannot make this size on any machine.
        """
        spec, state = want.spec, self._models.state(want.spec)
        decision = self._forecast.decide(_request(spec, want.size))
        fits = spec.embedded or decision.fits
        if state.available and fits:
            return FallbackSuggestion(
                Strategy.QUEUE_AND_WAIT,
                "POST /api/v1/generation/submit",
                f"{spec.id} is here and fits this machine: {decision.reason}",
                can_queue=True,
            )
        other = self._alternative(want, decision)
        if not fits:
            return _too_large(decision, other)
        return self._absent(want, state, other)

    def _absent(self, want: Want, state: ModelState, other: Alternative | None) -> FallbackSuggestion:
        """Suggest for a model that would fit but is not installed."""
        spec, download = want.spec, self._downloads.get(want.spec)
        queues = self._supply.foresee(spec)[1] is not None
        comes = state.presence in (Presence.DOWNLOADING, Presence.VERIFYING) or (
            download is not None and (download.state in RUNNING or download.state is DownloadState.QUEUED)
        )
        if not comes:
            why = f"{spec.id} is not usable: {state.reason}"
            fetch = f"POST /api/v1/models/download with model_type {spec.id}"
            if queues:
                fetch += ", or submit: the task waits for it"
            if other is None or want.quality is Level.HIGH:
                return FallbackSuggestion(Strategy.DOWNLOAD_AND_RETRY, fetch, f"{why}. Fetch it first", queues, other)
            message = f"{why}. {other.reason}"
            return FallbackSuggestion(
                Strategy.ALTERNATIVE_MODEL, f"Use model_type {other.spec.id}", message, queues, other
            )
        progress = None if download is None else download.progress
        seconds = progress.eta_seconds if progress is not None else None
        until = "; how long it will take is not known yet" if seconds is None else f", about {seconds:.0f} s to go"
        message = f"{spec.id} is being fetched{until}"
        follow = f"GET /api/v1/models/download/progress/{spec.id}, then submit"
        too_long = want.max_wait_seconds is not None and (seconds is None or seconds > want.max_wait_seconds)
        if other is not None and (too_long or want.speed is Level.HIGH):
            message = f"{message}. {other.reason}"
            action = f"Use model_type {other.spec.id}"
            return FallbackSuggestion(Strategy.ALTERNATIVE_MODEL, action, message, queues, other, seconds)
        if other is None or want.quality is Level.HIGH or want.max_wait_seconds is not None:
            return FallbackSuggestion(Strategy.QUEUE_AND_WAIT, follow, message, queues, other, seconds)
        action = f"Use model_type {other.spec.id} now; {follow} for {spec.id}"
        return FallbackSuggestion(
            Strategy.HYBRID_APPROACH, action, f"{message}. {other.reason}", queues, other, seconds
        )

    def _alternative(self, want: Want, wanted: Decision) -> Alternative | None:
        """Return the best other installed model that serves such a request and fits."""
        size = want.size or (want.spec.width, want.spec.height)
        cuda = self._forecast.machine.cuda
        # With a GPU the full-size models come first; on a CPU they take hours, so there the miniatures do.
        able = sorted(self._models.fitting(image=want.spec.needs_image), key=lambda spec: spec.embedded is cuda)
        for spec in able:
            if spec.id == want.spec.id:
                continue
            same_size = _makes(spec, size)
            decision = self._forecast.decide(_request(spec, size if same_size else None))
            if spec.embedded or decision.fits:
                return Alternative(spec, same_size, _ratio(decision, wanted))
        return None


def _too_large(decision: Decision, other: Alternative | None) -> FallbackSuggestion:
    """Suggest for a request that does not fit this machine, whether or not the model is installed."""
    smaller = f"{decision.would_fit}."
    smaller_helps = decision.instead is not None and decision.instead.model == decision.work.model
    if other is not None and not smaller_helps:
        message = f"{decision.reason}. {other.reason}"
        return FallbackSuggestion(Strategy.ALTERNATIVE_MODEL, f"Use model_type {other.spec.id}", message, False, other)
    return FallbackSuggestion(Strategy.REDUCE_REQUIREMENTS, smaller, f"{decision.reason}. {smaller}", False, other)


def _request(spec: ModelSpec, size: tuple[int, int] | None) -> GenerationRequest:
    width, height = size or (spec.width, spec.height)
    image = ImageRef("", width, height) if spec.needs_image else None
    return resolve_request(spec, RequestDraft("-", width=width, height=height, image=image))[0]


def _makes(spec: ModelSpec, size: tuple[int, int]) -> bool:
    try:
        _request(spec, size)
    except InvalidRequest:
        return False
    return True


def _ratio(decision: Decision, wanted: Decision) -> float | None:
    if decision.chosen is None or wanted.chosen is None or not (decision.seconds_known and wanted.seconds_known):
        return None
    return round(decision.chosen.seconds.warm / wanted.chosen.seconds.warm, 4)
