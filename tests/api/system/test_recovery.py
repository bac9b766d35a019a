"""What is wrong, what is done about it, and taking it back: the routes of recovery and the monitor behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from backend.core.errors.base import WanError
from backend.core.errors.generation import UnexpectedFailure
from backend.core.errors.models import ModelDamaged
from backend.core.errors.requests import LoraInvalid
from backend.core.planning.hardware import GIB, Gpu
from backend.services.system.findings import STUCK_SECONDS, FailureType, RecoveryAction
from backend.services.system.host_stats import HostReading
from backend.services.system.recovery import BUDGET
from backend.store.tables import database_now, events
from backend.store.workers import WorkerState, WorkerWish
from tests.api.support import Served, assert_error

RECOVERY = "/api/v1/recovery"
WORKER = "host:1:1:test"


def get(served: Served, path: str) -> dict[str, Any]:
    answer = served.client.get(f"{RECOVERY}/{path}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def trigger(served: Served, failure: str, **context: str) -> dict[str, Any]:
    answer = served.client.post(f"{RECOVERY}/trigger", json={"failure_type": failure, "context": context})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def beat(served: Served, state: WorkerState = WorkerState.IDLE) -> WorkerWish | None:
    """Let a worker say that it lives, and return what it is asked; it is this process."""
    return served.services.workers.beat(WORKER, device="cpu", state=state)


def fail(served: Served, error: WanError) -> None:
    served.submit()
    task = served.claim()
    served.services.tasks.fail(task.id, str(task.lease_token), error)


def names(served: Served) -> list[str]:
    return [one["name"] for one in get(served, "health")["findings"]]


def show_card(served: Served, monkeypatch: pytest.MonkeyPatch, **facts: Any) -> None:
    """Let the machine have a card with these readings."""
    card = Gpu(0, "NVIDIA H100", 80 * GIB, GIB, 7.0, (9, 0), **facts)
    reading = HostReading(1.0, 1.0, 24.0, 4.0, 10.0, (card,), 100.0)
    monkeypatch.setattr(served.services.stats, "read", lambda: reading)


def test_every_word_of_the_vocabulary_has_a_meaning(shared: Served) -> None:
    words = get(shared, "actions")
    assert set(words["failure_types"]) == set(words["failure_type_descriptions"]) == set(FailureType)
    assert set(words["recovery_actions"]) == set(words["recovery_action_descriptions"]) == set(RecoveryAction)


def test_a_healthy_server_says_so(served: Served) -> None:
    beat(served)
    found = get(served, "health")
    assert (found["overall_status"], found["findings"], found["recommendations"]) == ("healthy", [], [])
    assert found["model_loading_functional"] is True
    status = get(served, "status")
    assert status["recovery_statistics"] == {
        "total_attempts": 0,
        "success_rate": 0.0,
        "average_recovery_time": 0.0,
        "failure_types": {},
        "recovery_actions": {},
    }
    assert (status["mock_generation_enabled"], status["degraded_mode_active"]) == (False, False)
    assert status["current_health_status"]["overall_status"] == "healthy"


@pytest.mark.parametrize("body", [{}, {"failure_type": "bad luck"}, {"failure_type": 3}])
def test_an_unknown_failure_is_refused(shared: Served, body: dict[str, Any]) -> None:
    answer = shared.client.post(f"{RECOVERY}/trigger", json=body)
    assert answer.status_code in (400, 422)
    if "3" not in str(body):
        assert_error(answer, 400, "unknown_recovery")


def test_mock_generation_is_switched_on_shown_and_taken_back(served: Served) -> None:
    done = trigger(served, "generation_pipeline_error", action="fallback_to_mock")
    assert (done["success"], done["action"]) == (True, "fallback_to_mock")
    status = get(served, "status")
    assert (status["mock_generation_enabled"], status["degraded_mode_active"]) == (True, True)
    (shown,) = status["recent_actions"]
    assert (shown["automatic"], shown["reversible"], shown["reason"]) == (False, True, "asked for through the API")
    again = trigger(served, "generation_pipeline_error", action="fallback_to_mock")
    assert (again["success"], again["message"]) == (False, "That is in force already")
    reset = served.client.post(f"{RECOVERY}/reset").json()
    assert [one["action"] for one in reset["actions"]] == ["fallback_to_mock"]
    status = get(served, "status")
    assert (status["mock_generation_enabled"], status["degraded_mode_active"]) == (False, False)
    assert status["recovery_statistics"]["total_attempts"] == 2
    assert status["recovery_statistics"]["success_rate"] == 0.5
    assert served.client.post(f"{RECOVERY}/reset").json()["actions"] == []


def test_what_somebody_changed_since_is_not_taken_back(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    show_card(served, monkeypatch)
    assert trigger(served, "vram_exhaustion")["message"] == "Plans may use 68 GiB of the card, 80.0 GiB before"
    assert trigger(served, "vram_exhaustion")["success"] is True
    assert served.services.optimization.current().max_vram_usage_gb == 57.8
    served.services.optimization.change({"max_vram_usage_gb": 40.0})
    served.client.post(f"{RECOVERY}/reset")
    assert served.services.optimization.current().max_vram_usage_gb == 40.0


@pytest.mark.parametrize(
    ("failure", "context", "sentence"),
    [
        ("vram_exhaustion", {}, "There is no card whose memory could be limited"),
        ("network_error", {}, "No model is damaged, and no download has failed"),
        ("generation_pipeline_error", {}, "No worker is there to be asked"),
        ("vram_exhaustion", {"action": "enable_cpu_offload"}, "That is in force already"),
        ("model_loading_failure", {"model": "no such model"}, "Invalid model type"),
    ],
)
def test_what_cannot_be_done_is_recorded_with_its_reason(
    served: Served, failure: str, context: dict[str, str], sentence: str
) -> None:
    done = trigger(served, failure, **context)
    assert done["success"] is False
    assert sentence in done["message"]
    assert get(served, "status")["recent_actions"][0]["message"] == done["message"]


def test_nobodys_request_is_ever_reduced(shared: Served) -> None:
    assert trigger(shared, "vram_exhaustion", action="reduce_generation_params")["success"] is False


def test_a_worker_is_asked_once(served: Served) -> None:
    beat(served)
    assert trigger(served, "generation_pipeline_error")["message"].startswith("1 worker was asked to restart")
    assert (beat(served), beat(served)) == (WorkerWish.RESTART, None)
    trigger(served, "system_resource_error", worker_id=WORKER)
    assert beat(served) is WorkerWish.UNLOAD
    assert trigger(served, "system_resource_error", worker_id="another")["success"] is False


def test_lasting_failures_are_a_finding_that_is_treated_within_a_budget(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.services.system.health_monitor.AGAIN_SECONDS", 0.0)
    alerts: list[dict[str, Any]] = []
    monkeypatch.setattr(served.services.monitor, "_alert", alerts.append)
    beat(served)
    served.complete_one()
    for _ in range(3):
        fail(served, UnexpectedFailure())
    monitor = served.services.monitor
    (finding,) = monitor.look().findings
    assert finding.name == "failures:generation_pipeline_error"
    assert finding.sentence == "3 of the 4 tasks of the last hour failed, most of them with `unexpected_failure`"
    assert [one["alert_type"] for one in alerts] == ["health"]
    for _ in range(3):
        assert names(served) == [finding.name]
    assert served.services.recovery.history() == [], "one look could be chance, and to ask does nothing"
    for _ in range(BUDGET + 2):
        monitor.look()
    done = served.services.recovery.history()
    assert [(one.action, one.automatic, one.succeeded) for one in done] == [("restart_pipeline", True, True)] * BUDGET
    assert [one["alert_type"] for one in alerts] == ["health"] + ["recovery"] * BUDGET
    assert beat(served) is WorkerWish.RESTART


def test_nothing_is_done_automatically_where_that_is_turned_off(serve: Callable[..., Served]) -> None:
    served = serve(auto_recovery=False)
    beat(served)
    for _ in range(3):
        fail(served, UnexpectedFailure())
    for _ in range(3):
        served.services.monitor.look()
    assert served.services.recovery.history() == []
    assert get(served, "status")["recovery_system_active"] is False


def test_the_cause_decides_about_the_remedy(served: Served) -> None:
    for _ in range(4):
        fail(served, LoraInvalid())
    assert names(served) == [], "requests that are wrong are nobody's failure"
    for _ in range(3):
        fail(served, ModelDamaged())
    (finding,) = get(served, "health")["findings"]
    assert (finding["failure_type"], finding["action"]) == ("model_loading_failure", "retry_model_download")


def test_a_queue_that_stands_still_beside_an_idle_worker_is_critical(served: Served) -> None:
    beat(served)
    served.submit()
    assert names(served) == []
    with served.services.tasks._database.begin() as connection:
        connection.execute(update(events).values(created_at=database_now() - STUCK_SECONDS - 1))
    found = get(served, "health")
    assert (found["overall_status"], [one["action"] for one in found["findings"]]) == ("critical", ["restart_pipeline"])
    beat(served, WorkerState.BUSY)
    assert names(served) == []


def test_a_missing_folder_is_critical(served: Served) -> None:
    served.services.home.outputs.rmdir()
    found = get(served, "health")
    assert found["overall_status"] == "critical"
    assert "outputs" in found["issues"][0]


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"temperature": 91}, "heat:0"),
        ({"temperature": 60, "slowed_by_heat": True}, "slow:0"),
        ({"temperature": 60, "ecc_errors": 2}, "ecc:0"),
        ({"temperature": 60}, None),
    ],
)
def test_a_card_in_trouble_is_a_finding(
    served: Served, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], name: str | None
) -> None:
    show_card(served, monkeypatch, **facts)
    assert names(served) == ([] if name is None else [name])
