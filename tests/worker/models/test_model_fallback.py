"""Clips that are not what was asked for say so everywhere: mocks, and clips of another model. Real processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect

from backend.commands.replay import NoRecord, Record
from backend.services.media.video_encoder import read_frames, read_metadata
from tests.commands.support import wan22
from tests.support.server import LiveServer, wait_for

pytestmark = pytest.mark.timeout(600)
POLICY = "/api/v1/generation/policy"
SUBMIT = "/api/v1/generation/submit"
ABSENT = {"model_type": "T2V-A14B", "resolution": "832x480", "num_frames": 5, "steps": 3, "prompt": "a red circle"}


def _finish(server: LiveServer, **body: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    answer = server.client.post(SUBMIT, json=body)
    assert answer.status_code == 200, answer.text
    task = server.wait(answer.json()["task_id"], "completed")
    video = server.client.get(f"/api/v1/outputs/{task['id']}").json()
    return answer.json() | {"task": task}, video


def _yellow(frame: np.ndarray) -> float:
    """The share of pixels in the colour of the mark."""
    red, green, blue = (frame[..., channel].astype(int) for channel in range(3))
    return float(((red > 180) & (green > 140) & (blue < 100)).mean())


@pytest.fixture
def server(live_server: Callable[..., LiveServer]) -> LiveServer:
    return live_server(WAN22_AUTO_DOWNLOAD="false")


def test_a_mock_is_marked_on_every_frame_and_in_everything_that_is_said_about_it(server: LiveServer) -> None:
    assert server.client.get(POLICY).json() == {"mode": "real", "on_model_failure": "fail", "mock_seconds": 2.0}
    refused = server.client.post(SUBMIT, json=ABSENT)
    assert (refused.status_code, refused.json()["error"]) == (409, "model_not_available")
    with connect(server.url.replace("http", "ws", 1) + "/ws", open_timeout=30, max_queue=None) as socket:
        socket.send(json.dumps({"type": "subscribe", "data": {"topic": "alerts"}}))
        body = ABSENT | {"on_model_failure": "mock"}
        answer, video = _finish(server, **body)
        alert = next(message for message in map(json.loads, socket) if message["type"] == "alert")
    assert any("mock" in note for note in answer["adjustments"])
    assert (alert["data"]["alert_type"], alert["data"]["task_id"]) == ("mock", answer["task_id"])
    task = answer["task"]
    assert (task["mock"], task.get("model_used")) == (True, None)
    assert task["mock_reason"] == video["mock_reason"]
    assert (video["mock"], video["filename"]) == (True, f"{task['id']}-MOCK.mp4")
    assert video["warnings"][0].startswith("MOCK: no model made this clip")
    (listed,) = [one for one in server.client.get("/api/v1/queue").json()["tasks"] if one["id"] == task["id"]]
    assert listed["mock"] is True

    file = server.home / "outputs" / video["filename"]
    frames = list(read_frames(file))
    assert (len(frames), frames[0].shape) == (5, (480, 832, 3))
    assert min(map(_yellow, frames)) > 0.01
    record = read_metadata(file)
    assert record is not None
    assert record["result"]["mock"] == video["mock_reason"]
    assert record["model"]["weights_sha256"] is None
    with pytest.raises(NoRecord, match="is a mock"):
        Record.read(file)


def test_mock_mode_is_switched_while_the_server_runs_and_teaches_nothing(server: LiveServer) -> None:
    quick = {"prompt": "a red circle", "steps": 2, "num_frames": 5, "model_type": "tiny-t2v-a14b"}
    switched = server.client.post(POLICY, json={"mode": "mock", "mock_seconds": 0})
    assert switched.json()["mode"] == "mock"
    _, video = _finish(server, **quick)
    assert video["mock"]
    answer, far = _finish(server, **ABSENT)
    assert far["mock"]
    assert "mock generation is on: no model makes the clip" in answer["adjustments"]
    assert server.client.post(POLICY, json={"mode": "real"}).json()["mode"] == "real"
    answer, real = _finish(server, **quick)
    assert answer.get("estimated_time_basis") != "measured", "mocks teach nothing"
    assert (real["mock"], real["filename"]) == (False, f"{real['id']}.mp4")
    assert _finish(server, **quick)[0]["estimated_time_basis"] == "measured"
    for wrong in ({"mode": "fake"}, {"mock_seconds": -1}, {"on_model_failure": "hope"}, {"what": 1}):
        assert server.client.post(POLICY, json=wrong).status_code == 422


def test_a_hub_that_is_away_is_waited_for_and_no_reason_for_a_mock(live_server: Callable[..., LiveServer]) -> None:
    server = live_server(HF_ENDPOINT="http://127.0.0.1:9")  # nothing listens there
    body = ABSENT | {"on_model_failure": "mock", "force": True}
    task = server.client.post(SUBMIT, json=body).json()["task_id"]
    waits = wait_for(
        lambda: next((one for one in [server.task(task)] if "this task waits" in (one.get("message") or "")), None),
        seconds=120,
        what="a task that waits for the hub",
    )
    assert (waits["status"], waits["attempt"]) == ("pending", 0)


def test_a_long_mock_is_cancelled_within_its_step(server: LiveServer) -> None:
    server.client.post(POLICY, json={"mode": "mock", "mock_seconds": 3600})
    task = server.submit(steps=1)
    server.wait(task, "processing")
    assert server.client.post(f"/api/v1/queue/{task}/cancel", json={}).status_code == 200
    server.wait(task, "cancelled", seconds=20)  # sooner than a worker that ignores it is replaced
    assert server.task(task)["attempt"] == 1


def test_the_command_line_takes_what_the_policy_takes(server: LiveServer, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    words = ("generate", "a red circle", "--model", "T2V-A14B", "--frames", "5", "--steps", "2", "-o", str(clip))
    env = {"WAN22_AUTO_DOWNLOAD": "false"}
    refused = wan22(*words, home=server.home, env=env)
    assert refused.returncode == 1
    assert "is not installed" in refused.stderr
    made = wan22(*words, "--on-model-failure", "mock", home=server.home, env=env)
    assert made.returncode == 0, made.stderr
    assert "no model made this clip" in made.stdout
    with pytest.raises(NoRecord, match="is a mock"):
        Record.read(clip)


def test_another_model_makes_the_clip_where_that_is_allowed_and_the_clip_says_so(server: LiveServer) -> None:
    body = ABSENT | {"on_model_failure": "other_model", "seed": 5, "num_frames": 9}
    answer, video = _finish(server, **body)
    assert answer["task"]["model_used"] == "tiny-t2v-a14b"
    assert answer["task"]["model_type"] == "T2V-A14B"
    assert (video["instead_of"], video["model"], video["mock"]) == ("T2V-A14B", "tiny-t2v-a14b", False)
    assert video["warnings"][0].startswith("tiny-t2v-a14b made this clip instead of T2V-A14B")
    assert video["generation_params"]["seed"] == 5
    assert Record.read(server.home / "outputs" / video["filename"]).request.model == "tiny-t2v-a14b"


def test_a_damaged_model_fails_its_task_unless_something_else_is_allowed(
    live_server: Callable[..., LiveServer], tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "models" / "T2V-A14B").mkdir(parents=True)
    (home / "config.json").write_text(json.dumps({"generation": {"on_model_failure": "mock", "mock_seconds": 0}}))
    server = live_server(home, WAN22_AUTO_DOWNLOAD="false")
    _, video = _finish(server, **ABSENT)
    assert video["mock"]
    strict = server.client.post(SUBMIT, json=ABSENT | {"on_model_failure": "fail"})
    assert strict.status_code >= 400
    wait_for(lambda: server.client.get("/ready").status_code == 200, seconds=60, what="a server that still works")
