"""`wan22 queue` and `wan22 worker` as a user types them, against a real server that has no worker."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from backend.store.engine import Database
from backend.store.workers import WorkerState, WorkerStore
from tests.commands.support import invoke
from tests.support.server import LiveServer


@pytest.fixture
def tasks(idle: LiveServer) -> Iterator[list[str]]:
    """The ids of three waiting tasks, the next one first."""
    ids = [idle.submit(prompt=f"take {number}", steps=8) for number in range(3)]
    yield ids
    for task_id in ids:
        idle.client.post(f"/api/v1/queue/{task_id}/cancel")
    idle.client.post("/api/v1/queue/clear")


def run(idle: LiveServer, *words: str) -> str:
    """Run a command that succeeds; return what it prints."""
    done = invoke(*words, "--server", idle.url)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def refused(idle: LiveServer, *words: str) -> str:
    """Run a command that is refused; return what it says."""
    done = invoke(*words, "--server", idle.url)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


def order(idle: LiveServer, ids: list[str]) -> list[int]:
    """The tasks by their places in the queue, as indices of `ids`."""
    places = {task_id: idle.task(task_id).get("queue_position") or 99 for task_id in ids}
    return [ids.index(task_id) for task_id in sorted(ids, key=lambda task_id: places[task_id])]


def test_a_task_is_paused_and_resumed(idle: LiveServer, tasks: list[str]) -> None:
    assert "aused" in run(idle, "queue", "pause", tasks[1][:8])
    paused = idle.task(tasks[1])
    assert paused["status"] == "paused"
    assert paused["message"].startswith("Paused: it continues")
    listed = run(idle, "queue")
    assert "1 paused" in listed
    run(idle, "queue", "resume", tasks[1][:8])
    assert idle.task(tasks[1])["status"] == "pending"


def test_the_whole_queue_is_paused_and_says_why_nothing_starts(idle: LiveServer, tasks: list[str]) -> None:
    run(idle, "queue", "pause")
    try:
        assert "The queue is paused: no task starts until it is resumed" in run(idle, "queue")
        assert idle.task(tasks[0])["message"].startswith("The queue is paused")
    finally:
        run(idle, "queue", "resume")
    assert "The queue is paused" not in run(idle, "queue")


def test_tasks_are_moved_to_a_place_and_by_default_to_the_top(idle: LiveServer, tasks: list[str]) -> None:
    assert order(idle, tasks) == [0, 1, 2]
    run(idle, "queue", "move", tasks[2])
    assert order(idle, tasks) == [2, 0, 1]
    run(idle, "queue", "move", tasks[2], "2")
    assert order(idle, tasks) == [0, 2, 1]


def test_a_waiting_task_is_edited_and_a_wrong_value_changes_nothing(idle: LiveServer, tasks: list[str]) -> None:
    said = run(idle, "queue", "edit", tasks[0], "steps=5", "prompt=another take")
    assert said.startswith(f"{tasks[0][:8]} was changed: steps, prompt")
    assert (idle.task(tasks[0])["steps"], idle.task(tasks[0])["prompt"]) == (5, "another take")
    assert "steps must be" in refused(idle, "queue", "edit", tasks[0], "steps=many")
    assert "is not FIELD=VALUE" in refused(idle, "queue", "edit", tasks[0], "steps")
    assert idle.task(tasks[0])["steps"] == 5


def test_a_task_is_duplicated_with_changes(idle: LiveServer, tasks: list[str]) -> None:
    answer: dict[str, Any] = json.loads(
        invoke("queue", "duplicate", tasks[0], "steps=4", "--json", "--server", idle.url).stdout
    )
    tasks.append(answer["task_id"])
    copy = idle.task(answer["task_id"])
    assert (copy["prompt"], copy["steps"]) == ("take 0", 4)
    assert copy["seed"] == idle.task(tasks[0])["seed"]


def test_a_cancelled_task_is_retried_and_cleared(idle: LiveServer, tasks: list[str]) -> None:
    run(idle, "queue", "cancel", tasks[0])
    assert idle.task(tasks[0])["status"] == "cancelled"
    run(idle, "queue", "retry", tasks[0])
    assert idle.task(tasks[0])["status"] == "pending"
    run(idle, "queue", "cancel", tasks[0])
    assert run(idle, "queue", "clear") == "1 finished task was removed; the videos stay"
    assert "Task not found" in refused(idle, "queue", "retry", tasks[0])


def test_a_device_is_drained_and_resumed_by_its_name(idle: LiveServer) -> None:
    assert "worker" in refused(idle, "worker", "drain").lower(), "there is none yet"
    database = Database(idle.home / "wan22.db", checkpointer=False)
    store = WorkerStore(database)
    store.beat(f"host:{os.getpid()}:1:test", device="cpu", state=WorkerState.IDLE)
    try:
        assert run(idle, "worker", "drain", "cpu").startswith("Drained: ")
        (one,) = json.loads(invoke("worker", "list", "--json", "--server", idle.url).stdout)["workers"]
        assert (one["drained"], one["state"]) == (True, "idle")
        assert "yes" in run(idle, "worker", "list")
        run(idle, "worker", "resume", "cpu")
        (one,) = json.loads(invoke("worker", "list", "--json", "--server", idle.url).stdout)["workers"]
        assert one["drained"] is False
        assert "worker" in refused(idle, "worker", "drain", "cuda:7").lower()
    finally:
        store.remove(f"host:{os.getpid()}:1:test")
        database.close()
