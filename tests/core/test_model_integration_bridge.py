"""The bridge with fakes of its two protocols: what is loaded when, and what a record contains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from backend.core.catalogue.table import MODELS, ModelSpec
from backend.core.domain import OnProgress
from backend.core.errors.generation import OutOfMemory
from backend.core.errors.models import ModelDamaged, ModelUnavailable
from backend.core.errors.requests import InvalidRequest, UnknownModel
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.planning.memory_plan import PLANS, MemoryPlan, Placement, Storage
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.core.requests.rules import resolve_request

TINY = "tiny-t2v-a14b"
OTHER = "tiny-ti2v-5b"


@dataclass
class Loaded:
    model: str
    fingerprint: str
    device_name: str = "cpu"
    whole: bool = True
    plan: MemoryPlan = PLANS[0]
    full: bool = False

    def arrange(self, plan: MemoryPlan) -> None:
        if self.full:
            raise OutOfMemory
        self.plan = plan


class Folders:
    def folder(self, spec: ModelSpec) -> Path:
        if not spec.embedded:
            raise ModelUnavailable(f"{spec.id} is not here")
        return Path("/models") / spec.id


@dataclass
class Loader:
    state: str = "first"
    damaged: bool = False
    storage: Storage | None = None  # what the files hold, if the plan does not decide it
    loads: list[str] = field(default_factory=list)

    def fingerprint(self, folder: Path, spec: ModelSpec) -> str:
        if self.damaged:
            raise ModelDamaged(f"{spec.id} is damaged: vae/config.json is missing")
        return f"{folder} {self.state}"

    def load(self, folder: Path, spec: ModelSpec, plan: MemoryPlan) -> Loaded:
        self.loads.append(spec.id)
        plan = plan if self.storage is None else replace(plan, storage=self.storage)
        return Loaded(spec.id, self.fingerprint(folder, spec), plan=plan)

    def load_decoder(self, folder: Path, spec: ModelSpec, plan: MemoryPlan) -> Loaded:
        return Loaded(spec.id, self.fingerprint(folder, spec), whole=False, plan=plan)


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def bridge(loader: Loader) -> ModelIntegrationBridge[Loaded]:
    return ModelIntegrationBridge(Folders(), loader)


@pytest.fixture
def request_(bridge: ModelIntegrationBridge[Loaded]) -> GenerationRequest:
    return resolve_request(MODELS[TINY], RequestDraft(prompt="a red circle", seed=5))[0]


def test_a_model_stays_warm(bridge: ModelIntegrationBridge[Loaded], loader: Loader) -> None:
    assert not bridge.is_warm(TINY)
    first = bridge.load(TINY)
    assert bridge.is_warm(TINY)
    assert bridge.load(TINY) is first
    assert loader.loads == [TINY]


def test_a_model_whose_files_decide_its_storage_stays_warm(
    bridge: ModelIntegrationBridge[Loaded], loader: Loader
) -> None:
    loader.storage = Storage.GGUF
    first = bridge.load(TINY)
    assert first.plan.name == "resident-gguf"
    assert bridge.load(TINY) is first
    assert bridge.load(TINY, MemoryPlan(Placement.RESIDENT, Storage.FP8)) is first
    assert loader.loads == [TINY]
    assert bridge.load(TINY, MemoryPlan(Placement.EXPERT_SWAP, Storage.FP8)) is first
    assert first.plan.name == "expert-swap-gguf"
    assert loader.loads == [TINY]
    assert not MemoryPlan(Placement.RESIDENT, Storage.FP8).reaches(MemoryPlan(Placement.RESIDENT, Storage.BF16))


def test_another_model_replaces_it(bridge: ModelIntegrationBridge[Loaded], loader: Loader) -> None:
    bridge.load(TINY)
    assert bridge.load(OTHER).model == OTHER
    assert bridge.loaded_model == OTHER
    assert not bridge.is_warm(TINY)
    bridge.load(TINY)
    assert loader.loads == [TINY, OTHER, TINY]


def test_an_unused_model_can_be_unloaded(bridge: ModelIntegrationBridge[Loaded]) -> None:
    assert bridge.unload_unless(None) is None
    used = bridge.load(TINY)
    assert bridge.unload_unless(used) is None
    assert bridge.loaded_model == TINY
    assert bridge.unload_unless(replace(used)) == TINY
    assert bridge.loaded_model is None


def test_changed_files_are_loaded_again(bridge: ModelIntegrationBridge[Loaded], loader: Loader) -> None:
    bridge.load(TINY)
    loader.state = "second"
    assert not bridge.is_warm(TINY)
    assert bridge.load(TINY).fingerprint.endswith("second")
    assert loader.loads == [TINY, TINY]


def test_latents_are_decoded_by_the_warm_model_or_by_a_decoder_alone(
    bridge: ModelIntegrationBridge[Loaded], loader: Loader, request_: GenerationRequest
) -> None:
    assert not bridge.decoder(request_).whole
    assert loader.loads == []
    assert bridge.loaded_model is None
    warm = bridge.load(TINY)
    assert bridge.decoder(request_) is warm
    bridge.load(OTHER)
    assert not bridge.decoder(request_).whole
    assert bridge.loaded_model == OTHER, "a decoder takes no other model's place"


SWAP = MemoryPlan(Placement.EXPERT_SWAP, Storage.BF16)
TILED = replace(SWAP, tiled_decode=True)
FP8 = MemoryPlan(Placement.RESIDENT, Storage.FP8)


def test_another_plan_is_arranged_and_only_rounded_weights_are_reloaded(
    bridge: ModelIntegrationBridge[Loaded], loader: Loader
) -> None:
    first = bridge.load(TINY)
    assert bridge.is_warm(TINY, SWAP)
    assert bridge.load(TINY, SWAP) is first
    assert bridge.load(TINY, FP8) is first
    assert first.plan == FP8
    assert bridge.is_warm(TINY)
    assert not bridge.is_warm(TINY, SWAP)
    assert bridge.load(TINY, SWAP) is not first
    assert loader.loads == [TINY, TINY]


def test_weights_quantised_in_the_file_stay_warm_under_every_plan(
    bridge: ModelIntegrationBridge[Loaded], loader: Loader
) -> None:
    quantised = bridge.load(TINY)
    quantised.plan = replace(PLANS[0], storage=Storage.GGUF)
    quantised.full = True
    assert bridge.load(TINY) is quantised, "nothing is moved for a plan that it has"
    quantised.full = False
    assert bridge.load(TINY, SWAP) is quantised
    assert quantised.plan == replace(SWAP, storage=Storage.GGUF)
    assert loader.loads == [TINY]


def test_a_model_that_cannot_be_rearranged_is_unloaded(bridge: ModelIntegrationBridge[Loaded], loader: Loader) -> None:
    bridge.load(TINY, SWAP).full = True
    with pytest.raises(OutOfMemory):
        bridge.load(TINY)
    assert bridge.loaded_model is None
    assert bridge.load(TINY, SWAP).plan == SWAP
    assert loader.loads == [TINY, TINY]


def test_a_warm_decoder_takes_only_the_decoding_part_of_a_plan(
    bridge: ModelIntegrationBridge[Loaded], request_: GenerationRequest
) -> None:
    warm = bridge.load(TINY, SWAP)
    assert bridge.decoder(request_, replace(PLANS[0], tiled_decode=True)) is warm
    assert warm.plan == TILED, "the experts are not brought back for it"
    assert bridge.decoder(request_) is warm
    assert warm.plan == SWAP
    bridge.load(TINY, FP8)
    assert bridge.decoder(request_, TILED).plan == replace(TILED, storage=Storage.FP8), "what is rounded stays so"
    bridge.unload()
    assert bridge.decoder(request_, TILED).plan == TILED


def test_after_a_failed_load_nothing_is_loaded(bridge: ModelIntegrationBridge[Loaded], loader: Loader) -> None:
    bridge.load(TINY)
    loader.damaged = True
    with pytest.raises(ModelDamaged):
        bridge.load(OTHER)
    assert bridge.loaded_model is None
    loader.damaged = False
    assert bridge.load(TINY).model == TINY


def test_availability_says_why_not(bridge: ModelIntegrationBridge[Loaded], loader: Loader) -> None:
    there = bridge.availability("tiny")
    assert (there.spec.id, there.available, there.loaded, there.reason) == (TINY, True, False, None)
    bridge.load(TINY)
    assert bridge.availability(TINY).loaded
    missing = bridge.availability("t2v")
    assert (missing.available, missing.reason) == (False, "T2V-A14B is not here")
    loader.damaged = True
    assert "vae/config.json" in str(bridge.availability(TINY).reason)
    with pytest.raises(UnknownModel):
        bridge.availability("sdxl")


@pytest.mark.parametrize(
    "values",
    [
        {"width": 100},
        {"num_frames": 16},
        {"model": OTHER},
        {"image": "0" * 64},
        {"end_image": "0" * 64},
        {"model": "tiny-i2v-a14b"},
    ],
)
def test_an_unsupported_stored_request_is_refused_before_loading(
    bridge: ModelIntegrationBridge[Loaded], loader: Loader, request_: GenerationRequest, values: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequest):
        bridge.prepare(replace(request_, **values))  # type: ignore[arg-type]
    assert loader.loads == []
    assert bridge.prepare(request_).model == TINY


@dataclass
class Fetcher:
    fetched: list[str] = field(default_factory=list)

    def fetch(self, spec: ModelSpec, *, check: Callable[[], None], on_progress: OnProgress) -> Path:
        check()
        self.fetched.append(spec.id)
        return Path("/fetched") / spec.id


def test_only_an_incomplete_model_is_downloaded_and_never_an_embedded_one(loader: Loader) -> None:
    fetcher, checks = Fetcher(), [0]

    def check() -> None:
        checks[0] += 1

    bridge: ModelIntegrationBridge[Loaded] = ModelIntegrationBridge(Folders(), loader, fetcher)
    assert not bridge.availability(TINY).would_fetch
    assert bridge.ensure("tiny", check=check, on_progress=print) == Path("/models") / TINY
    assert bridge.availability("t2v").would_fetch
    assert bridge.ensure("t2v", check=check, on_progress=print) == Path("/fetched/T2V-A14B")
    assert (fetcher.fetched, checks, loader.loads) == (["T2V-A14B"], [1], [])
    loader.damaged = True
    assert not bridge.availability(TINY).would_fetch
    with pytest.raises(ModelDamaged):
        bridge.ensure(TINY, check=check, on_progress=print)
    with pytest.raises(UnknownModel):
        bridge.ensure("sdxl", check=check, on_progress=print)


def test_loading_never_downloads(loader: Loader) -> None:
    fetcher = Fetcher()
    bridge: ModelIntegrationBridge[Loaded] = ModelIntegrationBridge(Folders(), loader, fetcher)
    with pytest.raises(ModelUnavailable):
        bridge.load("T2V-A14B")
    assert fetcher.fetched == []


def test_without_a_fetcher_a_missing_model_stays_an_error(bridge: ModelIntegrationBridge[Loaded]) -> None:
    assert not bridge.availability("T2V-A14B").would_fetch
    with pytest.raises(ModelUnavailable):
        bridge.ensure("T2V-A14B", check=lambda: None, on_progress=print)
