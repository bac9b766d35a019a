"""A killed training stage resumes from its checkpoint and reaches the same result as an uninterrupted one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.networks.loop import Schedule, run
from training.networks.workspace import precision_of

STEPS = 30


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))


def schedule(average: float = 0.9) -> Schedule:
    return Schedule("toy", STEPS, rate=0.02, adam_rate=0.01, average=average, checkpoint_seconds=0.0)


def train(work: Path, pause: float = 0.0) -> nn.Module:
    trained = network()

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        # Only the process that is to be killed is slowed down.
        time.sleep(pause)
        x = torch.from_numpy(rng.normal(size=(16, 6))).float()
        return {"error": (trained(x + 0.01 * torch.randn_like(x)) - x.flip(1)).square().mean()}

    run(schedule(), trained, loss, work, seed=5)
    return trained


def test_a_killed_stage_ends_with_the_same_weights_as_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole")
    code = f"from pathlib import Path; from tests.training.test_loop import train; train(Path({str(tmp_path)!r}), 0.05)"
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"})
    checkpoint = tmp_path / "toy.pt"
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert torch.load(checkpoint, weights_only=True)["step"] < STEPS
    resumed = train(tmp_path)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_learning_lowers_the_loss_and_a_finished_stage_is_only_loaded(tmp_path: Path) -> None:
    trained = train(tmp_path)
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before, after = ((net(x) - x.flip(1)).square().mean() for net in (network(), trained))
    assert after < 0.9 * before

    def never(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        raise AssertionError("a finished stage trained again")

    loaded = network()
    run(schedule(), loaded, never, tmp_path, seed=5)
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), loaded.parameters(), strict=True))


@pytest.mark.parametrize(
    ("device", "capability", "precision"),
    [("cpu", "AVX2", torch.float32), ("cpu", "AVX512", torch.bfloat16), ("cuda", "AVX2", torch.bfloat16)],
)
def test_bfloat16_is_used_where_the_device_multiplies_it_fast(
    monkeypatch: pytest.MonkeyPatch, device: str, capability: str, precision: torch.dtype
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert precision_of(torch.device(device)) is precision
