"""A worker whose memory grows from task to task is found; one whose memory goes up and down is not."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest

from backend.services.system.findings import RecoveryAction
from backend.services.system.memory_growth import FEWEST, MIB, MemoryGrowth
from backend.store.workers import WorkerInfo, WorkerState

NOW = datetime.now(UTC)


def worker(state: WorkerState = WorkerState.IDLE, model: str = "a") -> WorkerInfo:
    return WorkerInfo("w", "host", 1, 0.0, "cpu", state, None, NOW, NOW, model)


def watch(sizes: Iterable[int], *, one: WorkerInfo | None = None, tasks: bool = True) -> bool:
    """Let a worker have these sizes in MiB, each after another task; return whether that is a finding."""
    left = list(sizes)
    done = iter(range(len(left)))
    growth = MemoryGrowth(lambda _: next(done) if tasks else 1, lambda _: left.pop(0) * MIB, total=24 * 1024 * MIB)
    found = []
    for _ in range(len(left)):
        found = growth.look([one or worker()])
    assert all(finding.remedy is RecoveryAction.RESTART_WORKER for finding in found)
    return bool(found)


@pytest.mark.parametrize(
    ("sizes", "grows"),
    [
        ([1000 + 100 * number for number in range(16)], True),
        ([1000, 3000] * 8, False),
        ([1000 + number for number in range(16)], False),
        ([3000] + [1000] * 15, False),
        ([1000 + 200 * number for number in range(FEWEST - 1)], False),
    ],
)
def test_growth_is_what_never_comes_back(sizes: list[int], grows: bool) -> None:
    assert watch(sizes) is grows


def test_only_idle_moments_after_a_task_count() -> None:
    sizes = [1000 + 100 * number for number in range(16)]
    assert not watch(sizes, one=worker(WorkerState.BUSY))
    assert not watch(sizes, tasks=False)


def test_another_model_starts_anew() -> None:
    tasks, sizes = iter(range(40)), iter(range(1000, 5000, 100))
    growth = MemoryGrowth(lambda _: next(tasks), lambda _: next(sizes) * MIB, total=MIB)
    for number in range(32):
        assert growth.look([worker(model=f"{number // (FEWEST - 1)}")]) == []
