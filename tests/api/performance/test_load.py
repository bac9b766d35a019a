"""The load over time, and whether a page may call."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.api.support import Served, assert_error
from tests.support.server import wait_for

HISTORY = "/api/v1/system/stats/history"
SAVE = "/api/v1/system/stats/save"


def test_a_saved_sample_is_in_the_history(served: Served) -> None:
    assert served.client.get(HISTORY).json()["total_count"] == 0
    saved = served.client.post(SAVE).json()
    answer = served.client.get(HISTORY, params={"hours": 0.083}).json()
    assert answer["stats"] == [saved["stats"]]
    assert answer["total_count"] == 1
    assert answer["time_range"]["hours"] == 0.083
    assert answer["time_range"]["start"] < saved["stats"]["timestamp"] <= answer["time_range"]["end"]
    past = served.client.get("/api/v1/performance/resources/history", params={"sample_limit": 5}).json()
    assert past["data"]["samples"] == answer["stats"]


def test_samples_are_taken_at_an_interval(serve: Callable[..., Served]) -> None:
    served = serve(samples_seconds=0.05)
    wait_for(lambda: served.client.get(HISTORY).json()["total_count"], seconds=20, what="a sample")


def test_without_an_interval_nothing_is_sampled(serve: Callable[..., Served]) -> None:
    served = serve(samples_seconds=0)
    components = served.client.get("/api/v1/models/integration/status").json()["components"]
    assert components["performance"]["message"] == "The load is not recorded"


@pytest.mark.parametrize("hours", ["0", "-1", "169", "nan", "x"])
def test_a_period_outside_its_limits_is_refused(shared: Served, hours: str) -> None:
    assert_error(shared.client.get(HISTORY, params={"hours": hours}), 422, "invalid_request")


def test_what_is_in_use_now(shared: Served) -> None:
    status = shared.client.get("/api/v1/performance/status").json()
    assert status["success"] is True
    now = status["data"]
    assert 0 <= now["cpu_usage_percent"] <= 100
    assert now["ram_usage_mb"] > 0
    assert now["ram_available_mb"] > 0
    assert 0 < now["disk_usage_percent"] <= 100
    assert now["active_tasks"] == 0


def test_a_page_learns_whether_it_may_call(serve: Callable[..., Served]) -> None:
    served = serve(cors_origins=["https://studio.example"])
    validate, test = "/api/v1/system/cors/validate", "/api/v1/system/cors/test"

    def judged(origin: str | None) -> tuple[bool, bool, bool]:
        headers = {} if origin is None else {"Origin": origin}
        answer = served.client.get(validate, headers=headers).json()
        assert (answer["errors"] == []) is answer["cors_valid"]
        assert (served.client.post(test, headers=headers).status_code == 200) is answer["cors_valid"]
        return answer["cors_valid"], answer["diagnostics"]["same_origin"], answer["diagnostics"]["origin_listed"]

    assert judged(None) == (True, False, False)
    assert judged("http://127.0.0.1:8000") == (True, True, False)
    assert judged("https://STUDIO.example") == (True, False, True)
    assert judged("https://elsewhere.example") == (False, False, False)
    assert served.client.get(validate).json()["configuration"]["allowed_origins"] == ["https://studio.example"]
