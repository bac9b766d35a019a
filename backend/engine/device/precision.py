"""Chooses the experts' precision on a device: bfloat16 where a short matrix product in it is correct and faster.

The models were published in bfloat16. Cards before compute capability 8.0 compute it slowly, which is measured rather
than looked up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import torch

from backend.core.planning.abilities import PrecisionVerdict
from backend.engine.device.facts import FAILURES, timed

SEED: Final = 20250728
_SIZE = 2048
#: Both factors and the result are rounded to eight bits, half a unit each: three halves of a unit, rounded up.
_TOLERANCE: Final = 2 * torch.finfo(torch.bfloat16).eps

#: Multiplies a square matrix by itself.
Square = Callable[[torch.Tensor], torch.Tensor]


def choose_precision(
    device: torch.device, *, square: Square = lambda one: one @ one, clock: Callable[[], float] = time.perf_counter
) -> PrecisionVerdict:
    """Return bfloat16 or float32 for a device; a CPU always uses float32."""
    if device.type == "cpu":
        return PrecisionVerdict("float32", "a processor computes in float32")
    return compare_precisions(device, square=square, clock=clock)


def compare_precisions(device: torch.device, *, square: Square, clock: Callable[[], float]) -> PrecisionVerdict:
    """Compare a bfloat16 product with the same one in float32, for accuracy and time; `clock` returns seconds."""
    random = torch.Generator().manual_seed(SEED)
    exact = torch.randn(_SIZE, _SIZE, generator=random).to(device)
    rounded = exact.bfloat16()
    try:
        found, rounded_seconds = timed(lambda: square(rounded), device, clock)
        factor = rounded.float()
        expected, exact_seconds = timed(lambda: square(factor), device, clock)
    except FAILURES as error:
        return PrecisionVerdict("float32", f"a product in bfloat16 failed: {error}")
    if not bool(torch.isfinite(found).all()):
        return PrecisionVerdict("float32", "a product in bfloat16 is not finite")
    distance = float(torch.linalg.vector_norm(found.float() - expected) / torch.linalg.vector_norm(expected))
    if distance > _TOLERANCE:
        reason = f"a product in bfloat16 differs from float32 by {distance:.2g}; {_TOLERANCE:.2g} is allowed"
        return PrecisionVerdict("float32", reason)
    part = rounded_seconds / exact_seconds
    if part >= 1.0:
        return PrecisionVerdict("float32", f"bfloat16 takes {part:.2f} times as long as float32")
    return PrecisionVerdict("bfloat16", f"correct, and takes {part:.2f} times as long as float32")
