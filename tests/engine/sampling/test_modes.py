"""Every mode compared with diffusers' own pipeline, bit for bit, and its refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from backend.core.errors.requests import ImageNotAccepted, ImageRequired, InvalidRequest
from backend.core.requests.forms import Scheduler
from backend.engine.frames.decode import stream_frames
from backend.engine.sampling.conditioning import prepare_latents
from backend.engine.sampling.denoise import DenoiseJob
from tests.engine.samples import MODES, SAMPLERS, Sample, finish, picture_of, sample

#: Sizes and frame counts that are neither square nor round; TI2V needs multiples of 32.
ODD = {
    "t2v": {"width": 80, "height": 112, "num_frames": 5},
    "i2v": {"width": 112, "height": 80, "num_frames": 5},
    "i2v_end": {"width": 80, "height": 64, "num_frames": 13},
    "ti2v_text": {"width": 96, "height": 64, "num_frames": 5},
    "ti2v_image": {"width": 64, "height": 96, "num_frames": 13},
}


@pytest.mark.parametrize("scheduler", SAMPLERS)
@pytest.mark.parametrize("mode", list(MODES))
def test_latents_and_frames_equal_the_stock_pipeline(
    request: pytest.FixtureRequest, mode: str, scheduler: Scheduler
) -> None:
    one = sample(request, mode, scheduler=scheduler, **ODD[mode])
    latents = one.run()
    stock = one.stock()
    assert torch.equal(latents, stock.latents(one.request))
    frames = np.concatenate(list(stream_frames(one.components, latents)))
    assert frames.shape == (one.request.num_frames, one.request.height, one.request.width, 3)
    assert np.array_equal(frames, stock.frames(one.request))


@pytest.mark.parametrize("mode", ["i2v", "ti2v_text", "ti2v_image"])
@pytest.mark.parametrize("scheduler", SAMPLERS)
def test_half_precision_as_on_a_gpu_equals_the_stock_pipeline(
    request: pytest.FixtureRequest, mode: str, scheduler: Scheduler
) -> None:
    one = sample(request, mode, scheduler=scheduler, num_frames=5, steps=4)
    as_on_a_gpu = Sample(
        replace(
            one.components,
            pipeline=one.components.pipeline.__class__.from_pretrained(
                one.components.folder, dtype={"default": torch.bfloat16, "vae": torch.float32}
            ).to(one.components.device),
        ),
        one.request,
        one.image,
        one.end_image,
    )
    assert as_on_a_gpu.components.transformer.dtype == torch.bfloat16
    assert torch.equal(as_on_a_gpu.run(), as_on_a_gpu.stock().latents(one.request))


def test_interleaved_jobs_of_all_modes_do_not_affect_each_other(request: pytest.FixtureRequest) -> None:
    samples = [
        sample(request, "t2v", seed=3, num_frames=5),
        sample(request, "i2v", seed=4, scheduler=Scheduler.EULER, steps=4),
        sample(request, "ti2v_image", seed=5, steps=5),
    ]
    alone = [one.run() for one in samples]
    jobs = [one.start() for one in samples]
    while not all(job.done for job in jobs):
        for job in jobs:
            if not job.done:
                job.step()
    assert all(torch.equal(job.latents, expected) for job, expected in zip(jobs, alone, strict=True))


@pytest.mark.parametrize("mode", ["t2v", "i2v"])
def test_jobs_grouped_by_expert_do_not_affect_each_other(request: pytest.FixtureRequest, mode: str) -> None:
    samples = [
        sample(request, mode, seed=3),
        sample(request, mode, seed=4, scheduler=Scheduler.EULER, steps=4),
        sample(request, mode, seed=5, num_frames=5, guidance_scale=1.0, guidance_scale_2=1.0),
    ]
    alone = [one.run() for one in samples]
    jobs = [one.start() for one in samples]
    for expert in ("high", "low"):
        for job in jobs:
            while not job.done and job.expert == expert:
                job.step()
    assert all(torch.equal(job.latents, expected) for job, expected in zip(jobs, alone, strict=True))


def test_pictures_are_prepared_as_by_the_pipelines_processor(request: pytest.FixtureRequest) -> None:
    one = sample(request, "i2v", width=80, height=64)
    processor = one.components.pipeline.video_processor
    assert one.image is not None
    expected = processor.preprocess(Image.fromarray(one.image), height=64, width=80)
    assert expected.shape == (1, 3, 64, 80)
    by_hand = torch.from_numpy(one.image).permute(2, 0, 1)[None].float() / 255 * 2 - 1
    assert torch.equal(expected, by_hand), "a picture of the right size is not resampled"
    given = prepare_latents(one.components, one.request, one.image)
    assert given.image is not None
    with torch.no_grad():
        video = torch.cat([by_hand.unsqueeze(2), torch.zeros(1, 3, 8, 64, 80)], dim=2).to(one.components.device)
        encoded = one.components.vae.encode(video).latent_dist.mode()
    mean, std = (
        torch.tensor(values, device=encoded.device).view(1, -1, 1, 1, 1)
        for values in (one.components.vae.config.latents_mean, one.components.vae.config.latents_std)
    )
    assert torch.allclose(given.image[:, 4:], (encoded - mean) / std, atol=1e-5)
    mask = given.image[0, :4]
    assert mask[:, 0].eq(1).all()
    assert mask[:, 1:].eq(0).all()


def test_the_first_latent_frame_of_a_ti2v_clip_is_the_image(request: pytest.FixtureRequest) -> None:
    one = sample(request, "ti2v_image")
    job = one.start()
    assert job.given.image is not None
    image = job.given.image[:, :, 0]
    seen: list[torch.Tensor] = []
    times: list[torch.Tensor] = []

    def look(_module: object, _args: object, inputs: dict[str, torch.Tensor]) -> None:
        seen.append(inputs["hidden_states"])
        times.append(inputs["timestep"])

    hook = one.components.transformer.register_forward_pre_hook(look, with_kwargs=True)
    try:
        job.step()
    finally:
        hook.remove()
    assert len(seen) == 2
    assert torch.equal(seen[0][:, :, 0], image.to(seen[0].dtype))
    tokens = 2 * 2  # 64x64 pixels are 4x4 latents, a token is 2x2 of them
    assert times[0].shape == (1, 3 * tokens)
    assert times[0][0, :tokens].eq(0).all()
    assert times[0][0, tokens:].eq(job.timesteps[0]).all()
    assert torch.equal(job.estimate[:, :, 0], image), "a preview shows it, too"
    assert torch.equal(finish(job)[:, :, 0], image)


@pytest.mark.parametrize("mode", ["i2v", "ti2v_image"])
def test_another_image_gives_another_clip(request: pytest.FixtureRequest, mode: str) -> None:
    one = sample(request, mode, num_frames=5, steps=2)
    other = replace(one, image=picture_of(64, 64, 9))
    assert not torch.equal(one.run(), other.run())


def test_another_end_image_gives_another_clip(request: pytest.FixtureRequest) -> None:
    one = sample(request, "i2v_end", num_frames=5, steps=2)
    assert not torch.equal(one.run(), replace(one, end_image=picture_of(64, 64, 9)).run())
    assert not torch.equal(one.run(), replace(one, end_image=None).run())


def test_unsuitable_pictures_are_refused_before_anything_is_encoded(request: pytest.FixtureRequest) -> None:
    picture = picture_of(64, 64)
    t2v, i2v, ti2v = (sample(request, mode) for mode in ("t2v", "i2v", "ti2v_text"))
    with pytest.raises(ImageRequired):
        DenoiseJob.start(i2v.components, i2v.request)
    with pytest.raises(ImageRequired):
        DenoiseJob.start(i2v.components, i2v.request, end_image=picture)
    with pytest.raises(ImageNotAccepted):
        DenoiseJob.start(t2v.components, t2v.request, image=picture)
    with pytest.raises(ImageNotAccepted, match="no end image"):
        DenoiseJob.start(ti2v.components, ti2v.request, image=picture, end_image=picture)
    with pytest.raises(InvalidRequest, match="does not fit"):
        DenoiseJob.start(i2v.components, i2v.request, image=picture_of(80, 64))
    still = replace(i2v.request, num_frames=1)
    with pytest.raises(InvalidRequest, match="one frame"):
        DenoiseJob.start(i2v.components, still, image=picture, end_image=picture)


def test_a_strong_shift_that_merges_two_timesteps_skips_no_step(request: pytest.FixtureRequest) -> None:
    one = sample(request, "i2v", num_frames=1, steps=60, flow_shift=30.0, guidance_scale=1.0, guidance_scale_2=1.0)
    job = one.start()
    times = job.timesteps.tolist()
    assert times[0] == times[1], "this is the case that the pipeline cannot run"
    job.step()
    assert job.scheduler.step_index == 1
    finish(job)
    assert job.scheduler.step_index == 60
