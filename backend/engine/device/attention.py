"""Diffusers' attention kernels: which are installed, which compute correctly on this device, and how fast they are.

Installed packages only: kernels that diffusers would download from a hub are not in the table and never will be.
`core.planning.abilities` decides what to do with a verdict.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import diffusers.utils.logging as diffusers_logging
import torch
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn
from torch.nn.functional import scaled_dot_product_attention

from backend.core.catalogue.architecture import ARCHITECTURES
from backend.core.planning.abilities import NATIVE, WORTH, AttentionSetting, KernelVerdict, Verdict
from backend.engine.device.facts import FAILURES, in_one_line, timed

#: Queries, keys and values [batch, tokens, heads, width] to the same shape as the queries.
Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

#: Our names, diffusers' names, and whether the kernel computes at the precision of its inputs. Left out: hub variants
#: (they download code), varlen variants (for masks; Wan uses none), flex (needs a compiler).
_BACKENDS: Final = {
    AttentionSetting.NATIVE: ("native", True),
    AttentionSetting.CUDNN: ("_native_cudnn", True),
    AttentionSetting.FLASH: ("flash", True),
    AttentionSetting.FLASH3: ("_flash_3", True),
    AttentionSetting.EFFICIENT: ("_native_efficient", True),
    AttentionSetting.XFORMERS: ("xformers", True),
    AttentionSetting.MATH: ("_native_math", True),
    AttentionSetting.SAGE: ("sage", False),
}
#: Only on explicit request: it materialises all scores, and those of a real clip exceed the memory of any card.
_ONLY_BY_NAME: Final = frozenset({AttentionSetting.MATH})
SEED: Final = 20250728
#: A token count that no block size divides, and the short sequence of a prompt for cross-attention.
TOKENS, TEXT_TOKENS, HEADS = 1031, 77, 2
#: Tokens and heads of the timed call: enough to keep a card busy.
_TIMED: Final = {"cpu": (512, 2), "cuda": (4096, 8)}
#: Eight-bit scores (two roundings of 0.9 % each: 8 sigma / 255 / sqrt(12)) and e4m3 products (two of 3.6 %:
#: 1/16 / sqrt(3)) add up to 5 %; twice that is too much.
_QUANTISED_TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Kernel:
    """One implementation of attention."""

    name: str
    attend: Attend
    exact: bool = True  #: computes at the precision of its inputs, without rounding them first


def tolerance(dtype: torch.dtype, *, exact: bool) -> float:
    """Return the largest relative error (norm of the difference / norm) of a correct kernel against float32.

    Probabilities and results are rounded to `dtype`, half a unit each: allow twice that, plus the rounding error of
    summing `TOKENS` terms in float32.
    """
    return 2 * torch.finfo(dtype).eps + TOKENS * 2.0**-24 if exact else _QUANTISED_TOLERANCE


def head_widths() -> list[int]:
    """Return the head widths of the models in the table, widest first."""
    return sorted({arch.head_dim for arch in ARCHITECTURES.values()}, reverse=True)


def names_for(setting: AttentionSetting, device_type: str) -> list[str]:
    """Return the kernels to try: torch's own first, and on a CPU no other unless it is named."""
    if setting in (AttentionSetting.AUTO, AttentionSetting.SPEED):
        if device_type == "cpu":
            return [NATIVE]
        return [name.value for name in _BACKENDS if name not in _ONLY_BY_NAME]
    return list(dict.fromkeys((NATIVE, setting.value)))


def diffusers_kernel(name: str) -> Kernel:
    """Return a kernel of the table.

    Raises:
        RuntimeError: the kernel's package is not installed.
    """
    backend, exact = _BACKENDS[AttentionSetting(name)]
    with attention_backend(backend):
        pass  # raises if the package is not installed

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        with attention_backend(backend):
            result: torch.Tensor = dispatch_attention_fn(query, key, value)
        return result

    return Kernel(name, attend, exact)


