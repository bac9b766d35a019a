"""When memory runs out a task goes on under a smaller plan: no step twice, the same clip, and a receipt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core import faults
from backend.core.domain import Progress
from backend.core.errors import OutOfMemory
from backend.core.memory_ladder import OomPolicy
from backend.core.model_integration_bridge import ModelIntegrationBridge
from backend.core.model_table import MODELS
from backend.core.paths import Home
from backend.core.requests import RequestDraft, resolve_request
from backend.engine.pipeline_loader import WanComponents, WanPipelineLoader
from backend.services.real_generation_pipeline import RealGenerationPipeline
from tests.services.attempt_process import FixedFolder
from tests.support.random_model import build_random_model

Inject = Callable[[str], None]
REQUEST, _ = resolve_request(
    MODELS["tiny-t2v-a14b"],
    RequestDraft(prompt="a red circle", width=64, height=64, num_frames=5, steps=4, seed=1),
)
SWAP, STREAM, STREAM_FP8 = "expert-swap-bf16", "block-stream-bf16", "block-stream-fp8"


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
    """A report that nobody reads."""


@pytest.mark.parametrize(
    ("fault", "at", "plans"),
    [
        ("model.load=oom", ["loading"], [SWAP]),
        ("denoise.step:2=oom", ["step 2 (high-noise expert)"], [SWAP]),
        ("denoise.step:4=oom,denoise.step:5=oom", ["step 4 (low-noise expert)"] * 2, [SWAP, STREAM]),
    ],
    ids=["load", "high", "low"],
)
def test_the_task_goes_on_with_the_same_clip_and_no_step_is_made_twice(
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
    output = RealGenerationPipeline(bridge, Home(tmp_path / "home")).generate("task", REQUEST, report=seen.append)
    result = output.metadata["result"]
    assert result["frames_sha256"] == usual
    assert [one["at"] for one in result["fallbacks"]] == at
    assert [one["to"] for one in result["fallbacks"]] == plans
    assert [one["from"] for one in result["fallbacks"]] == ["resident-bf16", *plans[:-1]]
    assert all("ran out of memory" in one["reason"] for one in result["fallbacks"])
    assert result["plan"] == plans[-1]
    assert sum("Memory ran out" in warning for warning in output.warnings) == len(plans)
    assert [one.step for one in seen if one.message.startswith("Step ")] == [1, 2, 3, 4]
    inject("")
    later = RealGenerationPipeline(bridge, Home(tmp_path / "home")).generate("later", REQUEST, report=ignore)
    assert later.metadata["result"]["plan"] == "resident-bf16", (
        "what one task had to give up is not the next one's loss"
    )


FOUR = ",".join(f"denoise.step:{index}=oom" for index in (2, 3, 4, 5))


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        (OomPolicy.NONE, "denoise.step:2=oom"),
        (OomPolicy.NONE, "model.load=oom"),
        (OomPolicy.QUALITY, FOUR),
        (OomPolicy.SPEED, FOUR),
    ],
)
def test_the_ladder_ends_where_the_policy_ends(
    bridge: ModelIntegrationBridge[WanComponents], tmp_path: Path, inject: Inject, policy: OomPolicy, fault: str
) -> None:
    bridge.unload()
    inject(fault)
    pipeline = RealGenerationPipeline(bridge, Home(tmp_path / "home"), oom_policy=policy)
    with pytest.raises(OutOfMemory):
        pipeline.generate("task", REQUEST, report=ignore)


def test_speed_gives_up_precision_last(
    bridge: ModelIntegrationBridge[WanComponents], tmp_path: Path, usual: str, inject: Inject
) -> None:
    inject(FOUR.rpartition(",")[0])
    pipeline = RealGenerationPipeline(bridge, Home(tmp_path / "home"), oom_policy=OomPolicy.SPEED)
    result = pipeline.generate("task", REQUEST, report=ignore).metadata["result"]
    assert [one["to"] for one in result["fallbacks"]] == [SWAP, STREAM, STREAM_FP8]
    assert result["plan"] == STREAM_FP8
    assert result["frames_sha256"] != usual
