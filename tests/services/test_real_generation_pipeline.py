"""Whole attempts with a real (random) model: files, progress, stops, crashes, and reproducible clips."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType

from backend.core.catalogue.table import MODELS
from backend.core.domain import Progress, Stage
from backend.core.errors.generation import NonFiniteLatents
from backend.core.errors.interruptions import LeaseLost, TaskCancelled, WorkerStopping
from backend.core.errors.models import ModelDamaged
from backend.core.errors.surroundings import StorageFull
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.paths import Home
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.core.requests.rules import resolve_request
from backend.engine.frames.decode import stream_frames
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.sampling.denoise import DenoiseJob
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.services.media.video_encoder import read_metadata
from backend.services.real_generation_pipeline import RealGenerationPipeline
from tests.services.attempt_process import FixedFolder
from tests.support.random_model import build_random_model
from tests.support.weight_forms import write_gguf

TASK = "7b1d4c5e-0000-4000-8000-000000000001"
#: For one attempt in a separate process, most of it importing libraries, which is slow on a busy machine.
DEADLINE_SECONDS = 240


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_model(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def bridge(folder: Path) -> ModelIntegrationBridge[WanComponents]:
    return ModelIntegrationBridge(FixedFolder(folder), WanPipelineLoader("cpu"))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "wan")


@pytest.fixture
def pipeline(bridge: ModelIntegrationBridge[WanComponents], home: Home) -> RealGenerationPipeline:
    return RealGenerationPipeline(bridge, home)


def make_request(**values: Any) -> GenerationRequest:
    defaults: dict[str, Any] = {
        "prompt": "a red circle",
        "width": 64,
        "height": 64,
        "num_frames": 9,
        "steps": 5,
        "seed": 1,
    }
    return resolve_request(MODELS["tiny-t2v-a14b"], RequestDraft(**(defaults | values)))[0]


def ignore(progress: Progress) -> None:
    """A report that is discarded."""


def files_in(home: Home) -> list[str]:
    """Every file except the saved states, which stay until the task's end is recorded."""
    files = (path.relative_to(home.root) for path in home.root.rglob("*") if path.is_file())
    return sorted(file.as_posix() for file in files if "state" not in file.parts)


def states_in(home: Home) -> list[str]:
    return sorted(path.name for path in home.state_of(TASK).glob("*"))


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def run_process(home: Home, folder: Path, request: GenerationRequest, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.services.attempt_process", str(home.root), str(folder), TASK],
        input=json.dumps(request.to_json()),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | env,
    )


def test_a_gguf_model_generates_a_video_whose_record_names_its_storage(home: Home, tmp_path: Path) -> None:
    folder = shutil.copytree(EMBEDDED_MODELS / "tiny-t2v-a14b", tmp_path / "gguf")
    for component in ("transformer", "transformer_2"):
        write_gguf(folder, component, GGMLQuantizationType.Q4_0)
    bridge = ModelIntegrationBridge(FixedFolder(folder), WanPipelineLoader("cpu"))
    output = RealGenerationPipeline(bridge, home).generate(TASK, make_request(), report=ignore)
    assert output.metadata["result"]["plan"] == "resident-gguf"
    assert output.metadata["result"]["quality"] == "ok"
    assert len(output.metadata["model"]["weights_sha256"]) == 64
    assert frames_of(home.video_of(TASK)).shape == (9, 64, 64, 3)
    assert bridge.is_warm("tiny-t2v-a14b"), "the next request must not read the files again"


def test_a_request_becomes_a_video_with_its_record(pipeline: RealGenerationPipeline, home: Home) -> None:
    request = make_request(fps=12.0)
    output = pipeline.generate_t2v(TASK, request, report=ignore)
    assert files_in(home) == [f"outputs/{TASK}.mp4", f"outputs/{TASK}_thumb.jpg"]
    video = home.video_of(TASK)
    assert (output.task_id, output.filename, output.size_bytes) == (TASK, video.name, video.stat().st_size)
    assert (output.width, output.height, output.num_frames, output.fps) == (64, 64, 9, 12.0)
    assert frames_of(video).shape == (9, 64, 64, 3)
    assert read_metadata(video) == output.metadata
    record = output.metadata
    assert GenerationRequest.from_json(record["request"]) == request
    assert record["request"]["guidance_scale_2"] == 3.0
    assert record["request"]["max_sequence_length"] == 64
    assert sum(record["result"]["expert_steps"].values()) == 5
    assert min(record["result"]["expert_steps"].values()) > 0
    assert record["result"]["quality"] == "ok"
    assert record["result"]["loras"] == []
    assert record["result"]["resumed_from_step"] is None
    assert record["result"]["kept_latents"] is False
    assert record["result"]["plan"] == "resident-fp32"
    phases = ["load", "encode", "denoise_high", "denoise_low", "decode"]
    assert list(record["result"]["seconds"]) == phases
    assert sum(record["result"]["seconds"].values()) <= output.generation_seconds + 0.01
    assert len(record["model"]["weights_sha256"]) == 64
    assert record["device"] == "cpu"


