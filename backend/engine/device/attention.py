"""The kernels of attention that diffusers offers: which are installed, which of them are right here, and how fast.

Only kernels of installed packages; those that diffusers would fetch from a hub are not in the table and never will be.
What is done with a verdict is decided in `core.abilities`.
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

#: Our names, diffusers' names, and whether the kernel computes with the numbers that it is given. Not here: hub
#: variants (they download code), varlen variants (for masks, which Wan has none of), flex (needs a compiler).
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
#: Held in memory in full, the scores of a real clip fill any card: only for those who name it.
_ONLY_BY_NAME: Final = frozenset({AttentionSetting.MATH})
SEED: Final = 20250728
#: A number of tokens that no block size divides, and the few of a prompt for attention across.
TOKENS, TEXT_TOKENS, HEADS = 1031, 77, 2
#: Tokens and heads of the timed call: enough for a card to be busy.
_TIMED: Final = {"cpu": (512, 2), "cuda": (4096, 8)}
#: Eight-bit scores (two roundings of 0.9 % each: a 255th of 8 sigma by the root of 12) and products in e4m3 (two of
#: 3.6 %: a 16th by the root of 3) add up to 5 %; twice that is too much.
_QUANTISED_TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Kernel:
    """A way to compute attention."""

    name: str
    attend: Attend
    exact: bool = True  #: computes with the numbers that it is given, and does not round them first


def tolerance(dtype: torch.dtype, *, exact: bool) -> float:
    """How far a right kernel may be from float32, as the norm of the difference by the norm.

    Probabilities and results are rounded to `dtype`, half a unit each: twice that, and what adding so many
    terms in float32 can do.
    """
    return 2 * torch.finfo(dtype).eps + TOKENS * 2.0**-24 if exact else _QUANTISED_TOLERANCE


def head_widths() -> list[int]:
    """Return the widths of a head in the models of the table, widest first."""
    return sorted({arch.head_dim for arch in ARCHITECTURES.values()}, reverse=True)


def names_for(wish: AttentionSetting, device_type: str) -> list[str]:
    """Return the kernels to try for a wish; torch's own is always the first, and on a processor alone unless named."""
    if wish in (AttentionSetting.AUTO, AttentionSetting.SPEED):
        if device_type == "cpu":
            return [NATIVE]
        return [name.value for name in _BACKENDS if name not in _ONLY_BY_NAME]
    return list(dict.fromkeys((NATIVE, wish.value)))


def diffusers_kernel(name: str) -> Kernel:
    """Return a kernel of the table.

    Raises:
        RuntimeError: its package is not installed.
    """
    backend, exact = _BACKENDS[AttentionSetting(name)]
    with attention_backend(backend):
        pass  # looks whether the package is there

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        with attention_backend(backend):
            result: torch.Tensor = dispatch_attention_fn(query, key, value)
        return result

    return Kernel(name, attend, exact)


def try_by_name(
    name: str, wish: AttentionSetting, device: torch.device, dtype: torch.dtype, native_seconds: float | None
) -> KernelVerdict:
    """Try a kernel of the table, if it is installed and allowed."""
    try:
        kernel = diffusers_kernel(name)
    except RuntimeError as error:
        return KernelVerdict(name, Verdict.NOT_INSTALLED, in_one_line(error))
    if not kernel.exact and wish is AttentionSetting.AUTO:
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
    """Hold a kernel against the same sums in float32 on the processor, in all head widths, along and across; time it.

    Args:
        kernel: what is tried; whatever it raises is a verdict.
        device: where.
        dtype: in which numbers.
        native_seconds: what torch's own takes; None = this is torch's own.
        clock: seconds.
    """
    worst = 0.0
    try:
        for width in head_widths():
            for keys in (TOKENS, TEXT_TOKENS):
                query, key, value = _inputs(width, keys, dtype)
                expected = _reference(query, key, value)
                found = kernel.attend(query.to(device), key.to(device), value.to(device)).float().cpu()
                if found.shape != expected.shape:
                    return KernelVerdict(kernel.name, Verdict.WRONG, f"its result has the shape {list(found.shape)}")
                if not bool(torch.isfinite(found).all()):
                    return KernelVerdict(kernel.name, Verdict.NOT_FINITE, f"with heads of {width}")
                worst = max(worst, float(torch.linalg.vector_norm(found - expected) / expected.norm()))
        limit = tolerance(dtype, exact=kernel.exact)
        if worst > limit:
            reason = f"differs from float32 by {worst:.2g}, {limit:.2g} is allowed"
            return KernelVerdict(kernel.name, Verdict.WRONG, reason, error=worst)
        seconds = _seconds(kernel.attend, device, dtype, clock)
    except FAILURES as error:
        return KernelVerdict(kernel.name, Verdict.FAILED, f"{type(error).__name__}: {in_one_line(error)}")
    except (TypeError, AttributeError, NotImplementedError, ImportError) as error:  # of another version than diffusers'
        return KernelVerdict(kernel.name, Verdict.FAILED, f"{type(error).__name__}: {in_one_line(error)}")
    if native_seconds is None:
        return KernelVerdict(kernel.name, Verdict.OK, "torch's own", seconds, worst)
    reason = f"takes {seconds / native_seconds:.2f} of the time of torch's own"
    verdict = Verdict.OK if seconds < WORTH * native_seconds else Verdict.SLOWER
    return KernelVerdict(kernel.name, verdict, reason, seconds, worst)


def use_kernel(pipeline: Any, name: str) -> None:
    """Let the experts of a pipeline compute attention with a kernel of the table.

    Said in so many words for torch's own too, so that diffusers' own environment variable decides nothing here; the
    setting for all models of the process, which diffusers changes along, is put back.
    """
    backend, _ = _BACKENDS[AttentionSetting(name)]
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()  # it warns of an interface that may change; its version is pinned
    try:
        with attention_backend("native"):
            for expert in (pipeline.transformer, pipeline.transformer_2):
                if expert is not None:
                    expert.set_attention_backend(backend)
    finally:
        diffusers_logging.set_verbosity(verbosity)


def _inputs(width: int, keys: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return queries, keys and values as normalised layers give them, rounded to `dtype`."""
    random = torch.Generator().manual_seed(SEED + width + keys)
    query, key, value = (
        torch.randn(1, tokens, HEADS, width, generator=random).to(dtype) for tokens in (TOKENS, keys, keys)
    )
    return query, key, value


def _reference(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    query, key, value = (one.float().transpose(1, 2) for one in (query, key, value))
    return scaled_dot_product_attention(query, key, value).transpose(1, 2)


def _seconds(attend: Attend, device: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> float:
    """Return the shortest of a few calls at the width of the large models."""
    tokens, heads = _TIMED.get(device.type, _TIMED["cpu"])
    random = torch.Generator().manual_seed(SEED)
    one = torch.randn(1, tokens, heads, head_widths()[0], generator=random).to(device=device, dtype=dtype)
    return timed(lambda: attend(one, one, one), device, clock)[1]
