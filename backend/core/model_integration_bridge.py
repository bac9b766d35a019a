"""Keeps one model warm: finds and downloads its files, loads it under a memory plan, and hands it to a run.

Knows the engine and the downloader only through the protocols below, so it can be read, imported and tested without
torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from backend.core.catalogue.table import ModelSpec, find_model
from backend.core.domain import OnProgress
from backend.core.errors.generation import OutOfMemory
from backend.core.errors.models import ModelDamaged, ModelUnavailable, ModelUnsupported
from backend.core.errors.requests import InvalidRequest
from backend.core.planning.memory_plan import PLANS, MemoryPlan
from backend.core.requests.forms import GenerationRequest
from backend.core.requests.rules import check_images

#: The default plan: everything on the device.
_PLAN = PLANS[0]


class ModelFetcher(Protocol):
    """Downloads models (`models.download.downloader.ModelDownloader`)."""

    def fetch(self, spec: ModelSpec, *, check: Callable[[], None], on_progress: OnProgress) -> Path:
        """Download and verify the model, or repair it; `check` raises to stop, and the bytes stay on disk."""


class ModelFolders(Protocol):
    """Locates models (`models.folder.manager.ModelManager`)."""

    def folder(self, spec: ModelSpec) -> Path:
        """Return the model's folder; raises ModelUnavailable or ModelDamaged."""


class LoadedModel(Protocol):
    """What the bridge needs of a loaded model (`engine.loading.pipeline_loader.WanComponents`)."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the opened files."""

    @property
    def device_name(self) -> str:
        """Device in words."""

    @property
    def plan(self) -> MemoryPlan:
        """Current layout of its weights."""

    def arrange(self, plan: MemoryPlan) -> None:
        """Change the layout to one that the current plan `reaches`; after OutOfMemory the model is unusable."""


LoadedT = TypeVar("LoadedT", bound=LoadedModel)
LoadedT_co = TypeVar("LoadedT_co", bound=LoadedModel, covariant=True)