def test_the_file_contains_the_engines_frames(
    pipeline: RealGenerationPipeline, home: Home, bridge: ModelIntegrationBridge[WanComponents]
) -> None:
    request = make_request()
    output = pipeline.generate_t2v(TASK, request, report=ignore)
    components = bridge.load(request.model)
    job = DenoiseJob.start(components, request)
    while not job.done:
        job.step()
    frames = np.concatenate(list(stream_frames(components, job.latents)))
    assert output.metadata["result"]["frames_sha256"] == hashlib.sha256(frames.tobytes()).hexdigest()
    expected = frames.astype(int)
    # Untrained weights give noise, the worst case for a codec: only means over blocks can be compared.
    blocks = (9, 8, 8, 8, 8, 3)
    written = frames_of(home.video_of(TASK)).reshape(blocks).mean(axis=(2, 4))
    assert np.abs(written - expected.reshape(blocks).mean(axis=(2, 4))).mean() < 4


def test_progress_goes_through_the_stages_and_never_back(pipeline: RealGenerationPipeline) -> None:
    for attempt in range(2):  # the second one has no model to load
        seen: list[Progress] = []
        pipeline.generate_t2v(f"task-{attempt}", make_request(num_frames=17), report=seen.append)
        stages = [p.stage for p in seen]
        assert list(dict.fromkeys(stages)) == [
            Stage.INITIALIZING,
            Stage.LOADING_MODEL,
            Stage.PREPARING_INPUTS,
            Stage.GENERATING,
            Stage.POST_PROCESSING,
            Stage.SAVING,
        ]
        assert all(earlier.fraction <= later.fraction for earlier, later in pairwise(seen))
        assert seen[0].fraction == 0.0
        assert seen[-1].fraction <= 1.0
        steps = [p.step for p in seen if p.stage is Stage.GENERATING and p.message.startswith("Step")]
        assert steps == [1, 2, 3, 4, 5]
        assert {p.total_steps for p in seen} == {5}
        decoded = [p.message for p in seen if p.message.startswith("Decoded")]
        assert decoded == [f"Decoded {n} of 17 frames" for n in (1, 5, 9, 13, 17)]
        assert seen[0].eta_seconds is None, "nobody forecasts here"
        assert all(p.eta_seconds is None or p.eta_seconds >= 0 for p in seen)


def test_previews_can_be_read_during_the_run(pipeline: RealGenerationPipeline, home: Home) -> None:
    pictures: list[bytes] = []

    def report(progress: Progress) -> None:
        if progress.preview_step is not None:
            pictures.append(home.preview_of(TASK).read_bytes())

    pipeline.generate_t2v(TASK, make_request(), report=report)
    assert pictures
    assert all(p.startswith(b"\xff\xd8") and p.endswith(b"\xff\xd9") and len(p) <= 30 * 1024 for p in pictures)
    assert not home.preview_of(TASK).exists()


STOPS: list[tuple[str, Callable[[Progress], bool]]] = [
    ("at once", lambda p: p.stage is Stage.INITIALIZING),
    ("while loading", lambda p: p.stage is Stage.LOADING_MODEL),
    ("before the first step", lambda p: p.stage is Stage.GENERATING),
    ("in the middle of denoising", lambda p: p.step == 3),
    ("in the middle of decoding", lambda p: p.message == "Decoded 5 of 9 frames"),
    ("before the file is written", lambda p: p.stage is Stage.SAVING),
    ("at the last moment", lambda p: p.message == "Putting the video in place"),
]


@pytest.mark.parametrize("when", [stop[1] for stop in STOPS], ids=[stop[0] for stop in STOPS])
@pytest.mark.parametrize("error", [TaskCancelled, WorkerStopping, LeaseLost])
def test_a_stopped_attempt_leaves_nothing_but_states(
    pipeline: RealGenerationPipeline, home: Home, when: Callable[[Progress], bool], error: type[Exception]
) -> None:
    reports_after_the_stop = 0
    stopped = False

    def report(progress: Progress) -> None:
        nonlocal stopped, reports_after_the_stop
        reports_after_the_stop += stopped
        if when(progress):
            stopped = True
            raise error

    with pytest.raises(error):
        pipeline.generate_t2v(TASK, make_request(), report=report)
    assert stopped
    assert reports_after_the_stop == 0
    # The work folder belongs to the next attempt once the lease is lost.
    left = [name for name in files_in(home) if not (error is LeaseLost and name == f"work/{TASK}/preview.jpg")]
    assert left == []
    if when is STOPS[3][1]:
        # The experts switched after step 2. A cancelled task can be retried; without a lease nothing may be written.
        stopped_at = [] if error is LeaseLost else ["step-0003.safetensors"]
        assert states_in(home) == ["step-0002.safetensors", *stopped_at]


