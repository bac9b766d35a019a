"""Memory that runs out on a real server: the task is finished on a lower rung, and the receipt names the rungs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.server import LiveServer

pytestmark = pytest.mark.timeout(600)

RESIDENT, SWAP, STREAM = "resident-fp32", "expert-swap-fp32", "block-stream-fp32"
#: The worker begins by loading the default model; then come, in this order, the tasks of the test: a usual one, one of
#: another model whose load fails once, that one again, and the first one again. The points count through all of them:
#: passages 9 to 14 of a step and 7 to 10 of a chunk are the last task's, and one more would be the end of the worker.
FAULTS = ",".join(
    (
        "model.load:2=oom",
        "denoise.step:10=oom",
        "denoise.step:12=oom",
        "denoise.step:15=kill",
        "decode.chunk:8=oom",
        "decode.chunk:11=kill",
    )
)


def result_of(server: LiveServer, **changes: Any) -> dict[str, Any]:
    task_id = server.submit(**changes)
    assert server.wait(task_id, "completed", seconds=200.0)["attempt"] == 1
    output = server.client.get(f"/api/v1/outputs/{task_id}").json()
    result: dict[str, Any] = output["metadata"]["result"] | {"told": output["warnings"]}
    return result


def test_a_task_is_finished_on_a_lower_rung_wherever_memory_runs_out(live_server: Callable[..., LiveServer]) -> None:
    server = live_server(WAN22_FAULTS=FAULTS)
    usual = result_of(server)
    assert (usual["plan"], usual["fallbacks"]) == (RESIDENT, [])
    assert "plans that fit" in usual["plan_reason"], "the worker begins as the planner says"

    other = {"model_type": "tiny-ti2v-5b", "steps": 2}
    loaded = result_of(server, **other)
    assert [(one["at"], one["from"], one["to"]) for one in loaded["fallbacks"]] == [("loading", RESIDENT, SWAP)]
    again = result_of(server, **other)
    assert (again["plan"], again["fallbacks"]) == (SWAP, []), "it begins where the last one ended"
    assert "memory ran out at loading" in again["plan_reason"]
    assert again["frames_sha256"] == loaded["frames_sha256"]

    lower = result_of(server)
    assert [(one["at"], one["from"], one["to"]) for one in lower["fallbacks"]] == [
        ("step 2 (high-noise expert)", RESIDENT, SWAP),
        ("step 3 (low-noise expert)", SWAP, STREAM),
        ("decoding", STREAM, f"{STREAM} with VAE on the CPU"),
    ]
    assert lower["fallbacks"][2]["reason"] == "The device ran out of memory while decoding chunk 2"
    assert lower["plan"] == f"{STREAM} with VAE on the CPU"
    assert sum(warning.startswith("Memory ran out at") for warning in lower["told"]) == 3
    assert lower["expert_steps"] == {"high": 2, "low": 2}
    assert lower["frames_sha256"] == usual["frames_sha256"]
