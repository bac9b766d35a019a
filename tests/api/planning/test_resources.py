"""Limits of resources are kept, and whether a generation can start is judged by them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from backend.core.planning.memory_level import ResourceLimits
from backend.services.planning.resource_check import Resource, ResourceCheck, ResourceUsage, check_resources
from backend.store.workers import WorkerInfo, WorkerState
from tests.api.support import Served, assert_error
from tests.api.system.test_health import alive

CONSTRAINTS = "/api/v1/system/constraints"
CHECK = "/api/v1/system/resource-check"
LOOSE = {"ram_warning_threshold": 1.0, "ram_critical_threshold": 1.0, "cpu_warning_threshold": 1.0}


def test_limits_are_kept_over_a_restart(served: Served) -> None:
    assert served.client.get(CONSTRAINTS).json() == ResourceLimits().to_json() | {"max_concurrent_generations": 0}
    changed = served.client.post(CONSTRAINTS, json={"vram_warning_threshold": 0.5})
    assert changed.json()["vram_warning_threshold"] == 0.5
    again = Served(served.services.home.root)
    try:
        kept = again.client.get(CONSTRAINTS).json()
        assert (kept["vram_warning_threshold"], kept["vram_critical_threshold"]) == (0.5, 0.9)
    finally:
        again.client.__exit__(None, None, None)


def test_how_many_run_at_once_is_the_number_of_workers(served: Served) -> None:
    alive(served)
    assert served.client.get(CONSTRAINTS).json()["max_concurrent_generations"] == 1
    body = assert_error(served.client.post(CONSTRAINTS, json={"max_concurrent_generations": 2}), 422)
    assert "which is 1" in body["detail"]
    assert "wan22 worker" in body["suggestions"][0]
    assert served.client.post(CONSTRAINTS, json={"max_concurrent_generations": 1}).status_code == 200


@pytest.mark.parametrize(
    "values",
    [
        {"vram_warning_threshold": 0.05},
        {"ram_warning_threshold": 1.01},
        {"cpu_warning_threshold": None},
        {"vram_warning_threshold": 0.95},
        {"ram_critical_threshold": 0.2},
        {"gpu": 0.5},
    ],
)
def test_what_is_no_limit_changes_nothing(shared: Served, values: dict[str, Any]) -> None:
    before = shared.client.get(CONSTRAINTS).json()
    assert_error(shared.client.post(CONSTRAINTS, json=values), 422)
    assert shared.client.get(CONSTRAINTS).json() == before


def test_a_generation_can_start_when_a_worker_lives_and_memory_suffices(served: Served) -> None:
    served.client.post(CONSTRAINTS, json=LOOSE)
    without = served.client.get(CHECK).json()
    assert without["can_start_generation"] is False
    assert without["blocking_issues"] == [without["message"]]
    assert without["resource_status"]["workers_available"] is False
    alive(served)
    body = served.client.get(CHECK).json()
    assert (body["can_start_generation"], body["blocking_issues"]) == (True, [])
    assert (body["workers"], body["idle_workers"]) == (1, 1)
    assert 0 < body["current_usage"]["ram_percent"] <= 100
    served.services.workers.beat("w1", device="cpu", state=WorkerState.BUSY)
    busy = served.client.get(CHECK).json()
    assert (busy["can_start_generation"], busy["idle_workers"]) == (True, 0)
    assert "when a worker is free" in busy["message"]


def test_the_limits_decide(serve: Callable[..., Served]) -> None:
    served = serve()
    alive(served)
    served.client.post(CONSTRAINTS, json={"ram_warning_threshold": 0.1, "ram_critical_threshold": 0.1})
    body = served.client.get(CHECK).json()
    # Whatever runs these tests uses a tenth of its memory, or says so.
    expected = body["current_usage"]["ram_percent"] >= 10
    assert body["can_start_generation"] is not expected
    assert body["resource_status"]["ram_available"] is not expected


def worker(model: str | None = None, state: WorkerState = WorkerState.IDLE) -> WorkerInfo:
    now = datetime.now(UTC)
    return WorkerInfo("w", "host", 1, 0.0, "cuda:0", state, None, now, now, model)


def judged(usage: ResourceUsage, *workers: WorkerInfo) -> ResourceCheck:
    return check_resources(usage, workers, ResourceLimits(), "no worker")


def use(**changes: float) -> ResourceUsage:
    values = {"cpu": 0.1, "ram": 0.1, "ram_free_gb": 50.0, "vram": 0.1, "vram_free_gb": 70.0, "disk_free_gb": 100.0}
    return ResourceUsage(**(values | changes))


@pytest.mark.parametrize(
    ("usage", "resource", "blocks"),
    [
        (use(vram=0.74), None, False),
        (use(vram=0.75), Resource.VRAM, False),
        (use(vram=0.90), Resource.VRAM, True),
        (use(ram=0.75), Resource.RAM, False),
        (use(ram=0.90), Resource.RAM, True),
        (use(cpu=1.0), Resource.CPU, False),
        (use(disk_free_gb=1.9), Resource.DISK, False),
        (use(disk_free_gb=0.4), Resource.DISK, True),
    ],
)
def test_warned_at_three_quarters_and_stopped_at_nine_tenths(
    usage: ResourceUsage, resource: Resource | None, blocks: bool
) -> None:
    check = judged(usage, worker())
    assert [shortage.resource for shortage in check.shortages] == ([] if resource is None else [resource])
    assert bool(check.blocking) is blocks
    assert bool(check.warnings) is (resource is not None and not blocks)


def test_a_card_that_is_full_of_our_own_model_is_no_obstacle() -> None:
    check = judged(use(vram=0.95, vram_free_gb=4.0), worker("T2V-A14B"))
    assert check.blocking == []
    assert "part of it is held by T2V-A14B" in check.warnings[0]


def test_a_machine_without_a_card_lacks_no_vram() -> None:
    usage = ResourceUsage(cpu=0.1, ram=0.1, ram_free_gb=50.0, vram=None, vram_free_gb=None, disk_free_gb=100.0)
    assert judged(usage, worker()).shortages == ()
    assert judged(usage).blocking == ["no worker"]
