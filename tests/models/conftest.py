"""A model repository in the T2V-A14B layout, and the stand-in hub that serves it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from safetensors import safe_open
from safetensors.numpy import save

from backend.core.paths import Home
from backend.models.downloader import ModelDownloader
from backend.models.hub import Hub
from backend.models.manager import EMBEDDED_MODELS, ModelManager
from backend.models.retries import RetryPolicy
from tests.support.hub import StandIn, repository_files, stand_in

SHARDS = 3


@pytest.fixture(scope="session")
def published() -> dict[str, bytes]:
    """The embedded tiny T2V model with its experts in shards, and beside it what must never be fetched."""
    files = repository_files(EMBEDDED_MODELS / "tiny-t2v-a14b")
    for expert in ("transformer", "transformer_2"):
        whole = f"{expert}/diffusion_pytorch_model.safetensors"
        with safe_open(EMBEDDED_MODELS / "tiny-t2v-a14b" / whole, framework="np") as file:
            names = sorted(file.keys())
            parts = [{name: file.get_tensor(name) for name in names[i::SHARDS]} for i in range(SHARDS)]
        del files[whole]
        shards = {}
        for number, part in enumerate(parts, 1):
            shard = f"diffusion_pytorch_model-{number:05}-of-{SHARDS:05}.safetensors"
            files[f"{expert}/{shard}"] = save(part)
            shards |= dict.fromkeys(part, shard)
        files[f"{whole}.index.json"] = json.dumps({"metadata": {}, "weight_map": shards}).encode()
    files["transformer/diffusion_pytorch_model.bin"] = b"\x80\x04 a pickle"
    files["transformer/run.py"] = b"print('never')"
    files["assets/logo.png"] = b"\x89PNG"
    return files


@pytest.fixture(scope="session")
def needed(published: dict[str, bytes]) -> dict[str, bytes]:
    """The files of it that the loader needs."""
    return {name: content for name, content in published.items() if not name.endswith((".bin", ".py", ".png", ".md"))}


@pytest.fixture
def hub(published: dict[str, bytes]) -> Iterator[StandIn]:
    with stand_in(dict(published)) as running:
        yield running


@pytest.fixture
def home(tmp_path: object) -> Home:
    return Home(tmp_path).create()  # type: ignore[arg-type]


@pytest.fixture
def make_downloader(hub: StandIn, home: Home) -> Callable[..., ModelDownloader]:
    """Downloaders of this home, that lose no time between tries."""

    def make(token: str | None = None, **options: object) -> ModelDownloader:
        chosen = {"policy": RetryPolicy(attempts=4, first_seconds=0.001)} | options
        return ModelDownloader(home, ModelManager(home, has_gpu=False), Hub(hub.endpoint, token), **chosen)  # type: ignore[arg-type]

    return make
