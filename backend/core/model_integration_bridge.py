"""Keeps one model warm, between the domain and the engine: downloads and loads the model that serves a request.

Knows the engine and the downloader only through the protocols below, so it can be imported and tested without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from backend import __version__
from backend.core.catalogue.table import ModelSpec, find_model
from backend.core.domain import OnProgress
from backend.core.errors import InvalidRequest, ModelDamaged, ModelUnavailable, OutOfMemory
from backend.core.planning.memory_plan import PLANS, MemoryPlan
from backend.core.requests import GenerationRequest, check_images

METADATA_FORMAT = 1
PRODUCT = "wan22"
#: The plan where none is asked for: everything on the device.
_PLAN = PLANS[0]


class ModelFetcher(Protocol):
    """Downloads models (`models.download.downloader.ModelDownloader`)."""

    def fetch(self, spec: ModelSpec, *, check: Callable[[], None], on_progress: OnProgress) -> Path:
        """Download the model, verified, or repair its files; `check` raises to stop, and the bytes are kept."""


class ModelFolders(Protocol):
    """Who knows where models are (`models.manager.ModelManager`)."""

    def folder(self, spec: ModelSpec) -> Path:
        """Return the model's folder; raises ModelUnavailable or ModelDamaged."""


class LoadedModel(Protocol):
    """What the bridge looks at in a loaded model (`engine.pipeline_loader.WanComponents`)."""

    @property
    def fingerprint(self) -> str:
        """The state of the files that were opened."""

    @property
    def device_name(self) -> str:
        """Where it runs."""

    @property
    def plan(self) -> MemoryPlan:
        """How its weights are laid out now."""

    def arrange(self, plan: MemoryPlan) -> None:
        """Lay them out in another way that the plan in force `reaches`; raises OutOfMemory, and is useless then."""


LoadedT = TypeVar("LoadedT", bound=LoadedModel)
LoadedT_co = TypeVar("LoadedT_co", bound=LoadedModel, covariant=True)


class ModelLoader(Protocol[LoadedT_co]):
    """Who opens models (`engine.pipeline_loader.WanPipelineLoader`)."""

    def fingerprint(self, folder: Path, spec: ModelSpec) -> str:
        """Return the mark of the folder's state now."""

    def load(self, folder: Path, spec: ModelSpec, plan: MemoryPlan) -> LoadedT_co:
        """Open the folder as the plan says."""

    def load_decoder(self, folder: Path, spec: ModelSpec, plan: MemoryPlan) -> LoadedT_co:
        """Open what turns latents into frames, and nothing else."""


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model can be used on this machine now."""

    spec: ModelSpec
    available: bool
    loaded: bool
    reason: str | None  #: why not, in one sentence


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What the engine can say about a finished run."""

    frames: int
    frames_sha256: str  #: over the bytes of the decoded frames, uint8 RGB, before they are encoded
    quality: str  #: "ok", or what is wrong with the clip
    seconds: dict[str, float]  #: for each phase
    expert_steps: dict[str, int]  #: steps that each expert made
    warnings: tuple[str, ...]
    libraries: dict[str, str]  #: name -> version
    weights_sha256: str  #: over the weights that made the latents
    loras: tuple[dict[str, Any], ...] = ()  #: their receipts, as plain JSON values
    resumed_from_step: int | None = None  #: the step after which this attempt went on; None = from the start
    kept_latents: bool = False  #: whether the latents lie beside the video
    attention: str | None = None  #: the kernel of the experts' attention; None = not said
    precision: str | None = None  #: the numbers in which the experts computed; None = not said
    plan: str | None = None  #: the memory plan that was in force at the end; None = not said
    plan_reason: str | None = None  #: why the run began with the plan with which it began
    peak_vram_bytes: int | None = None  #: most bytes of tensors on the card; None = not known
    peak_ram_bytes: int | None = None  #: most bytes of memory that the worker's process had; None = not known
    fallbacks: tuple[dict[str, str], ...] = ()  #: plans that were left because memory ran out, in order


