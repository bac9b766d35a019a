"""The steps of a dead or stopped attempt are not lost: the next one resumes from them, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from backend.core.catalogue.table import MODELS, Mode, ModelSpec
from backend.core.domain import Output, Priority, Progress, Stage
from backend.core.errors.generation import StateMismatch
from backend.core.errors.interruptions import WorkerStopping
from backend.core.errors.lookups import InputMissing, LatentsNotKept
from backend.core.errors.requests import ImageRequired, InvalidRequest
from backend.core.errors.surroundings import StorageFull
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.paths import Home
from backend.core.planning.machine import Machine
from backend.core.planning.memory_plan import MemoryPlan
from backend.core.requests.forms import GenerationRequest, RequestDraft, Scheduler
from backend.core.requests.rules import resolve_request
from backend.core.settings import load_settings
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.memory.offload import RESIDENT
from backend.models.lora.library import LoraLibrary
from backend.services.media.images import InputStore
from backend.services.planning.forecast import Forecast
from backend.services.real_generation_pipeline import RealGenerationPipeline, RunOptions
from backend.services.run.files import StateFiles
from backend.services.run.start_plans import StartPlans
from backend.store.engine import Database
from backend.store.gallery.outputs import OutputStore
from backend.store.tasks import TaskStore
from tests.store.samples import claimed
from tests.support.random_model import build_random_fastwan, build_random_i2v, build_random_model, build_random_ti2v

TASK = "7b1d4c5e-0000-4000-8000-000000000002"
DEADLINE_SECONDS = 240
BUILDERS: dict[str, Callable[[Path], Path]] = {
    "tiny-t2v-a14b": build_random_model,
    "tiny-i2v-a14b": build_random_i2v,
    "tiny-ti2v-5b": build_random_ti2v,
    "FastWan2.2-TI2V-5B": build_random_fastwan,
}


class Folders:
    """One random folder for each mode."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, spec: ModelSpec) -> Path:
        folder = self.root / spec.id
        return folder if folder.exists() else BUILDERS[spec.id](folder)


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


def make_request(home: Home, model: str = "tiny-t2v-a14b", **values: Any) -> GenerationRequest:
    """A small request; I2V models get a start image of another size."""
    fields: dict[str, Any] = {"width": 64, "height": 64, "num_frames": 5, "steps": 6, "seed": 1} | values
    if MODELS[model].mode is Mode.I2V:
        pixels = np.random.default_rng(0).integers(0, 256, (72, 100, 3), dtype=np.uint8)
        fields.setdefault("image", InputStore(home).keep(pixels))
    return resolve_request(MODELS[model], RequestDraft(prompt="a red circle", **fields))[0]


def ignore(progress: Progress) -> None:
    """A report that is discarded."""


def stop_at(step: int, error: type[Exception] = WorkerStopping) -> Callable[[Progress], None]:
    def report(progress: Progress) -> None:
        if progress.step == step and progress.message.startswith("Step"):
            raise error

    return report


def frames_of(output: Output) -> str:
    return str(output.metadata["result"]["frames_sha256"])


def states_in(home: Home) -> list[str]:
    return sorted(path.name for path in home.state_of(TASK).glob("*"))


