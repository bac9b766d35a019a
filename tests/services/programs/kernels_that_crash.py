"""The engine's self-test with test kernels: one crashes its process, one computes a wrong result."""

from __future__ import annotations

import os
import signal

import torch

from backend.core.planning.abilities import AttentionSetting, KernelVerdict, Verdict
from backend.engine import self_test
from backend.engine.device.attention import Kernel, judge
from backend.engine.device.facts import Card


class OnACard:
    """Facts of a machine where the kernels of cards are listed; the CPU stands in for the card."""

    build, cuda = "2.13.0+cu130", "13.0"

    def available(self) -> bool:
        return True

    def start(self) -> None:
        return None

    def cards(self) -> list[Card]:
        return []

    def architectures(self) -> list[str]:
        return ["sm_90"]

    def compute(self, device: str) -> None:
        return None


def crash(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    os.kill(os.getpid(), signal.SIGKILL)
    return query


def echo(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return query


def try_kernel(
    name: str, wish: AttentionSetting, device: torch.device, dtype: torch.dtype, native_seconds: float | None
) -> KernelVerdict:
    if name == "native":
        return KernelVerdict(name, Verdict.OK, "torch's own", 1.0, 0.0)
    kernel = Kernel(name, crash if name == "math" else echo)
    return judge(kernel, device, dtype, native_seconds=native_seconds)


if __name__ == "__main__":
    self_test.main(facts=OnACard(), try_kernel=try_kernel)
