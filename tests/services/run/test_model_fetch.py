"""The wait for a model, in this process: what ends it, what it reports, and what is never downloaded."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backend.core.catalogue.table import MODELS
from backend.core.domain import Progress, Stage
from backend.core.errors.base import WanError
from backend.core.errors.interruptions import DownloadPaused, TaskCancelled
from backend.core.errors.models import HubUnreachable, ModelDamaged, ModelUnavailable, RepositoryNotFound
from backend.core.errors.requests import DoesNotFit
from backend.core.errors.surroundings import StorageFull, StoreUnavailable
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.paths import Home
from backend.core.planning.hardware import GIB, Gpu, detect_hardware
from backend.core.planning.machine import Machine
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.core.requests.rules import resolve_request
from backend.core.settings import load_settings
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.models.download.downloader import ModelDownloader
from backend.models.download.hub import Hub
from backend.models.download.retries import RetryPolicy
from backend.models.folder.manager import ModelManager, Presence
from backend.models.folder.manifest import MANIFEST_FILE
from backend.models.lora.library import LoraLibrary
from backend.services.planning.forecast import Forecast
from backend.services.real_generation_pipeline import RealGenerationPipeline, RunOptions
from backend.services.run import model_fetch
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore
from tests.support.hub import Answer, StandIn, repository_files, stand_in
from tests.support.repository import needed_files, sharded_repository

TASK = "7b1d4c5e-0000-4000-8000-000000000002"
T2V = MODELS["T2V-A14B"]
VICTIM = "transformer/diffusion_pytorch_model-00002-of-00003.safetensors"
Make = Callable[..., RealGenerationPipeline]


@pytest.fixture(scope="module")
def published() -> dict[str, bytes]:
    return sharded_repository()


@pytest.fixture
def hub(published: dict[str, bytes]) -> Iterator[StandIn]:
    with stand_in(dict(published)) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "wan").create()


@pytest.fixture(scope="module")
def loader() -> WanPipelineLoader:
    return WanPipelineLoader("cpu")


@pytest.fixture
def make(home: Home, hub: StandIn, loader: WanPipelineLoader) -> Make:
    """Build pipelines of this home whose downloads retry at once; keywords go to the downloader."""

    def made(
        endpoint: str | None = None, admit: Any = None, paused: Any = None, **options: Any
    ) -> RealGenerationPipeline:
        models = ModelManager(home, has_gpu=False)
        policy = RetryPolicy(attempts=2, first_seconds=0.001)
        fetcher = ModelDownloader(home, models, Hub(endpoint or hub.endpoint), policy=policy, **options)
        bridge: ModelIntegrationBridge[WanComponents] = ModelIntegrationBridge(models, loader, fetcher)
        given = {name: one for name, one in {"admit": admit, "paused": paused}.items() if one is not None}
        return RealGenerationPipeline(bridge, home, RunOptions(**given))

    return made


def request_() -> GenerationRequest:
    draft = RequestDraft(prompt="a red circle", width=128, height=128, num_frames=5, steps=1, seed=1)
    return resolve_request(T2V, draft)[0]


def run(pipeline: RealGenerationPipeline) -> list[Progress]:
    told: list[Progress] = []
    pipeline.generate(TASK, request_(), report=told.append)
    return told


def _end_fetches() -> None:
    for thread in threading.enumerate():
        if thread.name == "model-fetch":
            thread.join(60)
            assert not thread.is_alive()


def state(home: Home) -> Presence:
    return ModelManager(home, has_gpu=False).state(T2V).presence


def _lying(hub: StandIn) -> None:
    hub.flip[VICTIM] = 3


def _gone(hub: StandIn) -> None:
    hub.answers.append(Answer(404, {"X-Error-Code": "RepoNotFound"}))


@pytest.mark.parametrize(
    ("harm", "error", "advice"),
    [
        (_lying, ModelDamaged, "proxy"),
        (_gone, RepositoryNotFound, "HF_ENDPOINT"),
    ],
)
def test_a_hub_error_becomes_the_tasks_error(
    make: Make, hub: StandIn, home: Home, harm: Callable[[StandIn], None], error: type[WanError], advice: str
) -> None:
    harm(hub)
    with pytest.raises(error) as caught:
        run(make())
    assert any(advice in step for step in caught.value.next_steps)
    assert state(home) in (Presence.MISSING, Presence.PARTIAL)


def test_an_unreachable_hub_is_reported_with_advice(make: Make, home: Home) -> None:
    with pytest.raises(HubUnreachable) as caught:
        run(make("http://127.0.0.1:9"))
    assert any("network" in step for step in caught.value.next_steps)
    assert state(home) is Presence.MISSING


def test_too_little_space_is_reported_before_the_first_byte_and_before_the_next_task(
    make: Make, hub: StandIn, home: Home, published: dict[str, bytes]
) -> None:
    with pytest.raises(StorageFull):
        run(make(free_bytes=lambda _folder: 1))
    assert hub.fetched() == Counter()
    seen = ModelManager(home, has_gpu=False).state(T2V)
    total = sum(map(len, needed_files(published).values()))
    assert seen.presence is Presence.PARTIAL
    assert seen.missing_bytes is not None
    assert 0 <= total - seen.missing_bytes < 4096, "the notes of a download lie beside its bytes"


def test_a_model_that_can_never_run_here_is_not_downloaded(make: Make, hub: StandIn, home: Home) -> None:
    """The hub's listing decides: the planner checks files of the published size, but not small ones."""
    database = Database(load_settings(home=home.root).database)
    database.migrate()
    gpu = Gpu(0, "NVIDIA GeForce RTX 4090", 8 * GIB, 0, None, (8, 9))
    small = Machine.of(replace(detect_hardware(), memory_total=8 * GIB, memory_limit=None, gpus=(gpu,)), "auto")
    forecast = Forecast(small, OutputStore(database, home), LoraLibrary(home), binding=True)
    large = {"size": 2**35}
    hub.listed = [one | large | {"lfs": one["lfs"] | large} if "lfs" in one else one for one in hub.listing()]
    with pytest.raises(DoesNotFit) as caught:
        run(make(admit=forecast.check, free_bytes=lambda _folder: 2**50))
    assert hub.fetched() == Counter()
    assert isinstance(caught.value.details, dict)
    assert caught.value.details["would_fit"]
    assert "nothing was queued" not in " ".join(caught.value.next_steps)
    hub.listed = None
    told = run(make(admit=forecast.check))
    assert told[-1].stage is Stage.SAVING
    database.close()


