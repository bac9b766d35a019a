"""The folding of events, where the database itself cannot produce the order of things."""

from __future__ import annotations

from backend.api.live.task_feed import TaskFeed
from backend.core.domain import DownloadPhase, DownloadProgress, EventType, Progress, Stage, TaskEvent, utcnow
from tests.api.support import Served


def _progress(event_id: int, task_id: str, percent: float) -> TaskEvent:
    data = {"stage": "generating", "progress": percent, "message": "", "current_step": 1, "total_steps": 4}
    return TaskEvent(event_id, task_id, event_id, EventType.PROGRESS, data, utcnow())


def test_events_older_than_the_state_read_at_the_start_take_nothing_back(served: Served) -> None:
    served.submit()
    task = served.claim()
    served.report(task, 0.5, step=2)
    board = TaskFeed([served.services.tasks.get(task.id)])
    assert board.snapshot()[0].data["progress"] == 50.0
    # A server that starts reads the number of the last event first and the tasks after it.
    assert [notice.data.get("progress") for notice in board.apply(_progress(3, task.id, 25.0))] == [50.0, 50.0]
    assert [notice.data.get("progress") for notice in board.apply(_progress(4, task.id, 75.0))] == [75.0, 75.0]


def test_ended_tasks_are_in_no_snapshot(served: Served) -> None:
    served.complete_one()
    waiting = served.submit()
    board = TaskFeed(served.services.tasks.list())
    assert [notice.data["task_id"] for notice in board.snapshot()] == [waiting]
    for event in served.services.events.after(0):
        board.apply(event)
    assert [notice.data["task_id"] for notice in board.snapshot()] == [waiting]


def test_a_newcomer_is_not_flooded_by_a_long_queue(served: Served) -> None:
    task = served.services.tasks.get(served.submit())
    board = TaskFeed()
    for number in range(1, 501):
        data = {"model": task.model, "prompt": task.prompt}
        board.apply(TaskEvent(number, f"task-{number}", 1, EventType.SUBMITTED, data, utcnow()))
    told = [notice.data["task_id"] for notice in board.snapshot()]
    assert told == [f"task-{number}" for number in range(1, 101)]


def test_a_task_that_is_handed_back_for_a_pause_says_so_to_those_who_listen_and_to_newcomers(served: Served) -> None:
    task_id = served.submit()
    board, tasks = TaskFeed(), served.services.tasks
    task = served.claim()
    news = DownloadProgress(DownloadPhase.DOWNLOADING, None, 10_000_000, 100_000_000, None, None)
    tasks.report(task_id, str(task.lease_token), Progress(Stage.DOWNLOADING_MODEL, 0.1, "Downloading", fetch=news))
    tasks.release(task_id, str(task.lease_token), "Somebody paused it")
    *before, held = [board.apply(event) for event in served.services.events.after(0)]
    assert len(before) == 3
    said = {notice.type: notice.data for notice in held}
    assert set(said) == {"task_update", "generation_progress", "download_status_change", "alert"}
    for kind in ("task_update", "generation_progress"):
        assert (said[kind]["status"], said[kind]["message"]) == ("pending", "Somebody paused it")
    change = said["download_status_change"]
    assert (change["old_status"], change["new_status"], change["downloaded_mb"]) == ("downloading", "paused", 10.0)
    restarted = TaskFeed([tasks.get(task_id)])
    assert [notice.data["message"] for notice in restarted.snapshot()] == ["Somebody paused it"]
    assert [notice.data["message"] for notice in board.snapshot()] == ["Somebody paused it"]
