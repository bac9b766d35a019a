"""A run stops between two layers in every phase, and what it leaves behind can be used. Real, untrained models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.domain import Progress, Stage
from backend.core.errors.interruptions import TaskCancelled, WorkerStopping
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.paths import Home
from backend.core.planning.memory_plan import PLANS
from backend.core.requests.forms import GenerationRequest
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.services.real_generation_pipeline import RealGenerationPipeline, RunOptions
from tests.services.test_resume import Folders, ignore, make_request

TASK = "7b1d4c5e-0000-4000-8000-000000000003"


class Interrupter:
    """Raises an error before a layer, once the run has reached a stage and made some steps in it."""

    def __init__(self, stage: Stage, error: type[Exception], *, after_layers: int, step: int = 0) -> None:
        self._stage, self._error, self._step = stage, error, step
        self._left = after_layers
        self._reached = False

    def report(self, progress: Progress) -> None:
        self._reached = progress.stage is self._stage and (progress.step or 0) >= self._step

    def poll(self) -> None:
        if self._reached:
            self._left -= 1
            if self._left < 0:
                raise self._error


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def bridge(folders: Folders) -> ModelIntegrationBridge[WanComponents]:
    return ModelIntegrationBridge(folders, WanPipelineLoader("cpu"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "wan").create()


@pytest.fixture
def pipeline(bridge: ModelIntegrationBridge[WanComponents], home: Home) -> RealGenerationPipeline:
    return RealGenerationPipeline(bridge, home, RunOptions(state_seconds=0.0))


def frames(pipeline: RealGenerationPipeline, request: GenerationRequest, task_id: str = TASK) -> str:
    return str(pipeline.generate(task_id, request, report=ignore).metadata["result"]["frames_sha256"])


def test_a_cancel_is_obeyed_between_two_layers_of_every_phase(
    pipeline: RealGenerationPipeline, bridge: ModelIntegrationBridge[WanComponents], home: Home
) -> None:
    request = make_request(home, "tiny-i2v-a14b", steps=2)
    for stage in (Stage.LOADING_MODEL, Stage.PREPARING_INPUTS, Stage.GENERATING, Stage.POST_PROCESSING):
        stop = Interrupter(stage, TaskCancelled, after_layers=3)
        with pytest.raises(TaskCancelled):
            pipeline.generate(f"cancelled-{stage}", request, report=stop.report, poll=stop.poll)
        assert list(home.outputs.iterdir()) == []
    after = frames(pipeline, request, "after-the-cancels")
    bridge.unload()
    assert frames(pipeline, request, "freshly-loaded") == after


@pytest.mark.parametrize("plan", ["resident", "block-stream"])
@pytest.mark.parametrize("layers", [1, 40])
def test_a_stop_within_a_step_costs_that_step_alone(
    pipeline: RealGenerationPipeline,
    bridge: ModelIntegrationBridge[WanComponents],
    home: Home,
    monkeypatch: pytest.MonkeyPatch,
    plan: str,
    layers: int,
) -> None:
    chosen = next(one for one in PLANS if one.placement.value == plan)
    load: Callable[..., WanComponents] = bridge.prepare
    monkeypatch.setattr(bridge, "prepare", lambda request, _plan: load(request, chosen))
    request = make_request(home, steps=4)
    whole = frames(pipeline, request, "in-one-go")
    stop = Interrupter(Stage.GENERATING, WorkerStopping, after_layers=layers, step=3)
    with pytest.raises(WorkerStopping):
        pipeline.generate(TASK, request, report=stop.report, poll=stop.poll)
    resumed = pipeline.generate(TASK, request, report=ignore).metadata["result"]
    assert resumed["resumed_from_step"] == 3
    assert resumed["frames_sha256"] == whole