class ModelLoader(Protocol[LoadedT_co]):
    """Loads models (`engine.loading.pipeline_loader.WanPipelineLoader`)."""

    @property
    def precision(self) -> str:
        """The dtype in which models compute."""

    def fingerprint(self, folder: Path, spec: ModelSpec) -> str:
        """Return the fingerprint of the folder."""

    def load(self, folder: Path, spec: ModelSpec, plan: MemoryPlan) -> LoadedT_co:
        """Load the folder under the plan."""

    def load_decoder(self, folder: Path, spec: ModelSpec, plan: MemoryPlan) -> LoadedT_co:
        """Load only the part that turns latents into frames."""


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model can be used on this machine."""

    spec: ModelSpec
    available: bool
    loaded: bool  #: whether it is in memory, and its files are unchanged
    would_fetch: bool  #: whether `ensure` would download something
    reason: str | None  #: why it is not available, in one sentence
    supported: bool = True  #: False: its files are in a form that is not supported, so a download would not help


class ModelIntegrationBridge(Generic[LoadedT]):
    """Keeps at most one model loaded and hands it to the run of a request."""

    def __init__(self, models: ModelFolders, loader: ModelLoader[LoadedT], fetcher: ModelFetcher | None = None) -> None:
        """Prepare; without a fetcher nothing is downloaded."""
        self._models = models
        self._loader = loader
        self._fetcher = fetcher
        self._loaded: LoadedT | None = None
        self._loaded_id: str | None = None

    @property
    def loaded_model(self) -> str | None:
        """Id of the loaded model."""
        return self._loaded_id

    @property
    def precision(self) -> str:
        """The dtype in which models compute."""
        return self._loader.precision

    def availability(self, model_id: str) -> Availability:
        """Return whether the model could be loaded, without loading it.

        Raises:
            UnknownModel: no model has this name.
        """
        spec = find_model(model_id)
        try:
            fingerprint = self._loader.fingerprint(self._models.folder(spec), spec)
        except (ModelUnavailable, ModelDamaged) as error:
            supported = not isinstance(error, ModelUnsupported)
            return Availability(
                spec,
                available=False,
                loaded=False,
                would_fetch=self._fetcher is not None and supported and not spec.embedded,
                reason=error.message,
                supported=supported,
            )
        loaded = self._loaded if self._loaded_id == spec.id else None
        warm = loaded is not None and loaded.fingerprint == fingerprint
        return Availability(spec, available=True, loaded=warm, would_fetch=False, reason=None)

    def ensure(self, model_id: str, *, check: Callable[[], None], on_progress: OnProgress) -> Path:
        """Return the folder of a complete model; download it, or its damaged files, where necessary.

        Loads nothing, so another thread may call it while this bridge has a model in memory.

        Args:
            model_id: any of the model's names.
            check: called often while bytes arrive; what it raises ends the wait, and what was downloaded is kept.
            on_progress: receives the progress; never called for a complete model.

        Raises:
            UnknownModel: no model has this name.
            ModelUnavailable, ModelDamaged: it cannot be used or downloaded.
            WanError: the download failed.
        """
        spec = find_model(model_id)
        try:
            folder = self._models.folder(spec)
            self._loader.fingerprint(folder, spec)
        except ModelUnsupported:
            raise
        except (ModelUnavailable, ModelDamaged):
            if self._fetcher is None or spec.embedded:
                raise
            return self._fetcher.fetch(spec, check=check, on_progress=on_progress)
        return folder

    def fingerprint(self, model_id: str) -> str:
        """Return the fingerprint of a model's files. Raises like `load`."""
        spec = find_model(model_id)
        return self._loader.fingerprint(self._models.folder(spec), spec)

    def is_warm(self, model_id: str, plan: MemoryPlan | None = None) -> bool:
        """Whether `load` would return the loaded model without opening files. Raises like `load`.

        Args:
            model_id: the id of a model.
            plan: the requested plan; None = any.
        """
        if self._loaded is None or self._loaded_id != model_id:
            return False
        if plan is not None and not self._loaded.plan.reaches(plan):
            return False
        return self.fingerprint(model_id) == self._loaded.fingerprint

    def load(self, model_id: str, plan: MemoryPlan = _PLAN) -> LoadedT:
        """Return the model laid out as the plan says; load it unless it is warm and its files are unchanged.

        Raises:
            UnknownModel: no model has this name.
            ModelUnavailable: its files are missing.
            ModelDamaged: its files are incomplete.
            OutOfMemory: it does not fit; nothing stays loaded.
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
        """Unload the model."""
        self._loaded = None
        self._loaded_id = None

    def unload_unless(self, used: LoadedT | None) -> str | None:
        """Unload the model unless it is this one; return its id, or None when nothing was unloaded."""
        if self._loaded is None or self._loaded is used:
            return None
        unloaded = self._loaded_id
        self.unload()
        return unloaded

    def prepare(self, request: GenerationRequest, plan: MemoryPlan = _PLAN) -> LoadedT:
        """Return the loaded model that serves this request, laid out as the plan says.

        A request may be older than this version (a stored task, a replayed video), so it is checked against the
        model's spec again.

        Raises:
            InvalidRequest, ImageRequired, ImageNotAccepted: the model does not support the request.
            UnknownModel, ModelUnavailable, ModelDamaged: as `load`.
        """
        _check_fits(find_model(request.model), request)
        return self.load(request.model, plan)

    def decoder(self, request: GenerationRequest, plan: MemoryPlan = _PLAN) -> LoadedT:
        """Return what decodes this request's latents: the model when it is warm, else its decoder alone.

        The decoder is not kept, and a model that is loaded stays loaded. A warm model takes only the decoding part
        of the plan; its experts move only if they have to make room. Raises like `prepare`.
        """
        spec = find_model(request.model)
        _check_fits(spec, request)
        if self._loaded is not None and self.is_warm(spec.id):
            now = self._loaded.plan
            lower = now.lowered_to(plan)
            return self._arranged(self._loaded, replace(plan, placement=lower.placement, storage=now.storage))
        return self._loader.load_decoder(self._models.folder(spec), spec, plan)


def _check_fits(spec: ModelSpec, request: GenerationRequest) -> None:
    check_images(spec, image=request.image is not None, end_image=request.end_image is not None)
    if request.width % spec.size_multiple or request.height % spec.size_multiple:
        raise InvalidRequest(f"{spec.id} needs sides that are multiples of {spec.size_multiple}")
    if request.num_frames % 4 != 1:
        raise InvalidRequest(f"{spec.id} makes 4k+1 frames, not {request.num_frames}")
    if request.guidance_scale_2 is not None and spec.experts == 1:
        raise InvalidRequest(f"guidance_scale_2 belongs to models with two experts; {spec.id} has one")