@pytest.mark.timeout(2 * DEADLINE_SECONDS)
def test_after_a_kill_during_denoising_the_next_attempt_resumes_and_ends_the_same(
    pipeline: RealGenerationPipeline, home: Home, folders: Folders, tmp_path: Path
) -> None:
    request = make_request(home)
    folder = folders.folder(MODELS[request.model])
    killed = subprocess.run(
        [sys.executable, "-m", "tests.services.attempt_process", str(home.root), str(folder), TASK],
        input=json.dumps(request.to_json()),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"WAN22_FAULTS": "denoise.step:5=kill", "TEST_STATE_SECONDS": "0"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert states_in(home) == ["step-0003.safetensors", "step-0004.safetensors"]
    seen: list[Progress] = []
    resumed = pipeline.generate(TASK, request, report=seen.append)
    uninterrupted = pipeline.generate("another", request, report=ignore)
    assert resumed.metadata["result"]["resumed_from_step"] == 4
    assert uninterrupted.metadata["result"]["resumed_from_step"] is None
    assert frames_of(resumed) == frames_of(uninterrupted)
    assert "Resumed at step 4 of 6" in [progress.message for progress in seen]
    assert [p.step for p in seen if p.message.startswith("Step")] == [5, 6]
    (told,) = [p for p in seen if p.message.startswith("Resumed")]
    assert told.fraction > 0.3, "what the first attempt did is not shown as missing"


@pytest.mark.parametrize(("model", "says"), [("tiny-t2v-a14b", True), ("tiny-ti2v-5b", False)])
def test_only_a_model_with_two_experts_says_which_one_denoises(
    pipeline: RealGenerationPipeline, home: Home, model: str, says: bool
) -> None:
    messages: list[str] = []
    pipeline.generate(TASK, make_request(home, model), report=lambda progress: messages.append(progress.message))
    steps = [message for message in messages if message.startswith(("Step", "Denoising"))]
    assert len(steps) > 6
    assert {"expert" in message for message in steps} == {says}


@pytest.mark.parametrize("scheduler", [Scheduler.UNIPC, Scheduler.EULER])
@pytest.mark.parametrize("model", [model for model in BUILDERS if not MODELS[model].renoise_at])
def test_a_run_stopped_by_the_operator_loses_no_step(
    pipeline: RealGenerationPipeline, home: Home, bridge: Any, model: str, scheduler: Scheduler
) -> None:
    request = make_request(home, model, scheduler=scheduler)
    rarely = RealGenerationPipeline(bridge, home, RunOptions(state_seconds=3600.0))
    with pytest.raises(WorkerStopping):
        rarely.generate(TASK, request, report=stop_at(3))
    assert "step-0003.safetensors" in states_in(home)
    resumed = pipeline.generate(TASK, request, report=ignore)
    assert resumed.metadata["result"]["resumed_from_step"] == 3
    assert frames_of(resumed) == frames_of(pipeline.generate("another", request, report=ignore))


def test_a_distilled_model_stopped_between_steps_resumes_with_the_same_noise(
    pipeline: RealGenerationPipeline, home: Home
) -> None:
    request = make_request(home, "FastWan2.2-TI2V-5B", width=128, height=128, max_sequence_length=64)
    with pytest.raises(WorkerStopping):
        pipeline.generate(TASK, request, report=stop_at(2))
    resumed = pipeline.generate(TASK, request, report=ignore)
    assert resumed.metadata["result"]["resumed_from_step"] == 2
    assert frames_of(resumed) == frames_of(pipeline.generate("another", request, report=ignore))
    assert resumed.metadata["result"]["expert_steps"]["high"] == 3


def test_states_are_saved_at_the_boundary_and_before_the_decode_however_short_the_run(bridge: Any, home: Home) -> None:
    request = make_request(home)
    output = RealGenerationPipeline(bridge, home, RunOptions(state_seconds=3600.0)).generate(
        TASK, request, report=ignore
    )
    high = output.metadata["result"]["expert_steps"]["high"]
    assert states_in(home) == [f"step-{high:04d}.safetensors", "step-0006.safetensors"]


def test_after_the_last_step_only_the_decode_is_repeated(pipeline: RealGenerationPipeline, home: Home) -> None:
    request = make_request(home)

    def report(progress: Progress) -> None:
        if progress.message == "Decoded 1 of 5 frames":
            raise WorkerStopping

    with pytest.raises(WorkerStopping):
        pipeline.generate(TASK, request, report=report)
    seen: list[Progress] = []
    output = pipeline.generate(TASK, request, report=seen.append)
    assert output.metadata["result"]["resumed_from_step"] == 6
    assert "Resumed at step 6 of 6" in [progress.message for progress in seen]
    assert "denoise_high" not in output.metadata["result"]["seconds"]
    assert frames_of(output) == frames_of(pipeline.generate("another", request, report=ignore))


def test_a_state_that_does_not_fit_is_set_aside_and_the_run_starts_again(
    pipeline: RealGenerationPipeline, home: Home
) -> None:
    request = make_request(home)
    with pytest.raises(WorkerStopping):
        pipeline.generate(TASK, replace(request, seed=2), report=stop_at(3))
    before = states_in(home)
    assert len(before) == 2
    with structlog.testing.capture_logs() as logs:
        output = pipeline.generate(TASK, request, report=ignore)
    assert output.metadata["result"]["resumed_from_step"] is None
    assert frames_of(output) == frames_of(pipeline.generate("another", request, report=ignore))
    aside = [entry for entry in logs if entry["event"] == "state.set_aside"]
    assert [entry["step"] for entry in aside] == [3, 2]
    assert all("another request" in entry["reason"] for entry in aside)
    assert {f"{name}.set-aside" for name in before} <= set(states_in(home))


def test_if_the_newest_state_is_damaged_the_previous_one_is_used(pipeline: RealGenerationPipeline, home: Home) -> None:
    request = make_request(home)
    with pytest.raises(WorkerStopping):
        pipeline.generate(TASK, request, report=stop_at(4))
    newest = home.state_of(TASK) / "step-0004.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    output = pipeline.generate(TASK, request, report=ignore)
    assert output.metadata["result"]["resumed_from_step"] == 3
    assert frames_of(output) == frames_of(pipeline.generate("another", request, report=ignore))


def test_a_full_disk_costs_the_states_and_not_the_run(
    pipeline: RealGenerationPipeline, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: StateFiles, step: int, write: object) -> None:
        raise StorageFull

    monkeypatch.setattr(StateFiles, "save", full)
    output = pipeline.generate(TASK, make_request(home, steps=2), report=ignore)
    assert output.size_bytes > 0


def test_kept_latents_are_decoded_again_at_another_speed_without_the_experts(
    pipeline: RealGenerationPipeline, home: Home, folders: Folders
) -> None:
    request = make_request(home, keep_latents=True)
    first = pipeline.generate(TASK, request, report=ignore)
    assert first.metadata["result"]["kept_latents"] is True
    assert home.latents_of(TASK).is_file()

    class DecoderOnly(WanPipelineLoader):
        def load(self, folder: Path, spec: ModelSpec, plan: MemoryPlan = RESIDENT) -> WanComponents:
            raise AssertionError("the experts are not needed")

    cold = RealGenerationPipeline(ModelIntegrationBridge(folders, DecoderOnly("cpu")), home)
    again = replace(request, fps=24.0, crf=30, keep_latents=False, latents_of=TASK)
    seen: list[Progress] = []
    output = cold.generate("again", again, report=seen.append)
    assert frames_of(output) == frames_of(first)
    assert (output.fps, output.metadata["request"]["crf"]) == (24.0, 30)
    assert output.size_bytes < first.size_bytes
    assert output.metadata["model"] == first.metadata["model"]
    assert output.metadata["result"]["expert_steps"] == {"high": 0, "low": 0}
    assert list(output.metadata["result"]["seconds"]) == ["load", "decode"]
    assert Stage.GENERATING not in {progress.stage for progress in seen}
    assert not home.latents_of("again").exists()
    third = cold.generate("third", replace(again, keep_latents=True), report=ignore)
    assert third.metadata["result"]["kept_latents"] is True
    assert frames_of(cold.generate("fourth", replace(again, latents_of="third"), report=ignore)) == frames_of(first)


def test_latents_of_something_else_are_not_decoded(pipeline: RealGenerationPipeline, home: Home) -> None:
    request = make_request(home, keep_latents=True, steps=2)
    pipeline.generate(TASK, request, report=ignore)
    with pytest.raises(StateMismatch, match="another request"):
        pipeline.generate("again", replace(request, seed=2, latents_of=TASK), report=ignore)
    with pytest.raises(LatentsNotKept):
        pipeline.generate("again", replace(request, latents_of="unknown"), report=ignore)
    assert sorted(path.name for path in home.outputs.iterdir()) == [
        f"{TASK}.latents.safetensors",
        f"{TASK}.mp4",
        f"{TASK}_thumb.jpg",
    ]


def test_images_affect_the_clip_and_must_exist(pipeline: RealGenerationPipeline, home: Home) -> None:
    request = make_request(home, "tiny-i2v-a14b", steps=2)
    first = pipeline.generate_i2v(TASK, request, report=ignore)
    other = InputStore(home).keep(np.full((64, 64, 3), 200, np.uint8))
    assert frames_of(pipeline.generate("other", replace(request, image=other.id), report=ignore)) != frames_of(first)
    led = replace(request, end_image=other.id)
    assert frames_of(pipeline.generate("led", led, report=ignore)) != frames_of(first)
    with pytest.raises(InputMissing):
        pipeline.generate("gone", replace(request, image="0" * 64), report=ignore)
    with pytest.raises(ImageRequired):
        pipeline.generate("none", replace(request, image=None), report=ignore)
    with pytest.raises(InvalidRequest, match="is a i2v model"):
        pipeline.generate_t2v("wrong", request, report=ignore)


def test_a_new_process_predicts_run_times_from_recorded_videos(
    pipeline: RealGenerationPipeline, home: Home, bridge: Any
) -> None:
    request = make_request(home)
    database = Database(load_settings(home=home.root).database)
    database.migrate()
    tasks = TaskStore(database)
    outputs = []
    for number in range(2):
        tasks.insert(f"{number}", request, adjustments=(), priority=Priority.NORMAL, max_attempts=1, fingerprint="one")
        task, token = claimed(tasks)
        outputs.append(pipeline.generate(task.id, request, report=ignore))
        tasks.complete(task.id, token, outputs[-1])
    here = Machine("a processor", cuda=False, vram=None, ram=None)

    def first_eta(machine: Machine) -> float | None:
        forecast = Forecast(machine, OutputStore(database, home), LoraLibrary(home), binding=True)
        options = RunOptions(start_plans=StartPlans.of(forecast, lambda: None))
        fresh = RealGenerationPipeline(bridge, home, options)
        etas: list[float | None] = []

        def report(progress: Progress) -> None:
            etas.append(progress.eta_seconds)
            raise WorkerStopping

        with pytest.raises(WorkerStopping):
            fresh.generate(TASK, request, report=report)
        return etas[0]

    eta = first_eta(here)
    assert eta is not None
    slowest = max(output.generation_seconds for output in outputs)
    assert 0.0 < eta <= slowest * 1.01
    assert eta >= 0.5 * min(sum(output.metadata["result"]["seconds"].values()) for output in outputs)
    assert first_eta(replace(here, name="another machine", cuda=True)) is None
    database.close()
