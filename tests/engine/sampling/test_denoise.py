"""Our loop compared with the stock pipeline, bit for bit, and what it can do in addition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from backend.core.catalogue.table import ModelSpec
from backend.core.errors.generation import NonFiniteLatents
from backend.core.requests.forms import GenerationRequest, Scheduler
from backend.engine.frames.decode import stream_frames
from backend.engine.loading.pipeline_loader import WanComponents, WanPipelineLoader
from backend.engine.sampling.denoise import DenoiseJob
from tests.engine.reference import StockPipeline
from tests.engine.samples import SAMPLERS
from tests.support.random_model import build_random_model

MakeRequest = Callable[..., GenerationRequest]


@pytest.fixture(scope="module")
def stock_pipelines() -> dict[str, StockPipeline]:
    return {}


@pytest.fixture
def stock(components: WanComponents, stock_pipelines: dict[str, StockPipeline]) -> StockPipeline:
    key = str(components.folder)
    if key not in stock_pipelines:
        stock_pipelines[key] = StockPipeline.like(components)
    return stock_pipelines[key]


def run(job: DenoiseJob) -> torch.Tensor:
    while not job.done:
        job.step()
    return job.latents


@pytest.mark.parametrize(
    ("scheduler", "seed", "guidance"),
    [
        (Scheduler.UNIPC, 1, (4.0, 3.0)),
        (Scheduler.UNIPC, 4294967295, (2.0, 5.5)),
        (Scheduler.EULER, 2, (2.0, 5.5)),
    ],
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


@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_half_precision_as_on_a_gpu_equals_the_stock_pipeline(
    random_components: WanComponents, make_request: MakeRequest, scheduler: Scheduler
) -> None:
    stock = StockPipeline(random_components.folder, torch.bfloat16, device=str(random_components.device))
    components = replace(random_components, pipeline=stock.pipe)
    request = make_request(scheduler=scheduler)
    latents = run(DenoiseJob.start(components, request))
    assert components.transformer.dtype == torch.bfloat16
    assert torch.equal(latents, stock.latents(request))
    assert np.array_equal(np.concatenate(list(stream_frames(components, latents))), stock.frames(request))


def passes_by_expert(job: DenoiseJob) -> dict[str, set[int]]:
    """The actual number of passes of each expert's steps, counted at the experts."""
    taken: dict[str, set[int]] = {"high": set(), "low": set()}
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    hooks = [
        expert.register_forward_pre_hook(count) for expert in (job.components.transformer, job.components.transformer_2)
    ]
    try:
        while not job.done:
            expert, calls = job.expert, 0
            job.step()
            taken[expert].add(calls)
    finally:
        for hook in hooks:
            hook.remove()
    return taken


@pytest.mark.parametrize(("high", "low"), [(1.0, 1.0), (0.5, 1.0), (0.0, 0.0), (1.01, 1.01), (7.5, 1.5)])
def test_with_both_scales_on_one_side_of_one_the_run_equals_the_stock_pipeline(
    random_components: WanComponents, make_request: MakeRequest, high: float, low: float
) -> None:
    request = make_request(guidance_scale=high, guidance_scale_2=low)
    job = DenoiseJob.start(random_components, request)
    passes = 1 if high <= 1 else 2
    assert passes_by_expert(job) == {"high": {passes}, "low": {passes}}
    assert (job.text.negative is None) == (passes == 1)
    assert torch.equal(job.latents, StockPipeline.like(random_components).latents(request))


def test_an_expert_with_scale_one_needs_no_second_pass(
    random_components: WanComponents, make_request: MakeRequest
) -> None:
    request = make_request(guidance_scale=3.0, guidance_scale_2=1.0)
    job = DenoiseJob.start(random_components, request)
    assert [scale is None for scale in job.scales] == [expert == "low" for expert in job.plan]
    assert passes_by_expert(job) == {"high": {2}, "low": {1}}
    # The pipeline takes the pass and computes n + 1 * (p - n): the same but for rounding.
    stock = StockPipeline.like(random_components).latents(request)
    assert torch.allclose(job.latents, stock, atol=1e-5)


def test_each_expert_follows_its_own_scale(random_components: WanComponents, make_request: MakeRequest) -> None:
    job = DenoiseJob.start(random_components, make_request(guidance_scale=1.0, guidance_scale_2=3.0))
    assert passes_by_expert(job) == {"high": {1}, "low": {2}}
    unguided = run(DenoiseJob.start(random_components, make_request(guidance_scale=1.0, guidance_scale_2=1.0)))
    assert not torch.equal(job.latents, unguided)


@pytest.mark.parametrize(
    ("start", "end", "guided"),
    [
        (0.0, 1.0, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (0.3, 0.7, [3, 4, 5, 6]),
        (0.25, 1.0, [3, 4, 5, 6, 7, 8, 9]),
        (0.0, 0.61, [0, 1, 2, 3, 4, 5, 6]),
        (0.5, 0.5, []),
    ],
)
def test_guidance_can_be_limited_to_a_part_of_the_run(
    random_components: WanComponents, make_request: MakeRequest, start: float, end: float, guided: list[int]
) -> None:
    request = replace(make_request(steps=10, num_frames=5), guidance_start=start, guidance_end=end)
    job = DenoiseJob.start(random_components, request)
    assert [index for index, scale in enumerate(job.scales) if scale is not None] == guided
    calls: list[int] = []
    hooks = [
        expert.register_forward_pre_hook(lambda *_: calls.append(job.index))
        for expert in (random_components.transformer, random_components.transformer_2)
    ]
    try:
        run(job)
    finally:
        for hook in hooks:
            hook.remove()
    assert [index for index in range(10) if calls.count(index) == 2] == guided
    assert len(calls) == 10 + len(guided)
    assert (job.text.negative is None) == (guided == [])


def test_an_interval_over_the_whole_run_changes_nothing_and_a_shorter_one_does(
    random_components: WanComponents, make_request: MakeRequest
) -> None:
    whole = make_request(num_frames=5)
    latents = run(DenoiseJob.start(random_components, whole))
    assert torch.equal(latents, run(DenoiseJob.start(random_components, replace(whole, guidance_end=1.0))))
    assert not torch.equal(latents, run(DenoiseJob.start(random_components, replace(whole, guidance_end=0.5))))


def test_without_a_second_scale_the_first_serves_both_experts(
    random_components: WanComponents, make_request: MakeRequest
) -> None:
    request = replace(make_request(guidance_scale=2.5), guidance_scale_2=None)
    latents = run(DenoiseJob.start(random_components, request))
    assert torch.equal(latents, StockPipeline.like(random_components).latents(request))
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


def test_interleaved_jobs_do_not_affect_each_other(random_components: WanComponents, make_request: MakeRequest) -> None:
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


def test_a_single_expert_runs_every_step(
    spec: ModelSpec, make_request: MakeRequest, tmp_path: Path, device: str
) -> None:
    folder = build_random_model(tmp_path / "one", boundary_ratio=None)
    one = replace(spec, boundary_ratio=None, guidance_scale_2=None)
    request = replace(make_request(), guidance_scale_2=None)
    components = WanPipelineLoader(device).load(folder, one)
    job = DenoiseJob.start(components, request)
    assert set(job.plan) == {"high"}
    assert torch.equal(run(job), StockPipeline.like(components).latents(request))


def test_non_finite_values_stop_the_run_at_their_step(
    random_components: WanComponents, make_request: MakeRequest
) -> None:
    job = DenoiseJob.start(random_components, make_request())
    job.step()

    # The effect of a broken weight: the expert's output contains one infinity from the third step on.
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
