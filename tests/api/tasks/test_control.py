"""Pause, resume, retry, move, edit, duplicate: what each state allows, asking twice, and what clients hear."""

from __future__ import annotations

from typing import Any

import pytest

from backend.core.domain import EventType, TaskStatus
from backend.core.errors.generation import OutOfMemory
from backend.store.workers import WorkerState, WorkerStore
from tests.api.support import SOCKET, TINY, Served, assert_error
from tests.store import samples

QUEUE = "/api/v1/queue"


def post(served: Served, path: str, **body: object) -> dict[str, Any]:
    response = served.client.post(f"{QUEUE}/{path}", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def shown(served: Served, task_id: str) -> dict[str, Any]:
    answer: dict[str, Any] = served.client.get(f"{QUEUE}/{task_id}").json()
    return answer


def order(served: Served) -> list[str]:
    return samples.order(served.services.tasks)


def test_a_waiting_task_is_paused_at_once_and_keeps_its_place(served: Served) -> None:
    first, second = served.submit(), served.submit(seed=8)
    for _ in range(2):
        answer = post(served, f"{first}/pause")
        assert (answer["status"], answer["message"]) == ("paused", "Task paused")
    assert served.claim().id == second
    assert shown(served, first)["message"] == "Paused: it continues from where it is when it is resumed"
    for _ in range(2):
        assert post(served, f"{first}/resume")["status"] == "pending"
    assert served.claim().id == first
    events = [event.type for event in served.services.events.of_task(first)]
    assert events == [EventType.SUBMITTED, EventType.PAUSED, EventType.RESUMED, EventType.STARTED]


def test_a_running_task_is_asked_and_shows_how_far_it_is_while_it_is_paused(served: Served) -> None:
    served.submit()
    task = served.claim()
    served.report(task, 0.5, step=2)
    for _ in range(2):
        answer = post(served, f"{task.id}/pause")
        assert answer["status"] == "processing"
        assert "stops at its next step" in answer["message"]
    assert shown(served, task.id)["pause_requested"] is True
    served.services.tasks.acknowledge_pause(task.id, str(task.lease_token))
    paused = shown(served, task.id)
    assert (paused["status"], paused["progress"], paused["current_step"], paused["attempt"]) == ("paused", 50, 2, 0)
    assert paused["pause_requested"] is False
    post(served, f"{task.id}/resume")
    assert served.claim().attempt == 1


def test_a_pause_that_is_withdrawn_in_time_changes_nothing(served: Served) -> None:
    served.submit()
    task = served.claim()
    post(served, f"{task.id}/pause")
    assert post(served, f"{task.id}/resume")["message"] == "The task is running"
    served.services.tasks.acknowledge_pause(task.id, str(task.lease_token))  # its worker had already stopped
    assert shown(served, task.id)["status"] == "pending"


def test_a_failed_or_cancelled_task_is_retried_with_all_its_attempts(served: Served) -> None:
    failed, cancelled = served.submit(), served.submit()
    task = served.claim()
    served.services.tasks.fail(task.id, str(task.lease_token), OutOfMemory())
    post(served, f"{cancelled}/cancel")
    for task_id in (failed, cancelled):
        for _ in range(2):
            assert post(served, f"{task_id}/retry")["message"] == "Task queued again"
    again = shown(served, failed)
    assert (again["status"], again["attempt"], again["progress"]) == ("pending", 0, 0)
    assert not {"error_code", "error_message", "suggestions", "completed_at"} & again.keys()
    assert served.claim().id == failed


@pytest.mark.parametrize(
    ("status", "actions"),
    [
        ("completed", ("pause", "resume", "retry")),
        ("cancelled", ("pause", "resume")),
        ("paused", ("retry",)),
    ],
)
def test_what_a_state_does_not_allow_is_409(served: Served, status: str, actions: tuple[str, ...]) -> None:
    task_id = served.complete_one() if status == "completed" else served.submit()
    if status != "completed":
        post(served, f"{task_id}/{'cancel' if status == 'cancelled' else 'pause'}")
    for action in actions:
        error = assert_error(served.client.post(f"{QUEUE}/{task_id}/{action}"), 409, "state_conflict")
        assert error["message"] == f"Cannot {action} task with status: {status}"
    if status != "paused":
        assert_error(served.client.post(f"{QUEUE}/{task_id}/move", json={"position": 1}), 409, "state_conflict")
        assert_error(served.client.patch(f"{QUEUE}/{task_id}", json={"steps": 5}), 409, "state_conflict")


def test_unknown_tasks_are_404(served: Served) -> None:
    for action in ("pause", "resume", "retry", "duplicate"):
        assert_error(served.client.post(f"{QUEUE}/nobody/{action}"), 404, "task_not_found")
    assert_error(served.client.patch(f"{QUEUE}/nobody", json={}), 404, "task_not_found")


def test_tasks_are_moved_and_take_the_priority_of_their_neighbours(served: Served) -> None:
    low, first, second, high = (
        served.submit(priority=priority, seed=seed)
        for seed, priority in enumerate(("low", "normal", "normal", "high"), 1)
    )
    assert order(served) == [high, first, second, low]
    answer = post(served, f"{second}/move", position=2)
    assert (answer["queue_position"], answer["priority"]) == (2, "normal")
    assert order(served) == [high, second, first, low]
    assert post(served, f"{low}/move", position=1)["priority"] == "high"
    assert order(served) == [low, high, second, first]
    assert post(served, f"{low}/move", position=99)["queue_position"] == 4
    assert order(served) == [high, second, first, low]
    assert shown(served, low)["priority"] == "normal"
    last = served.submit(seed=9)
    assert order(served)[-1] == last, "what arrives later runs later"


def test_a_place_between_two_tasks_never_runs_out(served: Served) -> None:
    first, *others = (served.submit(seed=seed) for seed in range(3))
    for _ in range(60):
        others.reverse()
        post(served, f"{others[0]}/move", position=2)
        assert order(served) == [first, *others]


def test_the_order_of_a_whole_list_is_taken_and_strangers_are_ignored(served: Served) -> None:
    tasks = [served.submit(seed=seed) for seed in range(4)]
    post(served, f"{tasks[3]}/cancel")
    wanted = [tasks[2], tasks[0], tasks[1]]
    for _ in range(2):
        answer = post(served, "reorder", task_ids=[tasks[3], *wanted, "nobody"])
        assert answer["message"] == "3 waiting tasks are in the order you asked for"
        assert order(served) == wanted
    # Those that are not named keep their places.
    post(served, "reorder", task_ids=[tasks[1], tasks[2]])
    assert order(served) == [tasks[1], tasks[0], tasks[2]]
    assert served.client.post("/queue/reorder", json={"task_ids": []}).status_code == 200, "the path of older clients"


def test_an_edit_is_checked_like_a_submit_and_keeps_the_rest(served: Served) -> None:
    task_id = served.submit(steps=12, seed=7, num_frames=9)
    before = shown(served, task_id)["parameters"]
    edited = served.client.patch(f"{QUEUE}/{task_id}", json={"prompt": "a blue ring", "num_frames": 12, "steps": "6"})
    assert edited.status_code == 200, edited.text
    after = edited.json()
    assert (after["prompt"], after["steps"], after["num_frames"], after["seed"]) == ("a blue ring", 6, 13, 7)
    assert any("13" in note for note in after["adjustments"])
    same = {name: after["parameters"][name] for name in before if name not in ("prompt", "steps", "num_frames")}
    assert same == {name: before[name] for name in same}
    error = assert_error(served.client.patch(f"{QUEUE}/{task_id}", json={"steps": 1000}), 422, "invalid_request")
    assert error["details"]["field"] == "steps"
    assert shown(served, task_id)["steps"] == 6, "a refused edit changes nothing"
    last = served.services.events.of_task(task_id)[-1]
    assert (last.type, last.data["fields"]) == (EventType.EDITED, ["num_frames", "prompt", "steps"])


def test_null_is_the_models_default_and_another_model_brings_its_own(served: Served) -> None:
    task_id = served.submit(steps=12, guidance_scale=3.5)
    post(served, f"{task_id}/pause")
    edited = served.client.patch(f"{QUEUE}/{task_id}", json={"steps": None, "priority": "high"}).json()
    assert (edited["steps"], edited["priority"], edited["status"]) == (20, "high", "paused")
    assert edited["parameters"]["guidance_scale"] == 3.5
    other = served.client.patch(f"{QUEUE}/{task_id}", json={"model_type": "tiny-ti2v-5b"}).json()
    assert other["model_type"] == "tiny-ti2v-5b"
    assert "guidance_scale_2" not in other["parameters"]
    assert other["parameters"]["guidance_scale"] != 3.5


@pytest.mark.parametrize(
    "body", [{"variations": 2}, {"client_request_id": "x"}, {"dry_run": True}, {"lora_strength": 0.5}, {"colour": 1}]
)
def test_what_is_not_part_of_a_request_cannot_be_edited(served: Served, body: dict[str, object]) -> None:
    task_id = served.submit()
    assert served.client.patch(f"{QUEUE}/{task_id}", json=body).status_code == 422


def test_a_running_task_cannot_be_edited(served: Served) -> None:
    served.submit()
    task = served.claim()
    assert_error(served.client.patch(f"{QUEUE}/{task.id}", json={"steps": 5}), 409, "state_conflict")


def test_a_task_is_duplicated_in_any_state(served: Served) -> None:
    done = served.complete_one()
    before = shown(served, done)["parameters"]
    copy = served.client.post(f"{QUEUE}/{done}/duplicate").json()
    assert copy["task_id"] != done
    assert shown(served, copy["task_id"])["parameters"] == before
    other = post(served, f"{done}/duplicate", seed=None, steps=9)
    assert other["parameters"]["steps"] == 9
    assert other["parameters"]["seed"] != before["seed"]


def test_a_paused_queue_starts_nothing_says_so_and_outlives_the_process(served: Served) -> None:
    task_id = served.submit()
    for now in (False, True):
        assert post(served, "pause", now=now)["paused"] is True
    assert served.services.tasks.claim("w", 60.0) is None
    listed = served.client.get(QUEUE).json()
    assert listed["paused"] is True
    assert listed["tasks"][0]["message"] == "The queue is paused: no task starts until it is resumed"
    (hold,) = served.services.tasks.holds()
    assert hold.interrupts is True
    for _ in range(2):
        assert post(served, "resume")["paused"] is False
    assert served.client.get(QUEUE).json()["paused"] is False
    assert served.claim().id == task_id
    assert served.client.post(f"{QUEUE}/pause").status_code == 200, "without a body, too"


def test_each_waiting_task_has_a_reason(served: Served) -> None:
    first, second = served.submit(), served.submit(seed=8)
    assert shown(served, first)["message"].startswith("No worker is connected")
    register(served, WorkerState.BUSY)
    assert shown(served, first)["message"] == "Next in the queue: it starts when a worker is free"
    assert shown(served, second)["message"] == "1 task runs before it"
    register(served, WorkerState.YIELDING, "Outside its hours")
    assert shown(served, second)["message"] == "Outside its hours: this task waits, and starts automatically"


def register(served: Served, state: WorkerState, detail: str | None = None) -> None:
    workers: WorkerStore = served.services.workers
    workers.beat("w", device="cpu", state=state, detail=detail)


def test_a_device_is_drained_and_resumed(served: Served) -> None:
    task_id = served.submit()
    assert_error(served.client.post("/api/v1/workers/drain", json={}), 404, "worker_not_found")
    register(served, WorkerState.IDLE)
    (worker,) = served.client.get("/api/v1/workers").json()["workers"]
    assert worker["drained"] is False
    for name in ("cpu", worker["device"], None):
        answer = served.client.post("/api/v1/workers/drain", json={"device": name})
        assert answer.json()["devices"] == [worker["device"]]
    assert served.client.get("/api/v1/workers").json()["workers"][0]["drained"] is True
    assert served.services.tasks.claim("w", 60.0) is None
    assert shown(served, task_id)["message"] == "Every device is drained: no task starts until one is resumed"
    other = served.services.tasks.claim("elsewhere", 60.0)
    assert other is not None
    assert other.id == task_id, "only this device is drained"
    assert served.client.post("/api/v1/workers/resume", json={}).json()["devices"] == [worker["device"]]
    assert served.services.tasks.holds() == []


def test_clients_hear_of_every_change(served: Served) -> None:
    with served.client.websocket_connect(SOCKET) as socket:
        assert socket.receive_json()["type"] == "connection_established"
        socket.send_json({"type": "subscribe", "data": {"topic": "queue_updates"}})
        task_id = served.submit()
        post(served, f"{task_id}/pause")
        post(served, f"{task_id}/resume")
        served.client.patch(f"{QUEUE}/{task_id}", json={"steps": 5})
        post(served, f"{task_id}/cancel")
        post(served, f"{task_id}/retry")
        post(served, "pause")
        states, paused = [], False
        while not paused or states[-1][0] != "pending":  # the retried task may be told after the pause
            message = socket.receive_json()
            if message["type"] == "task_update":
                states.append((message["data"]["status"], message["data"]["message"], message["data"]["model_type"]))
            paused = message["type"] == "queue_update" and message["data"]["paused"]
        waiting = "Waiting in the queue"
        assert states == [
            (status, text, TINY)
            for status, text in (
                ("pending", waiting),
                ("paused", "Paused"),
                ("pending", waiting),
                ("pending", "Edited"),
                ("cancelled", "Task cancelled"),
                ("pending", waiting),
            )
        ]
        assert served.services.tasks.counts()[TaskStatus.PENDING] == 1
