"""The own loop against the stock pipeline, bit for bit, and what it can do beyond it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.core.errors import NonFiniteLatents
from backend.core.model_table import MODELS, ModelSpec
from backend.core.requests import GenerationRequest, Scheduler
from backend.engine.decode import stream_frames
from backend.engine.denoise import DenoiseJob
from backend.engine.pipeline_loader import WanComponents, WanPipelineLoader
from tests.engine.reference import StockPipeline
from tests.support.random_model import build_random_model, build_random_ti2v

MakeRequest = Callable[..., GenerationRequest]
SEEDS = (1, 2, 4294967295)
GUIDANCE = ((4.0, 3.0), (2.0, 5.5))


@pytest.fixture(scope="module")
def stock_pipelines() -> dict[str, StockPipeline]:
    return {}


@pytest.fixture
def stock(components: WanComponents, stock_pipelines: dict[str, StockPipeline]) -> StockPipeline:
    key = str(components.folder)
    if key not in stock_pipelines:
        stock_pipelines[key] = StockPipeline(components.folder)
    return stock_pipelines[key]


def run(job: DenoiseJob) -> torch.Tensor:
    while not job.done:
        job.step()
    return job.latents


@pytest.mark.parametrize(
    ("scheduler", "seed", "guidance"), list(itertools.product((Scheduler.UNIPC, Scheduler.EULER), SEEDS, GUIDANCE))
)
def test_latents_and_frames_equal_the_stock_pipeline(
    components: WanComponents,
    stock: StockPipeline,
    make_request: MakeRequest,
    scheduler: Scheduler,
    seed: int,
    guidance: tuple[float, float],
) -> None:
    request = make_request(scheduler=scheduler, seed=seed, guidance_scale=guidance[0], guidance_scale_2=guidance[1])
    job = DenoiseJob.start(components, request)
    assert {"high", "low"} == set(job.plan)
    latents = run(job)
    assert torch.equal(latents, stock.latents(request))
    frames = np.concatenate(list(stream_frames(components, latents)))
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, stock.frames(request))


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_half_precision_as_on_a_gpu_equals_the_stock_pipeline(
    random_components: WanComponents, make_request: MakeRequest, scheduler: Scheduler
) -> None:
    stock = StockPipeline(random_components.folder, torch.bfloat16)
    components = replace(random_components, pipeline=stock.pipe)
    request = make_request(scheduler=scheduler)
    latents = run(DenoiseJob.start(components, request))
    assert components.transformer.dtype == torch.bfloat16
    assert torch.equal(latents, stock.latents(request))
    assert np.array_equal(np.concatenate(list(stream_frames(components, latents))), stock.frames(request))


@pytest.mark.parametrize(
    ("high", "low", "passes"), [(1.0, 3.0, 1), (0.5, 1.0, 1), (0.0, 4.0, 1), (1.01, 0.5, 2), (3.0, 1.0, 2)]
)
def test_guidance_near_one_behaves_as_in_the_stock_pipeline(
    random_components: WanComponents, make_request: MakeRequest, high: float, low: float, passes: int
) -> None:
    request = make_request(guidance_scale=high, guidance_scale_2=low)
    job = DenoiseJob.start(random_components, request)
    assert (1 if job.text.negative is None else 2) == passes
    assert torch.equal(run(job), StockPipeline(random_components.folder).latents(request))


def test_without_a_second_scale_the_first_serves_both_experts(
    random_components: WanComponents, make_request: MakeRequest
) -> None:
    request = replace(make_request(guidance_scale=2.5), guidance_scale_2=None)
    latents = run(DenoiseJob.start(random_components, request))
    assert torch.equal(latents, StockPipeline(random_components.folder).latents(request))
    assert torch.equal(latents, run(DenoiseJob.start(random_components, replace(request, guidance_scale_2=2.5))))


def test_the_second_scale_belongs_to_the_low_noise_expert(
    random_components: WanComponents, make_request: MakeRequest
) -> None:
    first = DenoiseJob.start(random_components, make_request(guidance_scale_2=3.0))
    other = DenoiseJob.start(random_components, make_request(guidance_scale_2=9.0))
    while first.expert == "high":
        first.step()
        other.step()
        assert torch.equal(first.latents, other.latents)
    first.step()
    other.step()
    assert not torch.equal(first.latents, other.latents)


def test_every_step_uses_the_expert_that_the_boundary_names(
    random_components: WanComponents, make_request: MakeRequest
) -> None:
    job = DenoiseJob.start(random_components, make_request(steps=20, flow_shift=3.0))
    expected = ["high" if t >= 875 else "low" for t in job.timesteps.tolist()]
    assert list(job.plan) == expected
    assert job.steps_of("high") + job.steps_of("low") == job.total_steps == 20
    calls: list[str] = []
    hooks = [
        expert.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name, expert in (("high", random_components.transformer), ("low", random_components.transformer_2))
    ]
    try:
        while not job.done:
            announced = job.expert
            job.step()
            assert calls == [announced] * 2
            calls.clear()
    finally:
        for hook in hooks:
            hook.remove()


def test_jobs_that_take_turns_do_not_disturb_each_other(
    random_components: WanComponents, make_request: MakeRequest
) -> None:
    requests = [
        make_request(seed=3),
        make_request(seed=4, scheduler=Scheduler.EULER, steps=4),
        make_request(seed=5, width=96, num_frames=5),
    ]
    alone = [run(DenoiseJob.start(random_components, request)) for request in requests]
    jobs = [DenoiseJob.start(random_components, request) for request in requests]
    while not all(job.done for job in jobs):
        for job in jobs:
            if not job.done:
                job.step()
    assert all(torch.equal(job.latents, expected) for job, expected in zip(jobs, alone, strict=True))


def test_one_expert_runs_the_whole_way(spec: ModelSpec, make_request: MakeRequest, tmp_path: Path) -> None:
    folder = build_random_model(tmp_path / "one", boundary_ratio=None)
    one = replace(spec, boundary_ratio=None, guidance_scale_2=None)
    request = replace(make_request(), guidance_scale_2=None)
    job = DenoiseJob.start(WanPipelineLoader("cpu").load(folder, one), request)
    assert set(job.plan) == {"high"}
    assert torch.equal(run(job), StockPipeline(folder).latents(request))


def test_a_model_with_one_time_per_token_equals_the_stock_pipeline(make_request: MakeRequest, tmp_path: Path) -> None:
    folder = build_random_ti2v(tmp_path / "ti2v")
    components = WanPipelineLoader("cpu").load(folder, MODELS["tiny-ti2v-5b"])
    request = replace(make_request(), model="tiny-ti2v-5b", guidance_scale_2=None)
    latents = run(DenoiseJob.start(components, request))
    stock = StockPipeline(folder)
    assert torch.equal(latents, stock.latents(request))
    assert np.array_equal(np.concatenate(list(stream_frames(components, latents))), stock.frames(request))


def test_values_that_are_not_numbers_stop_the_run_at_their_step(
    random_components: WanComponents, make_request: MakeRequest
) -> None:
    job = DenoiseJob.start(random_components, make_request())
    job.step()

    # What a broken weight does: the expert's output holds one infinity from the third step on.
    def spoil(_module: object, _inputs: object, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        spoiled = output[0].clone()
        spoiled[0, 0, 0, 0, 0] = float("inf")
        return (spoiled,)

    job.step()
    hooks = [
        expert.register_forward_hook(spoil)
        for expert in (random_components.transformer, random_components.transformer_2)
    ]
    try:
        with pytest.raises(NonFiniteLatents, match="Step 3 of 6"):
            job.step()
    finally:
        for hook in hooks:
            hook.remove()
    assert job.index == 3
