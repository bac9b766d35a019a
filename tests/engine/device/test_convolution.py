"""Convolutions of a processor: oneDNN is used where it is correct, is named, and changes a clip by rounding alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv3d

from backend.core.catalogue.table import MODELS
from backend.core.planning.abilities import NATIVE, ConvolutionSetting, Verdict
from backend.engine.device.convolution import choose_convolution, judge, onednn
from backend.engine.frames.decode import stream_frames
from backend.engine.loading.pipeline_loader import WanPipelineLoader
from tests.engine.conftest import EMBEDDED

AUTO, ONEDNN = ConvolutionSetting.AUTO, ConvolutionSetting.ONEDNN


def wrong(*given: Any) -> torch.Tensor:
    return onednn(*given) * 1.001


def not_a_number(*given: Any) -> torch.Tensor:
    return onednn(*given) * float("nan")


def raising(*given: Any) -> torch.Tensor:
    raise RuntimeError("could not create a primitive")


def untouched(*given: Any) -> torch.Tensor:
    raise AssertionError("must not be tried")


def test_what_computes_correctly_is_used() -> None:
    assert choose_convolution(AUTO, "cpu") == ("onednn", ())
    assert choose_convolution(ONEDNN, "cpu") == ("onednn", ())


@pytest.mark.parametrize(
    ("bad", "why"), [(wrong, "wrong"), (not_a_number, "wrong"), (raising, "could not create a primitive")]
)
def test_what_does_not_is_left_alone_and_a_wish_for_it_is_answered(bad: Any, why: str) -> None:
    assert choose_convolution(AUTO, "cpu", convolve=bad) == (NATIVE, ())
    chosen, (warning,) = choose_convolution(ONEDNN, "cpu", convolve=bad)
    assert chosen == NATIVE
    assert why in warning
    assert "WAN22_CONVOLUTION" in warning


def test_what_is_slower_beyond_doubt_is_known() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0  # what torch takes: from one reading to the next
        return now

    def crawling(*given: Any) -> torch.Tensor:
        nonlocal now
        now += 1.0
        return onednn(*given)

    found = judge(crawling, clock=clock)
    assert (found.verdict, found.right) == (Verdict.SLOWER, True)
    assert judge(onednn, clock=clock).verdict is Verdict.OK


@pytest.mark.parametrize(("wish", "device"), [(ConvolutionSetting.NATIVE, "cpu"), (AUTO, "cuda:0"), (ONEDNN, "cuda")])
def test_nothing_is_tried_where_there_is_nothing_to_choose(wish: ConvolutionSetting, device: str) -> None:
    assert choose_convolution(wish, device, convolve=untouched) == (NATIVE, ())


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(8, 4, 1),
        nn.Conv3d(8, 4, (3, 1, 1)),
        nn.Conv3d(8, 4, 3, padding=1),
        nn.Conv3d(8, 4, (1, 3, 3), stride=(1, 2, 2), bias=False),
    ],
    ids=str,
)
def test_every_kind_of_layer_gives_what_torch_gives(layer: nn.Conv3d) -> None:
    images = torch.randn(1, 8, 6, 12, 12, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        for given in (images, images.transpose(3, 4)):  # the second is not contiguous
            expected = conv3d(given, layer.weight, layer.bias, layer.stride, layer.padding)
            torch.testing.assert_close(onednn(given, layer.weight, layer.bias, layer), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", ["tiny-t2v-a14b", "tiny-ti2v-5b"])
def test_a_clip_differs_by_rounding_alone_and_its_maker_is_named(model: str) -> None:
    spec, folder = MODELS[model], EMBEDDED.with_name(model)
    plain = WanPipelineLoader("cpu").load_decoder(folder, spec)
    fast = WanPipelineLoader("cpu", convolution="onednn").load_decoder(folder, spec)
    assert (plain.convolution, fast.convolution) == (NATIVE, "onednn")
    latents = torch.randn(1, plain.vae.config.z_dim, 3, 6, 6, generator=torch.Generator().manual_seed(5))
    one, other, again = (
        np.concatenate(list(stream_frames(components, latents))).astype(int) for components in (plain, fast, fast)
    )
    assert np.array_equal(other, again)
    assert np.abs(one - other).max() <= 1
    assert (one != other).mean() < 1e-3