class ModelIntegrationBridge(Generic[LoadedT]):
    """Keeps at most one model loaded and hands it to whoever runs a request."""

    def __init__(self, models: ModelFolders, loader: ModelLoader[LoadedT], fetcher: ModelFetcher | None = None) -> None:
        """Take who knows the folders, who opens them, and who fetches what is not here; None = nobody does."""
        self._models = models
        self._loader = loader
        self._fetcher = fetcher
        self._loaded: LoadedT | None = None
        self._loaded_id: str | None = None

    @property
    def loaded_model(self) -> str | None:
        """The id of the model that is warm."""
        return self._loaded_id

    def availability(self, model_id: str) -> Availability:
        """Return whether the model could be loaded, without loading it.

        Raises:
            UnknownModel: no model has this name.
        """
        spec = find_model(model_id)
        try:
            self._loader.fingerprint(self._models.folder(spec), spec)
        except (ModelUnavailable, ModelDamaged) as error:
            return Availability(spec, available=False, loaded=False, reason=error.message)
        return Availability(spec, available=True, loaded=self._loaded_id == spec.id, reason=None)

    def would_fetch(self, model_id: str) -> bool:
        """Whether `ensure` would download something. Raises UnknownModel."""
        here = self.availability(model_id)
        return self._fetcher is not None and not here.available and not here.spec.embedded

    def ensure(self, model_id: str, *, check: Callable[[], None], on_progress: OnProgress) -> Path:
        """Return the folder of a complete model; download what is missing or damaged first.

        Loads nothing, so another thread may call it while this bridge has a model in memory.

        Args:
            model_id: any of the model's names.
            check: called often during a download; what it raises ends the download, and the bytes are kept.
            on_progress: receives the progress; never called for a complete model.

        Raises:
            UnknownModel: no model has this name.
            ModelUnavailable, ModelDamaged: it cannot be used, and this bridge downloads nothing.
            WanError: the download failed, as its error says.
        """
        spec = find_model(model_id)
        try:
            folder = self._models.folder(spec)
            self._loader.fingerprint(folder, spec)
        except (ModelUnavailable, ModelDamaged):
            if self._fetcher is None or spec.embedded:
                raise
            return self._fetcher.fetch(spec, check=check, on_progress=on_progress)
        return folder

    def fingerprint(self, model_id: str) -> str:
        """Return the mark of the state of a model's files. Raises like `load`."""
        spec = find_model(model_id)
        return self._loader.fingerprint(self._models.folder(spec), spec)

    def is_warm(self, model_id: str, plan: MemoryPlan | None = None) -> bool:
        """Whether `load` would give back the model that is loaded, without opening files. Raises like `load`.

        Args:
            model_id: which model.
            plan: the plan that is wanted; None = any.
        """
        if self._loaded is None or self._loaded_id != model_id:
            return False
        if plan is not None and not self._loaded.plan.reaches(plan):
            return False
        return self.fingerprint(model_id) == self._loaded.fingerprint

    def load(self, model_id: str, plan: MemoryPlan = _PLAN) -> LoadedT:
        """Return the model laid out as the plan says; opens it unless it is warm and its files are unchanged.

        Raises:
            UnknownModel: no model has this name.
            ModelUnavailable: its files are not here.
            ModelDamaged: its files are incomplete.
            OutOfMemory: it does not fit; nothing is loaded then.
        """
        spec = find_model(model_id)
        if self._loaded is not None and self.is_warm(spec.id, plan):
            return self._arranged(self._loaded, plan)
        self.unload()  # first, because two models at once may not fit
        self._loaded = self._loader.load(self._models.folder(spec), spec, plan)
        self._loaded_id = spec.id
        return self._loaded

    def _arranged(self, loaded: LoadedT, plan: MemoryPlan) -> LoadedT:
        plan = plan.adapted_to(loaded.plan)
        if loaded.plan != plan:
            try:
                loaded.arrange(plan)
            except OutOfMemory:
                self.unload()
                raise
        return loaded

    def unload(self) -> None:
        """Forget the loaded model."""
        self._loaded = None
        self._loaded_id = None

    def unload_unless(self, used: LoadedT | None) -> str | None:
        """Forget the loaded model unless it is this one; return the id of what was forgotten."""
        if self._loaded is None or self._loaded is used:
            return None
        forgotten = self._loaded_id
        self.unload()
        return forgotten

    def prepare(self, request: GenerationRequest, plan: MemoryPlan = _PLAN) -> LoadedT:
        """Return the loaded model that serves this request, laid out as the plan says.

        A request may be older than this version (a stored task, a replayed video), so it is held against the
        model's spec once more.

        Raises:
            InvalidRequest: the model cannot do what the request says; as its kinds ImageRequired and
                ImageNotAccepted.
            UnknownModel, ModelUnavailable, ModelDamaged: as `load`.
        """
        _check_fits(find_model(request.model), request)
        return self.load(request.model, plan)

    def decoder(self, request: GenerationRequest, plan: MemoryPlan = _PLAN) -> LoadedT:
        """Return what decodes this request's latents: the model when it is warm, else its decoder alone.

        The decoder is not kept, and a model that is loaded stays loaded. Of the plan a warm model takes what is about
        decoding; its experts move only if they have to make room. Raises like `prepare`.
        """
        spec = find_model(request.model)
        _check_fits(spec, request)
        if self._loaded is not None and self.is_warm(spec.id):
            now = self._loaded.plan
            lower = now.lowered_to(plan)
            return self._arranged(self._loaded, replace(plan, placement=lower.placement, storage=now.storage))
        return self._loader.load_decoder(self._models.folder(spec), spec, plan)

    def metadata(self, task_id: str, request: GenerationRequest, loaded: LoadedT, facts: RunFacts) -> dict[str, Any]:
        """Return the record of a finished run, as plain JSON values: it goes into the video and into the API.

        `GenerationRequest.from_json(record["request"])` makes the same clip again.
        """
        spec = find_model(request.model)
        return {
            "format": METADATA_FORMAT,
            "product": PRODUCT,
            "version": __version__,
            "task_id": task_id,
            "request": request.to_json(),
            "model": {"id": spec.id, "repository": spec.repo_id, "weights_sha256": facts.weights_sha256},
            "libraries": facts.libraries,
            "device": loaded.device_name,
            "result": {
                "frames": facts.frames,
                "frames_sha256": facts.frames_sha256,
                "quality": facts.quality,
                "seconds": {phase: round(value, 3) for phase, value in facts.seconds.items()},
                "expert_steps": facts.expert_steps,
                "warnings": list(facts.warnings),
                "loras": list(facts.loras),
                "resumed_from_step": facts.resumed_from_step,
                "kept_latents": facts.kept_latents,
                "attention": facts.attention,
                "precision": facts.precision,
                "peak_vram_bytes": facts.peak_vram_bytes,
                "peak_ram_bytes": facts.peak_ram_bytes,
                "plan": facts.plan,
                "plan_reason": facts.plan_reason,
                "fallbacks": list(facts.fallbacks),
            },
        }


def _check_fits(spec: ModelSpec, request: GenerationRequest) -> None:
    check_images(spec, image=request.image is not None, end_image=request.end_image is not None)
    if request.width % spec.size_multiple or request.height % spec.size_multiple:
        raise InvalidRequest(f"{spec.id} needs sides that are multiples of {spec.size_multiple}")
    if request.num_frames % 4 != 1:
        raise InvalidRequest(f"{spec.id} makes 4k+1 frames, not {request.num_frames}")
    if request.guidance_scale_2 is not None and spec.experts == 1:
        raise InvalidRequest(f"guidance_scale_2 belongs to models with two experts; {spec.id} has one")