def test_only_damaged_files_are_downloaded_again_and_from_their_own_commit(
    make: Make, hub: StandIn, home: Home, published: dict[str, bytes]
) -> None:
    told = run(make())
    fetched = [one.fetch for one in told if one.fetch is not None]
    assert fetched[-1].done_bytes == fetched[-1].total_bytes
    assert {one.stage for one in told if one.fetch} == {Stage.DOWNLOADING_MODEL}
    victim = home.model_of(T2V.id) / VICTIM
    victim.write_bytes(victim.read_bytes() + b"more")
    hub.requests.clear()
    run(make())
    assert hub.fetched() == Counter({VICTIM: 1})
    (listing,) = [one.path for one in hub.requests if one.path.startswith("/api/models/")]
    assert "/revision/main" not in listing
    files = repository_files(home.model_of(T2V.id))
    assert files.pop(MANIFEST_FILE)
    assert files == needed_files(published)


def test_progress_is_reported_periodically_and_not_with_every_chunk(
    make: Make, hub: StandIn, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One report at the start and one at the end, although there are many more chunks."""
    monkeypatch.setattr(model_fetch, "REPORT_SECONDS", 3600.0)
    told = run(make())
    assert len([one for one in told if one.stage is Stage.DOWNLOADING_MODEL]) == 2


def test_a_stop_closes_the_connection_at_the_next_byte_and_keeps_the_data(
    make: Make, hub: StandIn, home: Home, published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_fetch, "REPORT_SECONDS", 0.02)
    hub.hold(sum(map(len, published.values())) // 2)

    def report(progress: Progress) -> None:
        if progress.stage is Stage.DOWNLOADING_MODEL and hub.held.is_set():
            raise TaskCancelled

    with pytest.raises(TaskCancelled):
        make().generate(TASK, request_(), report=report)
    assert hub.held.is_set()
    hub.go_on()
    _end_fetches()
    assert state(home) is Presence.PARTIAL
    before = set(hub.fetched())
    hub.requests.clear()
    run(make())
    assert len(before & set(hub.fetched())) <= 1, "no finished file is asked for again"


def test_a_paused_download_returns_the_task_before_the_hub_is_contacted(make: Make, hub: StandIn, home: Home) -> None:
    asked: list[str] = []
    told: list[Progress] = []

    def paused(model: str) -> bool:
        asked.append(model)
        return True

    with pytest.raises(DownloadPaused) as caught:
        make(paused=paused).generate(TASK, request_(), report=told.append)
    assert caught.value.message == "Somebody paused the download of T2V-A14B: this task waits until it is resumed"
    assert (asked, hub.requests, state(home)) == ([T2V.id], [], Presence.MISSING)
    assert {one.stage for one in told} == {Stage.INITIALIZING}, "it never came to its download"
    run(make())
    assert asked == [T2V.id]
    run(make(paused=paused))
    assert asked == [T2V.id], "nobody asks about a model that is here"


def test_a_pause_midway_closes_the_connection_and_keeps_the_data(
    make: Make, hub: StandIn, home: Home, published: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_fetch, "REPORT_SECONDS", 0.02)
    hub.hold(sum(map(len, published.values())) // 2)
    with pytest.raises(DownloadPaused):
        run(make(paused=lambda _model: hub.held.is_set()))
    hub.go_on()
    _end_fetches()
    assert state(home) is Presence.PARTIAL
    before = set(hub.fetched())
    hub.requests.clear()
    run(make())
    assert len(before & set(hub.fetched())) <= 1, "no finished file is asked for again"
    assert any(request.range for request in hub.requests), "the one in whose middle it was paused goes on"


def test_a_failing_database_ends_no_model_download(make: Make, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_fetch, "REPORT_SECONDS", 0.02)

    def broken(_model: str) -> bool:
        raise StoreUnavailable

    run(make(paused=broken))
    assert state(home) is Presence.AVAILABLE


def test_nothing_is_downloaded_without_a_fetcher(home: Home, loader: WanPipelineLoader, hub: StandIn) -> None:
    bridge: ModelIntegrationBridge[WanComponents] = ModelIntegrationBridge(ModelManager(home, has_gpu=False), loader)
    with pytest.raises(ModelUnavailable, match="is not installed"):
        run(RealGenerationPipeline(bridge, home))
    assert hub.requests == []
