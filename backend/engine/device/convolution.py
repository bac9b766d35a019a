"""Convolutions of the VAE on a processor: oneDNN's, where torch would unfold the input of a small clip.

For inputs below 20,480 numbers before their last axis (`use_mkldnn` in ATen/native/Convolution.cpp, torch 2.13) torch
copies every window of the input into a matrix. oneDNN convolves in place: the decoder of a small clip takes a third of
the time, and its results differ by rounding alone. Larger clips go to oneDNN either way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch
from torch import nn
from torch.nn.functional import conv3d

from backend.core.planning.abilities import NATIVE, ConvolutionSetting, KernelVerdict, Verdict
from backend.engine.device.facts import FAILURES, in_one_line, timed

#: Input [batch, channels, frames, height, width], weights, bias, and the layer, to the layer's output.
Convolve = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, nn.Conv3d], torch.Tensor]

SEED: Final = 20250728
#: Channels, frames and pixels along a side of the tried input: the decoder of the embedded models, in its middle.
_CHANNELS, _FRAMES, _SIDE = 32, 4, 24
#: Times may be those of a busy machine: the choice turns only where oneDNN is slower beyond doubt. The same machine
#: has to choose the same, or the second half of a resumed clip would be computed another way than its first.
_TOO_SLOW: Final = 1.5


def onednn(images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, layer: nn.Conv3d) -> torch.Tensor:
    """Convolve with oneDNN whatever the size; a window of one pixel is a matrix product, which torch does best."""
    if weight.shape[2:].numel() == 1:
        return conv3d(images, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
    padding = [] if isinstance(layer.padding, str) else layer.padding  # the VAE's layers give numbers
    return torch.mkldnn_convolution(
        images.contiguous(), weight, bias, padding, layer.stride, layer.dilation, layer.groups
    )


def choose_convolution(
    wish: ConvolutionSetting, device: str, *, convolve: Convolve = onednn
) -> tuple[str, tuple[str, ...]]:
    """Return the convolutions to use, and a warning if they are not the requested ones."""
    if wish is ConvolutionSetting.NATIVE or torch.device(device).type != "cpu":
        return NATIVE, ()
    found = judge(convolve)
    if found.verdict is Verdict.OK or (wish is ConvolutionSetting.ONEDNN and found.right):
        return found.kernel, ()
    why = f"WAN22_CONVOLUTION asks for {wish}, which is not used: {found.verdict} ({found.reason})."
    return NATIVE, (f"{why} Choose auto or native.",) if wish is ConvolutionSetting.ONEDNN else ()


def judge(convolve: Convolve, *, clock: Callable[[], float] = time.thread_time) -> KernelVerdict:
    """Compare with float64, then with the time of torch's own choice. `clock` returns seconds of this thread's work."""
    name, cpu = ConvolutionSetting.ONEDNN.value, torch.device("cpu")
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return KernelVerdict(name, Verdict.NOT_INSTALLED, "this build of torch has no oneDNN")
    random = torch.Generator().manual_seed(SEED)
    layer = nn.Conv3d(_CHANNELS, _CHANNELS, 3, device="meta")
    images = torch.randn(1, _CHANNELS, _FRAMES, _SIDE, _SIDE, generator=random)
    weight = torch.randn(_CHANNELS, _CHANNELS, 3, 3, 3, generator=random)
    bias = torch.randn(_CHANNELS, generator=random)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other on a busy machine
    try:
        with torch.inference_mode():
            found, seconds = timed(lambda: convolve(images, weight, bias, layer), cpu, clock)
            _, native = timed(lambda: conv3d(images, weight, bias), cpu, clock)
            exact = conv3d(images.double(), weight.double(), bias.double())
    except FAILURES as error:
        return KernelVerdict(name, Verdict.FAILED, f"{type(error).__name__}: {in_one_line(error)}")
    finally:
        torch.set_num_threads(threads)
    if found.shape != exact.shape:
        return KernelVerdict(name, Verdict.WRONG, f"its result has shape {list(found.shape)}")
    worst = float(torch.linalg.vector_norm(found.double() - exact) / exact.norm())
    limit = weight[0].numel() * 2.0**-24  # each of the products that are added is rounded once
    if not worst <= limit:  # also where it is NaN
        return KernelVerdict(name, Verdict.WRONG, f"differs by {worst:.2g}; {limit:.2g} is allowed", error=worst)
    reason = f"takes {seconds / native:.2f} times as long as torch's own"
    return KernelVerdict(name, Verdict.OK if seconds < _TOO_SLOW * native else Verdict.SLOWER, reason, seconds, worst)


def use_convolution(vae: Any, name: str) -> None:
    """Make a VAE compute its convolutions in this way."""
    if name == NATIVE:
        return
    for layer in vae.modules():
        if isinstance(layer, nn.Conv3d):
            layer._conv_forward = partial(onednn, layer=layer)  # type: ignore[method-assign]
