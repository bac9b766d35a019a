"""An input image reaches a network in training exactly as it does in the stock pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from training.evaluation import cases
from training.networks import autoencoder, experts, latents
from training.networks.alignment import align
from training.networks.flow import as_channels, as_first_frame
from training.recipes import folder
from training.recipes.models import I2V

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("with_end", [False, True])
def test_the_condition_equals_that_of_the_stock_pipeline(with_end: bool) -> None:
    pipeline = folder.load(I2V.folder, from_image=True)
    case = cases.from_image(1, 96, with_end=True)[0]
    frames = [torch.from_numpy(np.array(image)).permute(2, 0, 1) / 127.5 - 1 for image in (case.image, case.end_image)]
    clip = torch.zeros(1, 3, 17, 96, 96)
    clip[0, :, 0], clip[0, :, -1] = frames

    given = [pipeline.video_processor.preprocess(Image.fromarray(image)) for image in (case.image, case.end_image)]
    _, expected = pipeline.prepare_latents(
        given[0], 1, 16, 96, 96, 17, torch.float32, torch.device("cpu"), last_image=given[1] if with_end else None
    )
    video = latents.condition_video(clip, torch.tensor([with_end]))
    with torch.inference_mode():
        encoded = pipeline.vae.encode(video).latent_dist.mode()
    mean, deviation = (
        torch.tensor(values)[:, None, None, None]
        for values in (pipeline.vae.config.latents_mean, pipeline.vae.config.latents_std)
    )
    normalised = (encoded - mean) / deviation
    made = torch.cat([latents.condition_mask(torch.tensor([with_end]), normalised), normalised], 1)
    assert torch.equal(made[:, :4], expected[:, :4])
    assert torch.allclose(made, expected, atol=1e-4)


def test_the_condition_is_appended_to_the_latents_as_channels() -> None:
    conditions = torch.randn(3, 20, 5, 4, 4)
    noisy, times = torch.randn(2, 16, 5, 4, 4), torch.tensor([10.0, 900.0])
    inputs = as_channels(conditions, first_frame=3.0)(noisy, noisy, times, torch.tensor([2, 0]), RNG)
    assert torch.equal(inputs.hidden[:, :16], noisy)
    assert torch.equal(inputs.hidden[:, 16:], conditions[[2, 0]])
    assert inputs.loss_weights is not None
    assert inputs.loss_weights.mean((0, 1, 3, 4)).tolist() == [3.0, 1.0, 1.0, 1.0, 1.0]
    assert torch.equal(inputs.times, times)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_first_frame_is_clean_at_time_zero_and_has_no_weight_in_the_loss(share: float) -> None:
    clean, noisy, times = torch.zeros(2, 48, 5, 8, 8), torch.ones(2, 48, 5, 8, 8), torch.tensor([10.0, 900.0])
    inputs = as_first_frame(share, 12)(noisy, clean, times, torch.tensor([0, 1]), RNG)
    # Tokens are ordered by frame, row and column, like the patches of the transformer.
    per_frame = inputs.times.reshape(2, 5, 16)
    assert inputs.loss_weights is not None
    for part in (inputs.hidden, inputs.loss_weights):
        assert (part[:, :12, 0] == 1 - share).all()
        assert (part[:, :12, 1:] == 1).all()
        assert (part[:, 12:] == 0).all()
    assert (per_frame[:, 0] == (1 - share) * times[:, None]).all()
    assert (per_frame[:, 1:] == times[:, None, None]).all()


@torch.no_grad()
def test_an_expert_ignores_empty_channels() -> None:
    torch.manual_seed(0)
    expert = experts.build_expert(48, layers=1)
    experts.ignore_channels(expert, 12)
    noisy, prompt = torch.randn(1, 48, 2, 4, 4), torch.randn(1, 8, experts.TEXT_WIDTH)
    changed = noisy.clone()
    changed[:, 12:] = 7.0
    first, second = (expert(x, torch.tensor([500.0]), prompt, return_dict=False)[0] for x in (noisy, changed))
    assert torch.equal(first, second)
    assert (first[:, 12:] == 0).all()
    assert (first[:, :12] != 0).all()


@torch.no_grad()
def test_aligned_latents_are_ordered_and_decode_to_the_same_image() -> None:
    torch.manual_seed(0)
    codec = autoencoder.build_residual()
    pixels = torch.rand(40, 3, 1, 32, 32) * 2 - 1
    raw = codec.encode(pixels).latent_dist.mode()
    mean, deviation = raw.mean((0, 2, 3, 4)), raw.std((0, 2, 3, 4))
    normalised = (raw - mean[:, None, None, None]) / deviation[:, None, None, None]
    before = codec.decode(raw).sample
    clips = latents.EncodedClips(normalised, [], mean.tolist(), deviation.tolist(), pixels)
    turned = align(codec, clips, 48)
    spread = turned.latents.float().var((0, 2, 3, 4))
    assert (spread[:-1] >= spread[1:] - 0.02).all()
    assert spread.sum() == pytest.approx(48, rel=0.05)
    fresh = codec.encode(pixels).latent_dist.mode()
    assert torch.allclose(fresh, turned.latents.float(), atol=2e-2)
    assert torch.allclose(codec.decode(fresh).sample, before, atol=2e-2)
