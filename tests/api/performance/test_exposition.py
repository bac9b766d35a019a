"""Every metric that is documented exists and counts what happened; no label names a task."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backend.core.errors.generation import OutOfMemory
from backend.store.leases import DIED
from backend.store.workers import WorkerState
from tests.api.support import GOOD, TINY, Served, assert_error

DOCUMENT = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
#: Name -> labels, as documented.
DOCUMENTED = {
    name: set(re.findall(r"`(\w+)`", labels))
    for name, labels in re.findall(r"^\| `(wan22_\w+)` \| ([^|]*)\|", DOCUMENT, re.MULTILINE)
}
#: Gauges of what the server of this test does not have.
NOTHING_HERE = {"wan22_websocket_connections", "wan22_webhook_messages"}
RESULT: dict[str, Any] = {
    "seconds": {"load": 0.5, "denoise_high": 2.0, "denoise_low": 1.0, "decode": 0.25},
    "expert_steps": {"high": 3, "low": 5},
    "plan": "block-stream-bf16",
    "fallbacks": [{"from": "resident-bf16", "to": "block-stream-bf16", "use": "denoising"}],
}


def scraped(served: Served) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return all samples by name and labels."""
    response = served.client.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


@pytest.fixture(scope="module")
def worked(shared: Served) -> Served:
    """A finished video, a failed task, a lost attempt, and a report of a client."""
    shared.services.workers.beat("w1", device="cpu", state=WorkerState.IDLE)
    shared.submit()
    shared.complete(shared.claim(), result=RESULT)
    shared.submit()
    task = shared.claim()
    shared.services.tasks.lose(task.id, str(task.lease_token), DIED)
    task = shared.claim()
    shared.services.tasks.fail(task.id, str(task.lease_token), OutOfMemory())
    shared.client.post("/api/v1/analytics/errors", json={"reports": [{"message": "boom"}, {}]})
    return shared


def test_every_documented_metric_counts_and_no_other_exists(worked: Served) -> None:
    found = scraped(worked)
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}
    assert names == set(DOCUMENTED)
    assert len(names) > 12
    for name, labels in DOCUMENTED.items():
        series = found.get(name) or found[f"{name}_count"]
        assert {label for key in series for label, _ in key} == labels, name
        assert name in NOTHING_HERE or any(value > 0 for value in series.values()), name


def test_what_is_counted(worked: Served) -> None:
    found = scraped(worked)
    model = ("model", TINY)
    assert found["wan22_steps_total"] == {(("expert", "high"), model): 3, (("expert", "low"), model): 5}
    assert found["wan22_phase_seconds_sum"][(model, ("phase", "denoise_high"))] == 2
    assert found["wan22_leases_lost_total"] == {(): 1}
    assert found["wan22_oom_rungs_total"] == {(("rung", "block-stream-bf16"),): 1}
    outcomes = {dict(key)["outcome"]: value for key, value in found["wan22_task_seconds_count"].items()}
    assert outcomes == {"completed": 1, "failed": 1}
    assert found["wan22_queue_wait_seconds_count"] == {(): 2}
    assert found["wan22_client_reports_total"] == {(("kind", "error"),): 2}
    assert found["wan22_tasks"][(("state", "completed"),)] == 1
    assert scraped(worked)["wan22_steps_total"] == found["wan22_steps_total"]


def test_a_task_that_is_given_up_counts_its_seconds_once(served: Served) -> None:
    for _ in range(3):
        served.submit(variations=1) if served.count() == 0 else None
        task = served.claim()
        served.services.tasks.lose(task.id, str(task.lease_token), DIED)
    found = scraped(served)
    assert found["wan22_leases_lost_total"] == {(): 3}
    assert sum(found["wan22_task_seconds_count"].values()) == 1
    held, last = found["wan22_device_seconds_total"][(("model", TINY),)], sum(found["wan22_task_seconds_sum"].values())
    assert 0 <= last <= held < 60


def test_no_label_is_a_prompt_or_an_id(worked: Served) -> None:
    text = worked.client.get("/metrics").text
    assert GOOD["prompt"] not in text
    assert not [task.id for task in worked.services.tasks.list() if task.id in text]


def test_metrics_need_a_key_where_there_are_keys(served: Served) -> None:
    key = served.client.post("/api/v1/keys", json={"name": "scraper", "scopes": ["read"]}).json()["key"]
    assert_error(served.client.get("/metrics"), 401)
    served.client.headers["Authorization"] = f"Bearer {key}"
    assert "wan22_build_info" in scraped(served)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("errors", {}),
        ("errors", {"reports": "x"}),
        ("errors", {"reports": [1]}),
        ("errors", {"reports": [{}] * 101}),
        ("performance", []),
        ("journey", "x"),
    ],
)
def test_reports_that_cannot_be_read_are_refused(shared: Served, path: str, body: object) -> None:
    assert_error(shared.client.post(f"/api/v1/analytics/{path}", json=body), 422)
