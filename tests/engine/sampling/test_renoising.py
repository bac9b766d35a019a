"""A folder as published for FastWan2.2 runs by the formula of its distillation: clean clip, then fresh noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

from backend.core.catalogue.table import MODELS
from backend.core.errors.generation import OutOfMemory
from backend.core.errors.models import ModelUnavailable
from backend.core.errors.requests import ImageNotAccepted, InvalidRequest
from backend.core.requests.forms import GenerationRequest, RequestDraft, Scheduler
from backend.core.requests.rules import resolve_request
from backend.engine.frames.decode import stream_frames
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.sampling.denoise import DenoiseJob
from backend.engine.sampling.samplers import RenoisingSampler, level_of
from backend.engine.state.job import restore_state, write_state
from tests.engine.samples import finish, picture_of
from tests.support.random_model import build_random_fastwan

SPEC = MODELS["FastWan2.2-TI2V-5B"]
PROMPT = "a red circle moving right on a navy background"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_fastwan(tmp_path_factory.mktemp("models") / "fastwan")


@pytest.fixture(scope="module")
def components(folder: Path, device: str) -> WanComponents:
    return WanPipelineLoader(device).load(folder, SPEC)


def request_of(**values: Any) -> GenerationRequest:
    size = {"width": 128, "height": 160, "num_frames": 9, "max_sequence_length": 64, "seed": 7}
    return resolve_request(SPEC, RequestDraft(PROMPT, **(size | values)))[0]


@torch.no_grad()
def reference(components: WanComponents, request: GenerationRequest) -> torch.Tensor:
    """The formula, written out for the three timesteps: one generator for all noise, one pass per step."""
    device = components.device
    pipe = WanPipeline.from_pretrained(components.folder).to(device)
    embeds, _ = pipe.encode_prompt(
        request.prompt, do_classifier_free_guidance=False, max_sequence_length=request.max_sequence_length
    )
    generator = torch.Generator("cpu").manual_seed(request.seed)
    shape = (1, 48, (request.num_frames - 1) // 4 + 1, request.height // 16, request.width // 16)
    tokens = shape[2] * shape[3] // 2 * shape[4] // 2
    # Diffusers' Euler has the table of the 1000 shifted timesteps until its number of steps is set.
    table = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=5.0)

    def level(time: float) -> float:
        return float(table.sigmas[int((table.timesteps - time).abs().argmin())])

    latents = torch.randn(shape, generator=generator).to(device)
    for time, following in ((1000.0, 757.0), (757.0, 522.0), (522.0, None)):
        flow = pipe.transformer(latents, torch.full((1, tokens), time, device=device), embeds, return_dict=False)[0]
        clean = latents - level(time) * flow
        if following is None:
            return clean
        noise = torch.randn(shape, generator=generator).to(device)
        latents = (1 - level(following)) * clean + level(following) * noise
    raise AssertionError


@pytest.mark.parametrize("seed", [7, 2**32 - 1])
def test_it_equals_the_formula_written_out(components: WanComponents, seed: int) -> None:
    request = request_of(seed=seed)
    job = DenoiseJob.start(components, request)
    assert job.timesteps.tolist() == [1000, 757, 522]
    assert (job.scales, job.text.negative, set(job.plan)) == ((None,) * 3, None, {"high"})
    latents = finish(job)
    assert torch.equal(job.estimate, latents), "the last step ends at the clean clip that it foresees"
    expected = reference(components, request)
    assert torch.allclose(latents, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(latents, reference(components, request_of(seed=8)), atol=1e-2)
    frames = np.concatenate(list(stream_frames(components, latents)))
    assert frames.shape == (9, 160, 128, 3)


def test_noise_levels_are_those_of_the_nearest_shifted_timesteps() -> None:
    assert [round(level_of(time, 5.0), 4) for time in SPEC.renoise_at] == [1.0, 0.7571, 0.5216]
    # FastVideo's stage uses a shift of 8 for every model; the difference is small.
    assert all(abs(level_of(time, 8.0) - level_of(time, 5.0)) < 4e-4 for time in SPEC.renoise_at)
    assert level_of(500, 1.0) == 0.5


def test_the_same_seed_gives_the_same_latents_whatever_runs_alongside(components: WanComponents) -> None:
    requests = [request_of(seed=7), request_of(seed=8), request_of(seed=7, num_frames=5)]
    alone = [finish(DenoiseJob.start(components, request)) for request in requests]
    jobs = [DenoiseJob.start(components, request) for request in requests]
    while not all(job.done for job in jobs):
        for job in jobs:
            torch.randn(3)  # no run may depend on the process's generator
            job.step()
    assert all(torch.equal(job.latents, latents) for job, latents in zip(jobs, alone, strict=True))
    assert not torch.equal(alone[0], alone[1])


def test_a_run_restored_after_any_step_ends_the_same_to_the_bit(components: WanComponents, tmp_path: Path) -> None:
    job = DenoiseJob.start(components, request_of())
    for index in (1, 2, 3):
        job.step()
        write_state(job, tmp_path / str(index))
    for index in (1, 2, 3):
        again = DenoiseJob.start(components, request_of())
        restore_state(again, tmp_path / str(index))
        assert (again.index, again.done) == (index, index == 3)
        assert torch.equal(finish(again), job.latents)


def test_a_step_repeated_after_out_of_memory_uses_the_same_noise(
    components: WanComponents, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = finish(DenoiseJob.start(components, request_of()))
    job = DenoiseJob.start(components, request_of())
    job.step()
    before = job.latents
    step = RenoisingSampler.step

    def fail(self: RenoisingSampler, *args: Any, **options: Any) -> Any:
        step(self, *args, **options)
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(RenoisingSampler, "step", fail)
        with pytest.raises(OutOfMemory):
            job.step()
    assert job.latents is before
    assert torch.equal(finish(job), expected)


def test_in_half_precision_as_on_a_gpu_the_noise_stays_exact(components: WanComponents) -> None:
    pipeline = WanPipeline.from_pretrained(
        components.folder, dtype={"default": torch.bfloat16, "vae": torch.float32}
    ).to(components.device)
    latents = finish(DenoiseJob.start(replace(components, pipeline=pipeline), request_of()))
    exact = finish(DenoiseJob.start(components, request_of()))
    assert latents.dtype == torch.float32
    assert not torch.equal(latents, exact)
    assert float((latents - exact).abs().mean()) < 0.05 * float(exact.abs().mean())


def test_the_loop_refuses_other_samplers_and_images_too(components: WanComponents, random_ti2v: WanComponents) -> None:
    with pytest.raises(InvalidRequest, match="distilled for the sampler dmd"):
        DenoiseJob.start(components, replace(request_of(), scheduler=Scheduler.UNIPC))
    with pytest.raises(InvalidRequest, match="was not distilled"):
        DenoiseJob.start(random_ti2v, request_of())
    with pytest.raises(ImageNotAccepted, match="text alone"):
        DenoiseJob.start(components, request_of(), image=picture_of(128, 160))


def test_folders_are_distinguished_by_the_pipeline_they_name(
    folder: Path, random_ti2v_folder: Path, device: str
) -> None:
    loader = WanPipelineLoader(device)
    with pytest.raises(ModelUnavailable, match="must be a WanDMDPipeline"):
        loader.load(random_ti2v_folder, SPEC)
    with pytest.raises(ModelUnavailable, match="holds a WanDMDPipeline"):
        loader.load(folder, MODELS["TI2V-5B"])


def test_the_embedded_configurations_match_such_a_folder() -> None:
    from backend.models.adoption.assembly import CONFIGS

    modules = WanPipelineLoader("cpu").build(CONFIGS / SPEC.id, SPEC)
    counted = sum(one.numel() for module in modules.values() for one in module.parameters())
    assert SPEC.weights_gb == pytest.approx(2 * counted / 1e9, rel=0.005)
