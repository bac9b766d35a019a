"""When memory runs out, a task continues under a smaller plan: no step twice, the same clip, and a receipt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend.core import faults
from backend.core.catalogue.table import MODELS
from backend.core.domain import Progress
from backend.core.errors.generation import OutOfMemory
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.paths import Home
from backend.core.planning.memory_ladder import OomPolicy
from backend.core.planning.memory_plan import PLANS
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.core.requests.rules import resolve_request
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.services.media.images import InputStore
from backend.services.media.video_encoder import last_frame
from backend.services.real_generation_pipeline import RealGenerationPipeline, RunOptions
from backend.services.run.start_plans import StartPlan, StartPlans
from tests.services.attempt_process import FixedFolder
from tests.support.random_model import build_random_i2v, build_random_model

Inject = Callable[[str], None]
REQUEST, _ = resolve_request(
    MODELS["tiny-t2v-a14b"],
    RequestDraft(prompt="a red circle", width=64, height=64, num_frames=5, steps=4, seed=1),
)
LARGE = replace(REQUEST, width=160, height=144)
SWAP, STREAM, STREAM_FP8 = "expert-swap-fp32", "block-stream-fp32", "block-stream-fp8"
TEXT_ON_CPU, VAE_ON_CPU = f"{SWAP} with text encoder on the CPU", f"{SWAP} with VAE on the CPU"
TILED = f"{SWAP} with tiled decode (128 px)"


@pytest.fixture(scope="module")
def bridge(tmp_path_factory: pytest.TempPathFactory) -> ModelIntegrationBridge[WanComponents]:
    folder = build_random_model(tmp_path_factory.mktemp("models") / "random")
    return ModelIntegrationBridge(FixedFolder(folder), WanPipelineLoader("cpu"))


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Inject:
    def plan(text: str) -> None:
        monkeypatch.setattr(faults, "_PLAN", faults._read(text))
        monkeypatch.setattr(faults, "_passed", {})

    return plan


@pytest.fixture
def usual(bridge: ModelIntegrationBridge[WanComponents], tmp_path: Path) -> str:
    """The frames of a run that had enough memory."""
    output = RealGenerationPipeline(bridge, Home(tmp_path / "usual")).generate("usual", REQUEST, report=ignore)
    assert output.metadata["result"]["fallbacks"] == []
    return str(output.metadata["result"]["frames_sha256"])


def ignore(progress: Progress) -> None:
    """A report that is discarded."""


@pytest.mark.parametrize(
    ("fault", "at", "plans"),
    [
        ("model.load=oom", ["loading"], [SWAP]),
        ("encode.text:1=oom,encode.text:2=oom", ["encoding the prompt"] * 2, [SWAP, TEXT_ON_CPU]),
        ("denoise.step:2=oom", ["step 2 (high-noise expert)"], [SWAP]),
        ("denoise.step:4=oom,denoise.step:5=oom", ["step 4 (low-noise expert)"] * 2, [SWAP, STREAM]),
        ("decode.chunk:2=oom", ["decoding"], [SWAP]),
        ("decode.chunk:2=oom,decode.chunk:3=oom", ["decoding"] * 2, [SWAP, VAE_ON_CPU]),
    ],
    ids=["load", "text", "high", "low", "decode", "decode-twice"],
)
def test_the_task_continues_with_the_same_clip_and_repeats_no_finished_step(
    bridge: ModelIntegrationBridge[WanComponents],
    tmp_path: Path,
    usual: str,
    inject: Inject,
    fault: str,
    at: list[str],
    plans: list[str],
) -> None:
    bridge.unload()
    inject(fault)
    seen: list[Progress] = []
    pipeline = RealGenerationPipeline(bridge, Home(tmp_path / "home"))
    output = pipeline.generate("task", REQUEST, report=seen.append)
    result = output.metadata["result"]
    assert result["frames_sha256"] == usual
    assert [one["at"] for one in result["fallbacks"]] == at
    assert [one["to"] for one in result["fallbacks"]] == plans
    assert [one["from"] for one in result["fallbacks"]] == ["resident-fp32", *plans[:-1]]
    assert all("ran out of memory" in one["reason"] for one in result["fallbacks"])
    assert result["plan"] == plans[-1]
    told = [warning for warning in output.warnings if "Memory ran out" in warning]
    assert len(told) == len(plans)
    assert [one.message for one in seen if one.message in told] == told, "and it was said when it happened"
    assert [one.step for one in seen if one.message.startswith("Step ")] == [1, 2, 3, 4]
    fractions = [one.fraction for one in seen]
    assert fractions == sorted(fractions)
    inject("")
    later = pipeline.generate("later", REQUEST, report=ignore).metadata["result"]
    assert (later["plan"], later["fallbacks"], later["frames_sha256"]) == (plans[-1], [], usual)
    assert f"memory ran out at {at[-1]}" in later["plan_reason"]
    fresh = RealGenerationPipeline(bridge, Home(tmp_path / "home")).generate("fresh", REQUEST, report=ignore)
    assert fresh.metadata["result"]["plan"] == "resident-fp32"


def begin_with(**switches: Any) -> StartPlans:
    return StartPlans(lambda request: StartPlan(replace(PLANS[0], **switches), "as the test wants"))


def result_of(
    bridge: ModelIntegrationBridge[WanComponents], home: Path, request: GenerationRequest, **options: Any
) -> dict[str, Any]:
    pipeline = RealGenerationPipeline(bridge, Home(home), RunOptions(**options))
    result: dict[str, Any] = pipeline.generate("task", request, report=ignore).metadata["result"]
    return result


def test_a_large_picture_is_decoded_again_in_tiles_from_its_first_frame(
    bridge: ModelIntegrationBridge[WanComponents], tmp_path: Path, inject: Inject
) -> None:
    inject("")
    tiled = result_of(bridge, tmp_path / "tiled", LARGE, start_plans=begin_with(tiled_decode=True, tile_size=128))
    whole = result_of(bridge, tmp_path / "whole", LARGE)
    assert tiled["frames_sha256"] != whole["frames_sha256"]
    assert any("tiles of 128 px" in warning for warning in tiled["warnings"])
    assert not any("tiles" in warning for warning in whole["warnings"])
    inject("decode.chunk:2=oom,decode.chunk:4=oom")
    home = Home(tmp_path / "home")
    output = RealGenerationPipeline(bridge, home).generate("task", LARGE, report=ignore)
    result = output.metadata["result"]
    assert [one["to"] for one in result["fallbacks"]] == [SWAP, TILED]
    assert result["frames_sha256"] == tiled["frames_sha256"]
    assert result["expert_steps"] == whole["expert_steps"]
    assert last_frame(home.video_of("task")).shape == (144, 160, 3)
    assert [path.name for path in home.outputs.iterdir() if path.suffix == ".part"] == []
    assert not home.work_of("task").exists() or not any(path.is_file() for path in home.work_of("task").iterdir())
    inject("decode.chunk:1=oom,decode.chunk:2=oom,decode.tile:5=oom")
    last = result_of(bridge, tmp_path / "last", LARGE)
    assert [one["to"] for one in last["fallbacks"]] == [SWAP, TILED, f"{TILED} and VAE on the CPU"]
    assert last["frames_sha256"] == tiled["frames_sha256"]


def test_an_image_is_encoded_on_a_lower_rung(tmp_path: Path, inject: Inject) -> None:
    folder = build_random_i2v(tmp_path / "i2v")
    bridge = ModelIntegrationBridge(FixedFolder(folder), WanPipelineLoader("cpu"))
    home = Home(tmp_path / "home").create()
    image = InputStore(home).keep(np.random.default_rng(0).integers(0, 256, (144, 160, 3), dtype=np.uint8)).id
    request = replace(LARGE, model="tiny-i2v-a14b", image=image, guidance_scale_2=None)
    usual = RealGenerationPipeline(bridge, home).generate("usual", request, report=ignore).metadata["result"]
    inject("encode.image:1=oom")
    result = RealGenerationPipeline(bridge, home).generate("task", request, report=ignore).metadata["result"]
    assert [one["to"] for one in result["fallbacks"]] == [SWAP]
    assert result["fallbacks"][0]["at"] == "encoding the image"
    assert result["frames_sha256"] == usual["frames_sha256"]
    inject("encode.image:1=oom,encode.image:2=oom,denoise.step:3=oom")
    result = RealGenerationPipeline(bridge, home).generate("task", request, report=ignore).metadata["result"]
    assert [one["to"] for one in result["fallbacks"]] == [SWAP, TILED, TILED.replace(SWAP, STREAM)]


FOUR = ",".join(f"denoise.step:{index}=oom" for index in (2, 3, 4, 5))
ALWAYS = ",".join(f"decode.chunk:{index}=oom" for index in range(1, 9))


@pytest.mark.parametrize(
    ("policy", "fault", "advice"),
    [
        (OomPolicy.NONE, "denoise.step:2=oom", "`quality`"),
        (OomPolicy.NONE, "model.load=oom", "`quality`"),
        (OomPolicy.NONE, "encode.text=oom", "`quality`"),
        (OomPolicy.NONE, "decode.chunk:2=oom", "`quality`"),
        (OomPolicy.QUALITY, FOUR, "`speed`"),
        (OomPolicy.SPEED, FOUR, "smaller size"),
        (OomPolicy.QUALITY, "denoise.step:2=ram", "`speed`"),
        (OomPolicy.QUALITY, "model.load=ram", "`speed`"),
        (OomPolicy.SPEED, ALWAYS, "smaller size"),
    ],
)
def test_the_ladder_ends_where_the_policy_ends_and_with_advice(
    bridge: ModelIntegrationBridge[WanComponents],
    tmp_path: Path,
    inject: Inject,
    policy: OomPolicy,
    fault: str,
    advice: str,
) -> None:
    bridge.unload()
    inject(fault)
    home = Home(tmp_path / "home")
    with pytest.raises(OutOfMemory) as caught:
        RealGenerationPipeline(bridge, home, RunOptions(oom_policy=policy)).generate("task", REQUEST, report=ignore)
    assert advice in caught.value.next_steps[0]
    assert not list(home.outputs.iterdir())


def test_the_speed_policy_gives_up_precision_last(
    bridge: ModelIntegrationBridge[WanComponents], tmp_path: Path, usual: str, inject: Inject
) -> None:
    inject(FOUR.rpartition(",")[0])
    result = result_of(bridge, tmp_path / "home", REQUEST, oom_policy=OomPolicy.SPEED)
    assert [one["to"] for one in result["fallbacks"]] == [SWAP, STREAM, STREAM_FP8]
    assert result["plan"] == STREAM_FP8
    assert result["frames_sha256"] != usual


def test_a_full_host_is_relieved_by_tiles_and_not_by_offloading(
    bridge: ModelIntegrationBridge[WanComponents], tmp_path: Path, inject: Inject
) -> None:
    inject("decode.chunk:2=ram")
    result = result_of(bridge, tmp_path / "home", LARGE)
    assert [one["to"] for one in result["fallbacks"]] == ["resident-fp32 with tiled decode (128 px)"]
    assert "This machine ran out of memory" in result["fallbacks"][0]["reason"]


def test_kept_latents_are_decoded_again_on_a_lower_rung(
    bridge: ModelIntegrationBridge[WanComponents], tmp_path: Path, usual: str, inject: Inject
) -> None:
    home = Home(tmp_path / "home")
    pipeline = RealGenerationPipeline(bridge, home)
    first = replace(REQUEST, keep_latents=True)
    pipeline.generate("first", first, report=ignore)
    bridge.unload()
    again = replace(first, latents_of="first")
    inject("decode.chunk:2=oom")
    result = pipeline.generate("again", again, report=ignore).metadata["result"]
    assert (result["plan"], result["frames_sha256"]) == (SWAP, usual)
    inject("model.load=oom")
    fresh = RealGenerationPipeline(bridge, home)
    assert fresh.generate("alone", again, report=ignore).metadata["result"]["fallbacks"][0]["at"] == "loading"
