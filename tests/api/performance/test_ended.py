"""Figures of ended tasks are those of their records; a key sees its own."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from backend.core.domain import Task
from backend.core.errors.generation import OutOfMemory
from tests.api.support import TINY, Served, assert_error

PERFORMANCE = "/api/v1/performance"
MIB = 1024**2


def record(load: float = 0.5, denoise: float = 3.0, plan: str = "resident-bf16", **more: object) -> dict[str, Any]:
    """The part of a record that figures come from."""
    seconds = {"load": load, "denoise_high": denoise / 2, "denoise_low": denoise / 2, "decode": 1.0}
    return {"seconds": seconds, "plan": plan, "peak_ram_bytes": 300 * MIB, **more}


@pytest.fixture(scope="module")
def worked(shared: Served) -> tuple[Served, list[Task]]:
    """Two finished videos, a failed task, a cancelled one and a running one."""
    tasks = []
    for plan in ("resident-bf16", "block-stream-fp8 with tiled decode and text encoder on the CPU"):
        shared.submit()
        tasks.append(shared.claim())
        shared.complete(tasks[-1], result=record(plan=plan))
    shared.submit()
    tasks.append(shared.claim())
    shared.services.tasks.fail(tasks[-1].id, str(tasks[-1].lease_token), OutOfMemory())
    shared.services.tasks.request_cancel(shared.submit())
    shared.submit()
    tasks.append(shared.claim())
    return shared, tasks


def data(served: Served, path: str, **query: object) -> dict[str, Any]:
    response = served.client.get(f"{PERFORMANCE}/{path}", params=query)  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    body = response.json()
    assert set(body) == {"success", "data", "timestamp"}
    found: dict[str, Any] = body["data"]
    return found


def test_a_row_says_what_the_record_says(worked: tuple[Served, list[Task]]) -> None:
    served, tasks = worked
    rows = {row["task_id"]: row for row in data(served, "metrics")["metrics"]}
    assert len(rows) == 4
    plain, small, failed = (rows[task.id] for task in tasks[:3])
    assert plain["generation_time_seconds"] == 1.25
    assert plain["model_load_time_seconds"] == 0.5
    assert plain["peak_ram_usage_mb"] == 300
    assert "peak_vram_usage_mb" not in plain
    assert (plain["quantization_used"], plain["offload_used"], plain["optimizations_applied"]) == ("bf16", False, [])
    assert (small["quantization_used"], small["offload_used"]) == ("fp8", True)
    assert small["optimizations_applied"] == ["block-stream", "fp8", "tiled decode", "text encoder on the CPU"]
    assert (failed["success"], failed["error_category"]) == (False, "vram_memory")
    assert failed["generation_time_seconds"] >= 0
    assert "quantization_used" not in failed


def test_rows_are_filtered(worked: tuple[Served, list[Task]]) -> None:
    served, _ = worked
    assert data(served, "metrics", success_only=True)["total_metrics"] == 2
    assert data(served, "metrics", model_type=TINY)["total_metrics"] == 4
    assert data(served, "metrics", model_type="tiny-i2v-a14b")["total_metrics"] == 0
    assert data(served, "metrics", resolution="1x1")["total_metrics"] == 0
    assert_error(served.client.get(f"{PERFORMANCE}/metrics", params={"model_type": "nobody"}), 422, "unknown_model")


def test_sums_leave_cancelled_tasks_out(worked: tuple[Served, list[Task]]) -> None:
    served, _ = worked
    found = data(served, "analysis")["analysis"]
    assert found["total_tasks"] == 4
    assert found["success_rate"] == pytest.approx(2 / 3, abs=0.001)
    assert found["average_generation_time"] == 1.25
    assert found["bottleneck_analysis"]["phase_seconds"] == {
        "load": 1.0,
        "denoise_high": 3.0,
        "denoise_low": 3.0,
        "decode": 2.0,
    }
    assert found["resource_efficiency"] == pytest.approx(6 / 9, abs=0.001)
    assert [(point["tasks"], point["average_generation_time"]) for point in found["performance_trends"]] == [(4, 1.25)]
    brief = data(served, "dashboard", force_refresh=True)
    assert brief["performance_summary"] == {
        "total_operations_24h": 4,
        "success_rate": 0.667,
        "average_duration": 1.25,
        "p95_duration": 1.25,
    }
    assert brief["operations_by_type"] == {TINY: 4}
    assert brief["bottlenecks"] == ["denoise_high takes 33 % of the time", "denoise_low takes 33 % of the time"]
    report = data(served, "report", hours_back=1)
    assert report["models"][TINY]["tasks"] == 4
    assert report["figures"]["total_tasks"] == 4


def test_one_figure_over_time(worked: tuple[Served, list[Task]]) -> None:
    served, tasks = worked
    series = data(served, "metrics/model_load_time")
    assert [point["task_id"] for point in series["values"]] == [task.id for task in tasks[:2]]
    assert (series["mean"], series["minimum"], series["maximum"], series["unit"]) == (0.5, 0.5, 0.5, "seconds")
    assert data(served, "metrics/peak_vram")["count"] == 0


def test_running_tasks(worked: tuple[Served, list[Task]]) -> None:
    served, tasks = worked
    served.report(tasks[3], 0.5, step=2)
    active = data(served, "operations/active")
    assert [one["task_id"] for one in active["operations"]] == [tasks[3].id]
    assert active["operations"][0]["progress_percent"] == 50
    assert active["operations"][0]["elapsed_seconds"] >= 0


def test_an_export_has_the_same_rows(worked: tuple[Served, list[Task]]) -> None:
    served, _ = worked
    rows = data(served, "metrics")["metrics"]
    export = f"{PERFORMANCE}/export"
    assert served.client.post(export).json()["data"]["metrics"] == rows
    response = served.client.post(export, params={"format": "csv"})
    assert response.headers["content-type"].startswith("text/csv")
    lines = list(csv.DictReader(io.StringIO(response.text)))
    assert [line["task_id"] for line in lines] == [row["task_id"] for row in rows]
    assert_error(served.client.post(export, params={"format": "xml"}), 422)


def test_benchmarks_come_from_videos_of_their_size_alone(worked: tuple[Served, list[Task]]) -> None:
    served, _ = worked
    assert data(served, "benchmarks")["benchmarks"] == {
        "720p": {"target_seconds": 300.0, "limit_seconds": 450.0, "videos": 0},
        "1080p": {"target_seconds": 900.0, "limit_seconds": 1350.0, "videos": 0},
    }


def test_a_preset_is_put_in_force(shared: Served) -> None:
    served = shared
    optimize = f"{PERFORMANCE}/optimize"
    before = served.client.get("/api/v1/system/optimization").json()
    assert served.client.post(optimize, json=[]).json()["data"]["applied"] == []
    assert served.client.get("/api/v1/system/optimization").json() == before
    assert served.client.post(optimize, json=["balanced"]).json()["data"]["applied"] == ["balanced"]
    assert_error(served.client.post(optimize, json=["none"]), 404, "preset_not_found")
    assert_error(served.client.post(optimize, json=["balanced", "balanced"]), 422)


def test_a_key_sees_its_own_tasks_alone(served: Served) -> None:
    others = served.complete_one()
    key = served.client.post("/api/v1/keys", json={"name": "one", "scopes": ["generate"]}).json()
    served.client.headers["Authorization"] = f"Bearer {key['key']}"
    own = served.submit()
    assert served.client.post(f"/api/v1/queue/{own}/cancel").status_code == 200
    assert [row["task_id"] for row in data(served, "metrics")["metrics"]] == [own]
    assert data(served, "operations/active")["count"] == 0
    assert data(served, "dashboard")["performance_summary"] == {"total_operations_24h": 1}
    assert others not in served.client.get("/metrics").text
    assert_error(served.client.post(f"{PERFORMANCE}/optimize", json=[]), 403, "scope_missing")
    assert_error(served.client.post("/api/v1/system/stats/save"), 403, "scope_missing")
    assert served.client.post("/api/v1/analytics/journey", json={"id": "x"}).status_code == 200
