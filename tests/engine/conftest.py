"""Model folders and loaded components for the engine's tests.

The tests of equality run on the CPU; `WAN22_TEST_DEVICE=cuda` runs the same tests on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backend.core.catalogue.table import MODELS, ModelSpec
from backend.core.requests.forms import GenerationRequest, RequestDraft
from backend.core.requests.rules import resolve_request
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from tests.support.random_model import build_random_i2v, build_random_model, build_random_ti2v

PROMPT = "a red circle moving right on a navy background"
EMBEDDED = Path(__file__).parents[2] / "backend" / "assets" / "tiny" / "tiny-t2v-a14b"


@pytest.fixture(scope="session")
def device() -> str:
    """Where models run in these tests."""
    return os.environ.get("WAN22_TEST_DEVICE", "cpu")


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return MODELS["tiny-t2v-a14b"]


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_model(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="session")
def random_i2v_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_i2v(tmp_path_factory.mktemp("models") / "i2v")


@pytest.fixture(scope="session")
def random_ti2v_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_ti2v(tmp_path_factory.mktemp("models") / "ti2v")


@pytest.fixture(scope="session")
def random_components(random_folder: Path, spec: ModelSpec, device: str) -> WanComponents:
    return WanPipelineLoader(device).load(random_folder, spec)


@pytest.fixture(scope="session")
def random_i2v(random_i2v_folder: Path, device: str) -> WanComponents:
    return WanPipelineLoader(device).load(random_i2v_folder, MODELS["tiny-i2v-a14b"])


@pytest.fixture(scope="session")
def random_ti2v(random_ti2v_folder: Path, device: str) -> WanComponents:
    return WanPipelineLoader(device).load(random_ti2v_folder, MODELS["tiny-ti2v-5b"])


@pytest.fixture(scope="session")
def embedded_components(spec: ModelSpec, device: str) -> WanComponents:
    return WanPipelineLoader(device).load(EMBEDDED, spec)


@pytest.fixture(params=["random", "embedded"])
def components(request: pytest.FixtureRequest) -> WanComponents:
    """Once with random weights, once with the embedded trained model."""
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