def test_the_same_seed_gives_the_same_clip_and_another_seed_another(
    pipeline: RealGenerationPipeline, home: Home
) -> None:
    clips = []
    for task_id, seed in (("one", 1), ("again", 1), ("other", 2)):
        pipeline.generate_t2v(task_id, make_request(seed=seed), report=ignore)
        clips.append(frames_of(home.video_of(task_id)))
    assert np.array_equal(clips[0], clips[1])
    assert not np.array_equal(clips[0], clips[2])


@pytest.mark.timeout(2 * DEADLINE_SECONDS)
def test_the_record_in_the_file_reproduces_the_clip_in_another_process(
    pipeline: RealGenerationPipeline, home: Home, folder: Path, tmp_path: Path
) -> None:
    pipeline.generate_t2v(TASK, make_request(seed=77, guidance_scale=2.5), report=ignore)
    record = read_metadata(home.video_of(TASK))
    assert record is not None
    elsewhere = Home(tmp_path / "elsewhere")
    done = run_process(elsewhere, folder, GenerationRequest.from_json(record["request"]))
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["model"] == record["model"]
    assert again["request"] == record["request"]
    assert np.array_equal(frames_of(elsewhere.video_of(TASK)), frames_of(home.video_of(TASK)))


@pytest.mark.timeout(2 * DEADLINE_SECONDS)
@pytest.mark.parametrize("point", ["encode.part", "output.before_rename", "output.after_rename"])
def test_after_a_killed_attempt_the_next_one_leaves_one_video(
    pipeline: RealGenerationPipeline, home: Home, folder: Path, point: str
) -> None:
    request = make_request()
    killed = run_process(home, folder, request, WAN22_FAULTS=f"{point}=kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert home.video_of(TASK).exists() == (point == "output.after_rename"), "a final name means a complete file"
    output = pipeline.generate_t2v(TASK, request, report=ignore)
    assert files_in(home) == [f"outputs/{TASK}.mp4", f"outputs/{TASK}_thumb.jpg"]
    assert output.metadata["result"]["resumed_from_step"] == 5, "no step is made twice"


def test_non_finite_values_end_the_attempt_at_their_step(folder: Path, home: Home) -> None:
    bridge: ModelIntegrationBridge[WanComponents] = ModelIntegrationBridge(
        FixedFolder(folder), WanPipelineLoader("cpu")
    )
    components = bridge.load("tiny-t2v-a14b")
    with torch.no_grad():
        components.transformer_2.proj_out.bias[0] = float("nan")
    request = make_request()
    first_low = DenoiseJob.start(components, request).plan.index("low") + 1
    seen: list[Progress] = []
    with pytest.raises(NonFiniteLatents, match=rf"Step {first_low} of 5 \(low-noise expert\)") as caught:
        RealGenerationPipeline(bridge, home).generate_t2v(TASK, request, report=seen.append)
    assert caught.value.category == "generation_pipeline"
    assert caught.value.next_steps
    assert seen[-1].stage is Stage.GENERATING, "it stops at the step, not after the decode"
    assert files_in(home) == []


@pytest.mark.parametrize(("level", "word"), [(-1.0, "black"), (0.2, "flat")])
def test_a_clip_that_shows_nothing_is_never_a_plain_success(folder: Path, home: Home, level: float, word: str) -> None:
    bridge: ModelIntegrationBridge[WanComponents] = ModelIntegrationBridge(
        FixedFolder(folder), WanPipelineLoader("cpu")
    )
    components = bridge.load("tiny-t2v-a14b")
    with torch.no_grad():
        components.vae.decoder.conv_out.weight.zero_()
        components.vae.decoder.conv_out.bias.fill_(level)
    output = RealGenerationPipeline(bridge, home).generate_t2v(TASK, make_request(num_frames=5, steps=2), report=ignore)
    (warning,) = output.warnings
    assert word in warning
    assert output.metadata["result"]["warnings"] == [warning]
    assert output.metadata["result"]["quality"] == word
    record = read_metadata(home.video_of(TASK))
    assert record is not None
    assert record["result"]["warnings"] == [warning]


def test_a_damaged_model_ends_the_attempt_with_its_name(tmp_path: Path, home: Home) -> None:
    folder = build_random_model(tmp_path / "model")
    (folder / "vae" / "config.json").unlink()
    bridge: ModelIntegrationBridge[WanComponents] = ModelIntegrationBridge(
        FixedFolder(folder), WanPipelineLoader("cpu")
    )
    with pytest.raises(ModelDamaged, match=r"vae/config\.json"):
        RealGenerationPipeline(bridge, home).generate_t2v(TASK, make_request(), report=ignore)
    assert files_in(home) == []


def test_a_full_disk_ends_the_attempt_with_its_own_error(
    pipeline: RealGenerationPipeline, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "0" * 2 * size)

    def report(progress: Progress) -> None:
        if progress.message.startswith("Decoding"):
            (home.outputs / f"{TASK}.00000000.mp4.part").symlink_to("/dev/full")

    with pytest.raises(StorageFull):
        pipeline.generate_t2v(TASK, make_request(), report=report)
    assert files_in(home) == []
    assert list(home.outputs.iterdir()) == []
    assert states_in(home), "the denoising is not lost"
