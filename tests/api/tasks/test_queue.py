"""The queue routes: shapes that both generations of clients read, and what may be done in which state."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

import pytest

from backend.core.domain import Stage, StopRequest
from backend.core.errors.actions import resubmit
from backend.core.errors.generation import OutOfMemory
from tests.api.support import GOOD, SUBMIT, TINY, Served, assert_error

QUEUE = "/api/v1/queue"
COUNTS = ["total", "pending", "processing", "completed", "failed", "cancelled"]


def without_null(value: Any) -> bool:
    """Whether no field anywhere is null."""
    if isinstance(value, dict):
        return all(without_null(item) for item in value.values())
    if isinstance(value, list):
        return all(without_null(item) for item in value)
    return value is not None


def test_an_empty_queue_has_all_counters(served: Served) -> None:
    answer = served.client.get(QUEUE).json()
    assert [answer[f"{name}_tasks"] for name in COUNTS] == [0] * 6
    assert (answer["tasks"], answer["queue"]) == ([], [])
    assert "current_task" not in answer


def test_the_queue_shows_tasks_for_both_generations_of_clients(served: Served) -> None:
    first, second, third = served.submit(), served.submit(prompt="a blue ring"), served.submit()
    running = served.claim()
    served.report(running, 0.4567, step=2)
    answer = served.client.get(QUEUE).json()
    assert [answer[f"{name}_tasks"] for name in COUNTS] == [3, 2, 1, 0, 0, 0]
    assert [task["id"] for task in answer["tasks"]] == [third, second, first]  # newest first
    assert [task["id"] for task in answer["queue"]] == [third, second, first]
    assert answer["current_task"]["id"] == first == running.id
    full = answer["tasks"][2]
    assert (full["model_type"], full["resolution"], full["steps"]) == (TINY, "96x96", 20)
    assert (full["progress"], full["progress_percent"]) == (45, 45.67)
    assert isinstance(full["progress"], int)
    assert isinstance(full["lora_strength"], float)
    assert (full["stage"], full["current_step"], full["total_steps"]) == ("generating", 2, 4)
    assert full["estimated_time_remaining"] == 6.5
    assert full["estimated_time_minutes"] == 1
    assert answer["queue"][2]["model_type"] == "t2v"
    assert without_null(answer)
    for task in (*answer["tasks"], *answer["queue"]):
        assert task["created_at"].endswith("Z")
        assert datetime.fromisoformat(task["created_at"]).tzinfo is not None


@pytest.mark.parametrize(("left", "shown"), [(0.0, None), (2.99, None), (3.0, 3.0), (75.0, 75.0)])
def test_the_last_seconds_are_not_foretold(served: Served, left: float, shown: float | None) -> None:
    task_id = served.submit()
    served.report(served.claim(), 0.9, step=4, left=left)
    for answer in (
        served.client.get(f"/api/v1/queue/{task_id}").json(),
        served.client.get("/api/v1/queue").json()["tasks"][0],
    ):
        assert answer.get("estimated_time_remaining") == shown
    assert ("estimated_completion" in served.client.get(f"/api/v1/queue/{task_id}").json()) is (shown is not None)


def test_the_list_can_be_cut_and_filtered(served: Served) -> None:
    ids = [served.submit() for _ in range(3)]
    served.claim()
    assert [task["id"] for task in served.client.get(QUEUE, params={"limit": 2}).json()["tasks"]] == ids[:0:-1]
    running = served.client.get(QUEUE, params={"status_filter": "processing"}).json()
    assert [task["id"] for task in running["tasks"]] == ids[:1]
    assert running["total_tasks"] == 3


def test_paths_without_prefix_answer_the_same(served: Served) -> None:
    task_id = served.client.post("/generation/submit", json=GOOD).json()["task_id"]
    assert served.client.get("/queue").json() == served.client.get(QUEUE).json()
    assert served.client.get(f"/queue/{task_id}").json() == served.client.get(f"{QUEUE}/{task_id}").json()
    assert served.client.post(f"/queue/{task_id}/cancel", json={}).json()["status"] == "cancelled"
    assert "deleted successfully" in served.client.delete(f"/queue/{task_id}").json()["message"]


def test_one_task_says_where_it_waits_how_far_it_is_and_how_it_ended(served: Served) -> None:
    served.submit()
    task_id = served.submit(prompt="a blue ring")
    waiting = served.client.get(f"{QUEUE}/{task_id}").json()
    assert waiting["parameters"]["seed"] == waiting["seed"]
    assert (waiting["status"], waiting["queue_position"], waiting["progress"]) == ("pending", 2, 0)
    assert "output_path" not in waiting
    served.complete(served.claim())
    task = served.claim()
    running = served.client.get(f"{QUEUE}/{task_id}").json()
    assert (running["status"], running["attempt"]) == ("processing", 1)
    assert "queue_position" not in running
    served.complete(task)
    done = served.client.get(f"{QUEUE}/{task_id}").json()
    assert (done["status"], done["progress"], done["model_used"]) == ("completed", 100, TINY)
    assert done["generation_time"] == 1.25
    assert served.client.get(done["output_path"]).status_code == 200
    assert done["completed_at"] >= done["started_at"] >= done["created_at"]
    served.client.delete(f"/api/v1/outputs/{task_id}")
    assert "generation_time" not in served.client.get(f"{QUEUE}/{task_id}").json()


def _out_of_memory() -> OutOfMemory:
    return OutOfMemory("The card has 8 GB, this needs 20 GB", actions=(resubmit(num_frames=5),))


def test_a_failed_task_says_why_and_what_to_do(served: Served) -> None:
    task_id = served.submit()
    task = served.claim()
    served.report(task, 0.5, step=2)
    served.services.tasks.fail(task.id, str(task.lease_token), _out_of_memory())
    shown = served.client.get(f"{QUEUE}/{task_id}").json()
    assert (shown["status"], shown["error_code"]) == ("failed", "out_of_memory")
    assert shown["error_message"] == "The card has 8 GB, this needs 20 GB"
    assert shown["suggestions"]
    assert (shown["error_category"], shown["error_retryable"]) == ("vram_memory", False)
    assert shown["actions"] == [{"action": "resubmit", "changes": {"num_frames": 5}}]
    assert "stage" not in shown
    again = GOOD | shown["actions"][0]["changes"]
    assert served.client.post("/api/v1/generation/submit", json=again).status_code == 200
    listed = served.client.get(QUEUE).json()["queue"]
    assert shown["error_message"] in [task.get("error_message") for task in listed]


def test_a_waiting_task_is_cancelled_at_once_and_a_running_one_is_asked(served: Served) -> None:
    waiting = served.submit()
    answer = served.client.post(f"{QUEUE}/{waiting}/cancel", json={}).json()
    assert answer["message"] == "Task cancelled successfully"
    assert answer["status"] == "cancelled"
    running = served.submit()
    task = served.claim()
    answer = served.client.post(f"{QUEUE}/{running}/cancel").json()
    assert (answer["status"], "being cancelled" in answer["message"]) == ("processing", True)
    assert served.client.get(f"{QUEUE}/{running}").json()["cancel_requested"] is True
    assert served.services.tasks.heartbeat(running, str(task.lease_token), 30.0) is StopRequest.CANCEL


def test_cancelling_again_is_no_error(served: Served) -> None:
    waiting = served.submit()
    running = served.submit(priority="high")
    task = served.claim()
    answers = [served.client.post(f"{QUEUE}/{one}/cancel") for one in (waiting, waiting, running, running)]
    assert [answer.status_code for answer in answers] == [200] * 4
    served.services.tasks.acknowledge_cancel(task.id, str(task.lease_token))
    late = served.client.post(f"{QUEUE}/{running}/cancel")
    assert (late.status_code, late.json()["status"]) == (200, "cancelled")


def test_what_a_state_does_not_allow_is_409(served: Served) -> None:
    task_id = served.submit()
    body = assert_error(served.client.delete(f"{QUEUE}/{task_id}"), 409, "state_conflict")
    assert body["detail"] == "Cannot delete active task. Cancel it first."
    served.complete(served.claim())
    body = assert_error(served.client.post(f"{QUEUE}/{task_id}/cancel"), 409, "state_conflict")
    assert body["detail"] == "Cannot cancel task with status: completed"
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/events"), ("GET", "/preview")):
        body = assert_error(served.client.request(method, f"{QUEUE}/nobody{path}"), 404, "task_not_found")
        assert body["detail"] == "Task not found"


def test_clear_takes_the_finished_tasks_and_leaves_the_videos(served: Served) -> None:
    done, cancelled, waiting = served.submit(), served.submit(), served.submit()
    served.complete(served.claim())
    served.client.post(f"{QUEUE}/{cancelled}/cancel")
    answer = served.client.post(f"{QUEUE}/clear", json={}).json()
    assert answer == {"message": "Cleared 2 finished tasks", "cleared": 2}
    assert [task["id"] for task in served.client.get(QUEUE).json()["tasks"]] == [waiting]
    assert [video["id"] for video in served.client.get("/api/v1/outputs").json()["videos"]] == [done]
    assert served.client.get(f"/api/v1/outputs/{done}/video").status_code == 200
    assert_error(served.client.get(f"{QUEUE}/{done}"), 404)
    assert len(served.client.get(f"{QUEUE}/{done}/events").json()["events"]) > 2


def test_clear_spares_what_ended_after_the_look_at_the_list(served: Served) -> None:
    seen = served.complete_one()
    until = served.client.get(f"{QUEUE}/{seen}").json()["completed_at"]
    time.sleep(0.01)  # times are told in milliseconds
    later = served.complete_one()
    body = {"ended_until": until}
    assert served.client.post(f"{QUEUE}/clear", json=body).json()["cleared"] == 1
    assert [task["id"] for task in served.client.get(QUEUE).json()["tasks"]] == [later]
    assert_error(served.client.post(f"{QUEUE}/clear", json={"ended_until": "yesterday"}), 422)
    assert_error(served.client.post(f"{QUEUE}/clear", json={"until": until}), 422)
    assert served.client.get(QUEUE).json()["total_tasks"] == 1


def test_poll_is_brief(served: Served) -> None:
    long_prompt = served.submit(prompt="x" * 150)
    other = served.submit()
    served.claim()
    answer = served.client.get(f"{QUEUE}/poll").json()
    assert (answer["pending_count"], answer["processing_count"], answer["has_active_tasks"]) == (1, 1, True)
    assert [task["id"] for task in answer["active_tasks"]] == [long_prompt, other]  # running first
    assert answer["active_tasks"][0]["prompt"] == "x" * 100 + "..."
    assert without_null(answer)
    assert served.client.get(f"{QUEUE}/poll", params={"since": answer["timestamp"]}).json()["active_tasks"] == []
    served.client.post(f"{QUEUE}/{other}/cancel")
    everything = served.client.get(f"{QUEUE}/poll", params={"active_only": "false"}).json()
    assert {task["id"] for task in everything["active_tasks"]} == {long_prompt, other}
    changed = served.client.get(f"{QUEUE}/poll", params={"active_only": "false", "since": answer["timestamp"]}).json()
    assert [task["id"] for task in changed["active_tasks"]] == [other]


def test_the_preview_is_the_newest_picture_of_a_running_task(served: Served) -> None:
    task_id = served.submit()
    task = served.claim()
    body = assert_error(served.client.get(f"{QUEUE}/{task_id}/preview"), 404)
    assert "preview" in body["detail"]
    path = served.services.home.preview_of(task.id)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xd8one")
    response = served.client.get(f"{QUEUE}/{task_id}/preview")
    assert response.content == b"\xff\xd8one"
    assert response.headers["content-type"] == "image/jpeg"
    assert response.headers["cache-control"] == "no-store"
    path.write_bytes(b"\xff\xd8two")
    assert served.client.get(f"{QUEUE}/{task_id}/preview").content == b"\xff\xd8two"


def test_events_are_numbered_and_can_be_continued(served: Served) -> None:
    task_id = served.submit()
    task = served.claim()
    for step in range(3):
        served.report(task, step / 4, step=step)
    served.report(task, 0.9, stage=Stage.SAVING)
    served.complete(task)
    events = served.client.get(f"{QUEUE}/{task_id}/events").json()["events"]
    assert [event["number"] for event in events] == list(range(1, 8))
    assert [event["type"] for event in events] == ["submitted", "started", *["progress"] * 4, "completed"]
    assert events[0]["created_at"].endswith("Z")
    rest = served.client.get(f"{QUEUE}/{task_id}/events", params={"after": 5}).json()["events"]
    assert rest == events[5:]
    assert_error(served.client.get(f"{QUEUE}/{task_id}/events", params={"after": -1}), 422)


@pytest.mark.parametrize("body", [b"", b"{}", b"not json"])
def test_a_cancel_needs_no_body(served: Served, body: bytes) -> None:
    task_id = served.submit()
    response = served.client.post(f"{QUEUE}/{task_id}/cancel", content=body)
    assert response.status_code == 200


def test_a_long_queue_is_answered_in_full_counts(served: Served) -> None:
    for _ in range(51):
        assert served.client.post(SUBMIT, json=GOOD | {"steps": 4}).status_code == 200
    answer = served.client.get(QUEUE, params={"limit": 10}).json()
    assert (answer["pending_tasks"], len(answer["tasks"])) == (51, 10)
    poll = served.client.get(f"{QUEUE}/poll").json()
    assert (poll["pending_count"], len(poll["active_tasks"])) == (51, 50)
