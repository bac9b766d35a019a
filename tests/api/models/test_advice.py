"""What the models were used for, and what is suggested when one of them cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from huggingface_hub import constants

from backend.core.errors.generation import GenerationFailed
from backend.models.folder.manager import EMBEDDED_MODELS
from tests.api.planning.test_estimate import ESTIMATE, install, profile
from tests.api.support import GOOD, SUBMIT, TINY, Served, assert_error
from tests.support.hub import StandIn, repository_files, stand_in

ANALYTICS = "/api/v1/models/analytics"
SUGGEST = "/api/v1/models/fallback/suggest"


def test_nothing_was_used_yet(served: Served) -> None:
    body = served.client.get(ANALYTICS).json()
    assert body["system_analytics"] == {"total_uses": 0, "average_uses_per_day": 0.0, "active_models": 0}
    assert body["model_analytics"] == {}
    assert body["time_period"]["days"] == 30


def test_tasks_that_ended_are_counted_by_model_also_after_they_were_deleted(served: Served) -> None:
    done = served.complete_one()
    served.complete_one()
    served.submit()
    task = served.claim()
    served.services.tasks.fail(task.id, str(task.lease_token), GenerationFailed())
    cancelled = served.submit()
    served.client.post(f"/api/v1/queue/{cancelled}/cancel", json={})
    served.submit(model_type="tiny-ti2v-5b")  # waits: no use yet
    served.client.delete(f"/api/v1/queue/{done}")
    body = served.client.get(ANALYTICS, params={"time_period_days": 4}).json()
    assert list(body["model_analytics"]) == [TINY]
    model = body["model_analytics"][TINY]
    assert [model[name] for name in ("total_uses", "completed", "failed", "cancelled")] == [4, 2, 1, 1]
    assert model["success_rate"] == pytest.approx(2 / 3, abs=1e-4)
    assert (model["average_generation_time"], model["uses_per_day"]) == (1.25, 1.0)
    whole = body["system_analytics"]
    assert (whole["most_used_model"], whole["total_uses"], whole["average_uses_per_day"]) == (TINY, 4, 1.0)
    assert body["time_period"]["start_date"] < model["last_used"] <= body["time_period"]["end_date"]


@pytest.mark.parametrize("days", [0, -1, 3651, "soon"])
def test_a_period_that_is_none_is_refused(shared: Served, days: object) -> None:
    assert_error(shared.client.get(ANALYTICS, params={"time_period_days": days}), 422)


def suggest(served: Served, model: str = "T2V-A14B", **more: object) -> dict[str, Any]:
    answer = served.client.post(SUGGEST, json={"requested_model": model} | more)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_model_that_is_here_and_fits_is_simply_used(served: Served) -> None:
    body = suggest(served, TINY)
    strategy = body["fallback_strategy"]
    assert (strategy["strategy_type"], strategy["can_queue_request"]) == ("queue_and_wait", True)
    assert body["alternative_suggestion"] is body["wait_time_estimate"] is None


def test_another_model_that_is_here_serves_instead(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(80, 256, "NVIDIA H100"), auto_download=False)
    install(served, "TI2V-5B")
    body = suggest(served, resolution="1280x704")
    other, strategy = body["alternative_suggestion"], body["fallback_strategy"]
    assert (strategy["strategy_type"], strategy["can_queue_request"]) == ("alternative_model", False)
    assert (other["suggested_model"], other["compatibility_score"]) == ("TI2V-5B", 1.0)
    assert other["suggested_model"] == strategy["alternative_model"]
    assert 0 < other["performance_difference"] < 1  # five billion parameters against two times fourteen
    assert "estimated_quality_difference" not in other  # nobody measured it
    assert assert_error(served.client.post(SUBMIT, json=GOOD | {"model_type": "T2V-A14B"}), 409)
    taken = GOOD | {"model_type": other["suggested_model"], "resolution": "1280x704"}
    assert served.client.post(SUBMIT, json=taken).status_code == 200


def test_a_miniature_is_no_equal_and_says_so(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(80, 256, "NVIDIA H100"))
    other = suggest(served, resolution="1280x704")["alternative_suggestion"]
    assert other["suggested_model"].startswith("tiny-")
    assert other["compatibility_score"] == pytest.approx(0.33)
    assert "miniature" in other["reason"]
    best = suggest(served, quality="high")["fallback_strategy"]
    assert (best["strategy_type"], "models/download" in best["recommended_action"]) == ("download_and_retry", True)


def test_what_does_not_fit_is_made_smaller(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(8, 32))
    install(served, "TI2V-5B")
    strategy = suggest(served, "TI2V-5B")["fallback_strategy"]
    fitting = served.client.post(ESTIMATE, json=GOOD | {"model_type": "TI2V-5B"}).json()["would_fit"]
    assert strategy["strategy_type"] == "reduce_requirements"
    assert fitting["resolution"] in strategy["recommended_action"]


def test_a_model_that_no_size_of_fits_gives_way_to_another(serve: Callable[..., Served]) -> None:
    strategy = suggest(serve(workers_on=profile(8, 8)))["fallback_strategy"]
    assert strategy["strategy_type"] == "alternative_model"
    assert "does not fit" in strategy["user_message"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"requested_model": "sora"},
        {"requested_model": TINY, "resolution": "large"},
        {"requested_model": TINY, "quality": "best"},
        {"requested_model": TINY, "max_wait_minutes": -1},
        {},
    ],
)
def test_what_is_no_wish_is_refused(shared: Served, wrong: dict[str, Any]) -> None:
    assert_error(shared.client.post(SUGGEST, json=wrong), 422)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with stand_in(repository_files(EMBEDDED_MODELS / TINY)) as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.endpoint)
        template = f"{running.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield running


def test_a_download_that_runs_can_be_waited_for(hub: StandIn, serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(80, 256, "NVIDIA H100"))
    hub.hold(4_000_000)
    assert served.client.post("/api/v1/models/download", json={"model_type": "T2V-A14B"}).status_code == 200
    assert hub.held.wait(60)
    told = served.client.get("/api/v1/models/download/progress/T2V-A14B").json()
    both = suggest(served)
    assert both["fallback_strategy"]["strategy_type"] == "hybrid_approach"
    assert both["alternative_suggestion"]["suggested_model"].startswith("tiny-")
    wait = both["wait_time_estimate"]
    assert (wait is None) is ("eta_seconds" not in told)
    assert suggest(served, quality="high")["fallback_strategy"]["strategy_type"] == "queue_and_wait"
    assert suggest(served, speed="high")["fallback_strategy"]["strategy_type"] == "alternative_model"
    assert suggest(served, max_wait_minutes=0)["fallback_strategy"]["strategy_type"] == "alternative_model"
    hub.go_on()
