"""Model folders and loaded components for the engine's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.core.model_table import MODELS, ModelSpec
from backend.core.requests import GenerationRequest, RequestDraft, resolve_request
from backend.engine.pipeline_loader import WanComponents, WanPipelineLoader
from tests.support.random_model import build_random_model

PROMPT = "a red circle moving right on a navy background"
EMBEDDED = Path(__file__).parents[2] / "backend" / "assets" / "tiny" / "tiny-t2v-a14b"


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return MODELS["tiny-t2v-a14b"]


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_model(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="session")
def random_components(random_folder: Path, spec: ModelSpec) -> WanComponents:
    return WanPipelineLoader("cpu").load(random_folder, spec)


@pytest.fixture(scope="session")
def embedded_components(spec: ModelSpec) -> WanComponents:
    return WanPipelineLoader("cpu").load(EMBEDDED, spec)


@pytest.fixture(params=["random", "embedded"])
def components(request: pytest.FixtureRequest) -> WanComponents:
    """Once with random weights, once with the trained model that ships."""
    loaded: WanComponents = request.getfixturevalue(f"{request.param}_components")
    return loaded


@pytest.fixture
def make_request(spec: ModelSpec) -> Callable[..., GenerationRequest]:
    def make(**values: Any) -> GenerationRequest:
        defaults: dict[str, Any] = {
            "prompt": PROMPT,
            "negative_prompt": "a blue square",
            "width": 64,
            "height": 64,
            "num_frames": 9,
            "steps": 6,
            "seed": 1,
        }
        request, _ = resolve_request(spec, RequestDraft(**(defaults | values)))
        return request

    return make