def try_by_name(
    name: str, setting: AttentionSetting, device: torch.device, dtype: torch.dtype, native_seconds: float | None
) -> KernelVerdict:
    """Judge a kernel of the table if it is installed and allowed."""
    try:
        kernel = diffusers_kernel(name)
    except RuntimeError as error:
        return KernelVerdict(name, Verdict.NOT_INSTALLED, in_one_line(error))
    if not kernel.exact and setting is AttentionSetting.AUTO:
        return KernelVerdict(name, Verdict.NOT_ALLOWED, "rounds to eight bits; WAN22_ATTENTION=speed allows it")
    return judge(kernel, device, dtype, native_seconds=native_seconds)


def judge(
    kernel: Kernel,
    device: torch.device,
    dtype: torch.dtype,
    *,
    native_seconds: float | None,
    clock: Callable[[], float] = time.perf_counter,
) -> KernelVerdict:
    """Compare a kernel with float32 on the CPU, for all head widths, in self- and cross-attention; then time it.

    Whatever the kernel raises becomes a verdict. `native_seconds` is the time of torch's own kernel; None = the kernel
    under test is torch's own. `clock` returns seconds.
    """
    worst = 0.0
    try:
        for width in head_widths():
            for keys in (TOKENS, TEXT_TOKENS):
                query, key, value = _inputs(width, keys, dtype)
                expected = _reference(query, key, value)
                found = kernel.attend(query.to(device), key.to(device), value.to(device)).float().cpu()
                if found.shape != expected.shape:
                    return KernelVerdict(kernel.name, Verdict.WRONG, f"its result has shape {list(found.shape)}")
                if not bool(torch.isfinite(found).all()):
                    return KernelVerdict(kernel.name, Verdict.NOT_FINITE, f"with heads of width {width}")
                worst = max(worst, float(torch.linalg.vector_norm(found - expected) / expected.norm()))
        limit = tolerance(dtype, exact=kernel.exact)
        if worst > limit:
            reason = f"differs from float32 by {worst:.2g}; {limit:.2g} is allowed"
            return KernelVerdict(kernel.name, Verdict.WRONG, reason, error=worst)
        seconds = _seconds(kernel.attend, device, dtype, clock)
    except FAILURES as error:
        return KernelVerdict(kernel.name, Verdict.FAILED, f"{type(error).__name__}: {in_one_line(error)}")
    except (
        TypeError,
        AttributeError,
        NotImplementedError,
        ImportError,
    ) as error:  # a version that diffusers does not match
        return KernelVerdict(kernel.name, Verdict.FAILED, f"{type(error).__name__}: {in_one_line(error)}")
    if native_seconds is None:
        return KernelVerdict(kernel.name, Verdict.OK, "torch's own", seconds, worst)
    reason = f"takes {seconds / native_seconds:.2f} times as long as torch's own"
    verdict = Verdict.OK if seconds < WORTH * native_seconds else Verdict.SLOWER
    return KernelVerdict(kernel.name, verdict, reason, seconds, worst)


def use_kernel(pipeline: Any, name: str) -> None:
    """Make a pipeline's experts compute attention with a kernel of the table.

    Set explicitly even for torch's own, so that diffusers' environment variable has no effect; diffusers also changes
    the process-wide setting, which is restored.
    """
    backend, _ = _BACKENDS[AttentionSetting(name)]
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()  # it warns that the interface may change; the version is pinned
    try:
        with attention_backend("native"):
            for expert in (pipeline.transformer, pipeline.transformer_2):
                if expert is not None:
                    expert.set_attention_backend(backend)
    finally:
        diffusers_logging.set_verbosity(verbosity)


def _inputs(width: int, keys: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries, keys and values distributed as after normalisation, rounded to `dtype`."""
    random = torch.Generator().manual_seed(SEED + width + keys)
    query, key, value = (
        torch.randn(1, tokens, HEADS, width, generator=random).to(dtype) for tokens in (TOKENS, keys, keys)
    )
    return query, key, value


def _reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    query, key, value = (one.float().transpose(1, 2) for one in (query, key, value))
    return scaled_dot_product_attention(query, key, value).transpose(1, 2)


def _seconds(attend: Attend, device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Return the shortest of a few calls at the head width of the large models."""
    tokens, heads = _TIMED.get(device.type, _TIMED["cpu"])
    random = torch.Generator().manual_seed(SEED)
    one = torch.randn(1, tokens, heads, head_widths()[0], generator=random).to(device=device, dtype=dtype)
    return timed(lambda: attend(one, one, one), device, clock)[1]
