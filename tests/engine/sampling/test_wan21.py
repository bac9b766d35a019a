"""A folder as Wan2.1 is published for T2V runs like any other: one expert, configurations of an older diffusers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.core.catalogue.table import MODELS
from backend.core.requests.forms import RequestDraft, Scheduler
from backend.core.requests.rules import resolve_request
from backend.engine.frames.decode import stream_frames
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.sampling.denoise import DenoiseJob
from tests.engine.reference import StockPipeline
from tests.engine.samples import SAMPLERS, finish

SPEC = MODELS["Wan2.1-T2V-1.3B"]
#: Keys that diffusers 0.33, which wrote these folders, did not know yet.
LATER = {
    "model_index.json": {"boundary_ratio", "expand_timesteps", "transformer_2"},
    "vae/config.json": {
        "clip_output", "decoder_base_dim", "in_channels", "is_residual", "out_channels", "patch_size",
        "scale_factor_spatial", "scale_factor_temporal",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory, random_folder: Path, device: str) -> WanComponents:
    folder = tmp_path_factory.mktemp("models") / "wan21"
    shutil.copytree(random_folder, folder, ignore=shutil.ignore_patterns("transformer_2"))
    for name, later in LATER.items():
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({key: value for key, value in values.items() if key not in later}))
    return WanPipelineLoader(device).load(folder, SPEC)


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_it_equals_the_stock_pipeline(components: WanComponents, scheduler: Scheduler) -> None:
    draft = RequestDraft(
        "a red circle",
        width=128,
        height=144,
        num_frames=5,
        steps=4,
        seed=3,
        scheduler=scheduler,
        max_sequence_length=64,
    )
    request, _ = resolve_request(SPEC, draft)
    assert (request.guidance_scale, request.guidance_scale_2, request.flow_shift) == (6.0, None, 8.0)
    job = DenoiseJob.start(components, request)
    assert set(job.plan) == {"high"}
    latents = finish(job)
    stock = StockPipeline.like(components)
    assert torch.equal(latents, stock.latents(request))
    assert np.array_equal(np.concatenate(list(stream_frames(components, latents))), stock.frames(request))
