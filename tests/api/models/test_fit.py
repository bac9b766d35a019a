"""Which models this machine runs: judged for every model, installed or not, with the planner's own numbers."""

from __future__ import annotations

from collections.abc import Callable

from tests.api.planning.test_estimate import ESTIMATE, profile
from tests.api.support import GOOD, Served

FIT = "/api/v1/models/fit"


def test_every_model_is_judged_by_the_planner(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(80, 256, "NVIDIA H100"))
    answer = served.client.get(FIT).json()
    assert set(answer["models"]) == {one["id"] for one in served.client.get("/api/v1/models").json()["models"]}
    large = answer["models"]["T2V-A14B"]
    assert large["verdict"] == "yes"
    plan = served.client.post(ESTIMATE, json=GOOD | {"model_type": "T2V-A14B"}).json()["plan"]
    assert (large["plan"], large["seconds"]) == (plan["name"], plan["seconds"]["value"])
    assert answer["machine"]["kind"] == "cuda"


def test_a_small_machine_runs_the_small_ones_and_says_why_not_the_others(serve: Callable[..., Served]) -> None:
    models = serve(workers_on=profile(12, 32, "NVIDIA GeForce RTX 3060")).client.get(FIT).json()["models"]
    assert models["tiny-t2v-a14b"]["verdict"] == "yes"
    verdicts = {name: one["verdict"] for name, one in models.items()}
    assert "slowly" in verdicts.values()
    for one in models.values():
        assert one["reason"]
        assert ("plan" in one) == (one["verdict"] != "no")
