"""The queue's promises, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.exc import StatementError

from backend.core.domain import EventType, Priority, Stage, StopRequest, TaskStatus, new_task_id
from backend.core.errors.actions import resubmit
from backend.core.errors.generation import GenerationFailed, OutOfMemory, WorkerStalled
from backend.core.errors.interruptions import LeaseLost
from backend.core.errors.lookups import IdempotencyConflict, OutputNotFound, StateConflict, TaskNotFound
from backend.core.paths import Home
from backend.core.requests.forms import GenerationRequest
from backend.store import engine
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.gallery.outputs import OutputStore
from backend.store.leases import Loss
from backend.store.tables import tasks
from backend.store.tasks import KEY_SECONDS, TaskStore
from tests.store.samples import LEASE, at_step, claimed, output_of, submit

DEADLINE_SECONDS = 30
BACKEND = Path(__file__).parents[2] / "backend"


def types(database: Database, task_id: str) -> list[EventType]:
    return [event.type for event in EventLog(database).of_task(task_id)]


def test_only_the_task_store_writes_the_tasks_table() -> None:
    writes = re.compile(r"\b(insert|update|delete)\(\s*tasks\s*\)")
    writers = {
        path.relative_to(BACKEND).as_posix() for path in BACKEND.rglob("*.py") if writes.search(path.read_text())
    }
    upkeep = {f"store/upkeep/{name}.py" for name in ("adoption", "retention", "salvage")}
    assert writers == {"store/tasks.py", "store/leases.py", "store/transition.py"} | upkeep
    appliers = {path.name for path in BACKEND.rglob("*.py") if "store.transition import" in path.read_text()}
    assert appliers == {"tasks.py", "leases.py", "control.py", "adoption.py", "salvage.py", "marks.py"}


def test_a_submitted_task_reads_back_unchanged(store: TaskStore) -> None:
    task = submit(store, "a teal star, naïve, 星 🌟", priority=Priority.HIGH)
    found = store.get(task.id)
    assert found == task
    assert found.status is TaskStatus.PENDING
    assert found.prompt == "a teal star, naïve, 星 🌟"
    assert found.priority == Priority.HIGH.rank
    assert (found.attempt, found.max_attempts) == (0, 3)
    assert abs(found.created_at.timestamp() - time.time()) < 5


def test_an_unknown_task_is_not_found(store: TaskStore) -> None:
    for call in (store.get, store.delete, store.request_cancel):
        with pytest.raises(TaskNotFound):
            call("no-such-task")
    assert store.queue_position("no-such-task") is None
    assert store.up_to("no-such-task") == []


def test_tasks_are_claimed_by_priority_then_age(store: TaskStore) -> None:
    low, first, second, high = (
        submit(store, priority=priority) for priority in (Priority.LOW, Priority.NORMAL, Priority.NORMAL, Priority.HIGH)
    )
    order = [high.id, first.id, second.id, low.id]
    assert [store.queue_position(task_id) for task_id in order] == [1, 2, 3, 4]
    assert [[task.id for task in store.up_to(task_id)] for task_id in order] == [order[:n] for n in (1, 2, 3, 4)]
    assert store.up_to(low.id, limit=3) == [], "too many to be worth reading"
    assert claimed(store)[0].id == high.id
    assert [task.id for task in store.up_to(second.id, limit=3)] == order[:3]  # the running one comes first
    assert [claimed(store)[0].id for _ in order[1:]] == order[1:]
    assert store.claim("w1", LEASE) is None
    assert store.queue_position(high.id) is None
    assert store.up_to(high.id) == []


def test_list_is_newest_first_and_filters(store: TaskStore) -> None:
    ids = [submit(store).id for _ in range(3)]
    claimed(store)
    assert [task.id for task in store.list()] == ids[::-1]
    assert [task.id for task in store.list(limit=2)] == [ids[2], ids[1]]
    assert [task.id for task in store.list(TaskStatus.PROCESSING)] == [ids[0]]
    assert store.counts() == dict.fromkeys(TaskStatus, 0) | {TaskStatus.PENDING: 2, TaskStatus.PROCESSING: 1}


def test_a_claim_counts_the_attempt_and_gives_a_new_token(store: TaskStore) -> None:
    submit(store)
    task, token = claimed(store, "w1")
    assert (task.status, task.attempt, task.worker_id) == (TaskStatus.PROCESSING, 1, "w1")
    assert task.started_at is not None
    store.recover_worker("w1")
    again, other = claimed(store, "w2")
    assert (again.id, again.attempt) == (task.id, 2)
    assert other != token


def test_a_zombie_cannot_write(store: TaskStore, database: Database) -> None:
    task = submit(store)
    _, old = claimed(store, "zombie")
    store.recover_worker("zombie")
    _, new = claimed(store, "w2")
    before = EventLog(database).of_task(task.id)
    for write in (
        lambda: store.check(task.id, old),
        lambda: store.heartbeat(task.id, old, LEASE),
        lambda: store.report(task.id, old, at_step(9)),
        lambda: store.complete(task.id, old, output_of(task.id)),
        lambda: store.fail(task.id, old, OutOfMemory()),
        lambda: store.acknowledge_cancel(task.id, old),
        lambda: store.release(task.id, old),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert EventLog(database).of_task(task.id) == before
    store.complete(task.id, new, output_of(task.id))
    assert store.get(task.id).status is TaskStatus.COMPLETED


def test_an_ended_task_cannot_be_written_to(store: TaskStore, database: Database) -> None:
    task = submit(store)
    _, token = claimed(store)
    store.complete(task.id, token, output_of(task.id))
    with pytest.raises(LeaseLost):
        store.complete(task.id, token, output_of(task.id))
    with pytest.raises(LeaseLost):
        store.fail(task.id, token, GenerationFailed())
    assert types(database, task.id) == [EventType.SUBMITTED, EventType.STARTED, EventType.COMPLETED]


def test_completing_records_the_output_with_the_task(store: TaskStore, database: Database) -> None:
    task = submit(store)
    _, token = claimed(store)
    store.complete(task.id, token, output_of(task.id))
    done = store.get(task.id)
    assert (done.status, done.progress, done.lease_token) == (TaskStatus.COMPLETED, 1.0, None)
    assert done.completed_at is not None
    event = EventLog(database).of_task(task.id)[-1]
    assert event.data["filename"] == f"{task.id}.mp4"
    assert event.data["generation_seconds"] == 1.5


def _out_of_memory() -> OutOfMemory:
    return OutOfMemory("no \x00 room \ud800 left", suggestions=("Fewer frames.",), actions=(resubmit(num_frames=5),))


def test_a_failure_keeps_code_message_and_advice(store: TaskStore, database: Database) -> None:
    task = submit(store)
    _, token = claimed(store)
    store.fail(task.id, token, _out_of_memory())
    failed = store.get(task.id)
    assert failed.status is TaskStatus.FAILED
    assert failed.error_code == "out_of_memory"
    assert failed.error_message == "no  room ? left"
    assert failed.error_suggestions == ("Fewer frames.",)
    assert failed.error_actions == ({"action": "resubmit", "changes": {"num_frames": 5}},)
    data = EventLog(database).of_task(task.id)[-1].data
    assert data == {
        "error": "out_of_memory",
        "message": "no  room ? left",
        "category": "vram_memory",
        "retryable": False,
        "suggestions": ["Fewer frames."],
        "actions": [{"action": "resubmit", "changes": {"num_frames": 5}}],
    }


def test_progress_is_stored_published_and_never_decreases(store: TaskStore, database: Database) -> None:
    task = submit(store)
    _, token = claimed(store)
    assert store.report(task.id, token, at_step(8)) is None
    store.report(task.id, token, at_step(4))
    store.report(task.id, token, at_step(90))
    now = store.get(task.id)
    assert (now.progress, now.step, now.stage) == (1.0, 90, "generating")
    published = [event.data for event in EventLog(database).of_task(task.id) if event.type is EventType.PROGRESS]
    assert [data["progress"] for data in published] == [40.0, 40.0, 100.0]
    assert published[0]["current_step"] == 8
    assert published[0]["total_steps"] == 20
    assert now.started_at is not None
    assert published[0]["generation_start_time"] == pytest.approx(now.started_at.timestamp(), abs=0.001)
    assert len({data["stage_start_time"] for data in published}) == 1


def test_a_silent_worker_loses_its_task(store: TaskStore, database: Database) -> None:
    task = submit(store)
    _, token = claimed(store)
    (lease,) = store.leases()
    assert (lease.task_id, lease.token, lease.worker_id) == (task.id, token, "w1")
    assert store.recover_silent([lease]) == [task.id]
    back = store.get(task.id)
    assert (back.status, back.attempt, back.worker_id, back.progress) == (TaskStatus.PENDING, 1, None, 0.0)
    lost = EventLog(database).of_task(task.id)[-1]
    assert lost.type is EventType.ATTEMPT_LOST
    assert lost.data == {"attempt": 1, "reason": "the worker stopped answering", "strikes": 1, "will_retry": True}
    with pytest.raises(LeaseLost):
        store.heartbeat(task.id, token, LEASE)
    assert store.recover_silent([lease]) == []


def test_a_heartbeat_keeps_the_task_whatever_the_clocks_say(store: TaskStore) -> None:
    task = submit(store)
    _, token = claimed(store, lease_seconds=0.0)  # run out long ago by the clock
    leases = store.leases()
    assert store.heartbeat(task.id, token, LEASE) is None
    assert store.recover_silent(leases) == []
    assert store.recover_silent([]) == []
    assert store.get(task.id).status is TaskStatus.PROCESSING


def test_attempts_without_progress_are_limited(store: TaskStore, database: Database) -> None:
    task = submit(store, max_attempts=2)
    for _ in range(2):
        _, token = claimed(store)
        store.report(task.id, token, at_step(3))
        assert store.recover_worker("w1", Loss("the worker ended with SIGSEGV", "Fatal\x00 error")) == [task.id]
    failed = store.get(task.id)
    assert (failed.status, failed.error_code, failed.attempt) == (TaskStatus.FAILED, "worker_lost", 2)
    assert failed.error_message == (
        "2 attempts in a row made no progress: the last time, the worker ended with SIGSEGV while it denoised, "
        "after step 3 of 20. Its last words: Fatal error"
    )
    assert failed.error_suggestions
    assert store.claim("w1", LEASE) is None
    *_, lost, ended = EventLog(database).of_task(task.id)
    assert (lost.type, ended.type) == (EventType.ATTEMPT_LOST, EventType.FAILED)
    assert lost.data == {
        "attempt": 2,
        "stage": "generating",
        "step": 3,
        "reason": "the worker ended with SIGSEGV",
        "last_words": "Fatal error",
        "strikes": 2,
        "will_retry": False,
    }


def test_an_attempt_that_saved_a_new_state_is_no_strike(store: TaskStore) -> None:
    task = submit(store, max_attempts=2)
    for saved in (0, 4, 4, 8):
        _, token = claimed(store)
        store.report(task.id, token, replace(at_step(saved), saved_step=saved))
        store.recover_worker("w1")
    assert store.get(task.id).status is TaskStatus.PENDING
    assert store.get(task.id).attempt == 4, "more than the limit: only one of them saved nothing new"
    for _ in range(2):
        _, token = claimed(store)
        store.report(task.id, token, replace(at_step(9), saved_step=7))  # restarted from an older state
        store.recover_worker("w1")
    failed = store.get(task.id)
    assert (failed.status, failed.attempt) == (TaskStatus.FAILED, 6)


def test_an_attempt_can_be_lost_by_a_worker_that_still_answers(store: TaskStore) -> None:
    task = submit(store, max_attempts=1)
    _, token = claimed(store)
    store.report(task.id, token, replace(at_step(1), stage=Stage.SAVING))
    store.lose(task.id, token, Loss("it hung", error=WorkerStalled))
    failed = store.get(task.id)
    assert (failed.status, failed.error_code) == (TaskStatus.FAILED, "worker_stalled")
    assert failed.error_message == "The attempt made no progress: it hung while it saved the video"
    with pytest.raises(LeaseLost):
        store.lose(task.id, token, Loss("again"))


def test_a_worker_that_the_operator_ended_costs_no_attempt(store: TaskStore, database: Database) -> None:
    task, cancelled = submit(store, max_attempts=1), submit(store)
    for _ in range(2):
        claimed(store)
    store.request_cancel(cancelled.id)
    assert store.hand_back("w1") == [task.id, cancelled.id]
    assert (store.get(task.id).status, store.get(task.id).attempt) == (TaskStatus.PENDING, 0)
    assert types(database, task.id)[-1] is EventType.RELEASED
    assert store.get(cancelled.id).status is TaskStatus.CANCELLED


def test_recovering_one_worker_leaves_the_others_alone(store: TaskStore) -> None:
    submit(store)
    submit(store)
    mine, _ = claimed(store, "dead")
    other, token = claimed(store, "alive")
    assert store.recover_worker("dead") == [mine.id]
    assert store.recover_worker("dead") == []
    assert store.heartbeat(other.id, token, LEASE) is None


def test_a_stop_by_the_operator_gives_the_attempt_back(store: TaskStore, database: Database) -> None:
    task = submit(store, max_attempts=1)
    for _ in range(3):
        _, token = claimed(store)
        store.release(task.id, token)
    assert store.get(task.id).attempt == 0
    assert store.get(task.id).status is TaskStatus.PENDING
    assert types(database, task.id)[-1] is EventType.RELEASED


def test_cancel_of_a_waiting_task_is_immediate(store: TaskStore) -> None:
    task = submit(store)
    assert store.request_cancel(task.id).status is TaskStatus.CANCELLED
    assert store.claim("w1", LEASE) is None


def test_cancel_of_a_running_task_goes_through_its_worker(store: TaskStore, database: Database) -> None:
    task = submit(store)
    _, token = claimed(store)
    for _ in range(3):
        asked = store.request_cancel(task.id)
        assert (asked.status, asked.cancel_requested) == (TaskStatus.PROCESSING, True)
    assert store.heartbeat(task.id, token, LEASE) is StopRequest.CANCEL
    assert store.check(task.id, token) is StopRequest.CANCEL
    assert store.report(task.id, token, at_step(1)) is StopRequest.CANCEL
    store.acknowledge_cancel(task.id, token)
    assert store.get(task.id).status is TaskStatus.CANCELLED
    assert types(database, task.id).count(EventType.CANCEL_REQUESTED) == 1


@pytest.mark.parametrize("end", ["died", "stopped"])
def test_a_cancelled_task_does_not_come_back_when_its_worker_dies(store: TaskStore, end: str) -> None:
    task = submit(store)
    _, token = claimed(store)
    store.request_cancel(task.id)
    if end == "died":
        store.recover_worker("w1")
    else:
        store.release(task.id, token)
    assert store.get(task.id).status is TaskStatus.CANCELLED


def test_an_ended_task_cannot_be_cancelled(store: TaskStore) -> None:
    task = submit(store)
    _, token = claimed(store)
    store.complete(task.id, token, output_of(task.id))
    with pytest.raises(StateConflict, match=r"^Cannot cancel task with status: completed$"):
        store.request_cancel(task.id)


def test_an_active_task_cannot_be_deleted(store: TaskStore) -> None:
    task = submit(store)
    with pytest.raises(StateConflict, match=r"^Cannot delete active task\. Cancel it first\.$"):
        store.delete(task.id)
    claimed(store)
    with pytest.raises(StateConflict):
        store.delete(task.id)


def test_a_deleted_task_leaves_the_queue_but_not_the_history(store: TaskStore, database: Database) -> None:
    task = submit(store)
    store.request_cancel(task.id)
    store.delete(task.id)
    with pytest.raises(TaskNotFound):
        store.get(task.id)
    with pytest.raises(TaskNotFound):
        store.delete(task.id)
    assert store.list() == []
    assert sum(store.counts().values()) == 0
    assert types(database, task.id) == [EventType.SUBMITTED, EventType.CANCELLED, EventType.DELETED]


def test_clearing_takes_ended_tasks_only_and_keeps_videos(store: TaskStore, database: Database, home: Home) -> None:
    done, cancelled, running, waiting = (submit(store) for _ in range(4))
    store.complete(done.id, claimed(store)[1], output_of(done.id))
    store.request_cancel(cancelled.id)
    claimed(store)
    assert store.clear_finished() == [done.id, cancelled.id]
    assert store.clear_finished() == []
    assert [task.id for task in store.list()] == [waiting.id, running.id]
    assert [output.task_id for output in OutputStore(database, home).list()] == [done.id]


def test_images_in_use_are_those_of_visible_tasks_and_of_videos(
    store: TaskStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PAGE_ROWS", 2)
    waiting, removed, both, plain, done = (letter * 64 for letter in "abcde")
    request = GenerationRequest.from_json(submit(store).request)
    added = {
        image: store.insert(
            new_task_id(),
            replace(request, image=image, end_image=end),
            adjustments=(),
            priority=Priority.NORMAL,
            max_attempts=3,
            fingerprint=image,
        )
        for image, end in ((done, None), (removed, None), (waiting, both))
    }
    store.request_cancel(added[removed].id)
    claimed(store)
    store.complete(added[done].id, claimed(store)[1], output_of(added[done].id))
    store.clear_finished()
    assert store.images_in_use({waiting, removed, both, plain, done}) == {waiting, both, done}
    assert store.images_in_use({removed, plain}) == set()
    assert store.images_in_use(set()) == set()


def test_the_same_key_gives_the_same_task(store: TaskStore) -> None:
    first = submit(store, "a red circle", key="k1")
    again = submit(store, "a red circle", key="k1")
    assert again.id == first.id
    assert len(store.list()) == 1
    with pytest.raises(IdempotencyConflict):
        submit(store, "another prompt", key="k1")
    assert submit(store, "a red circle", key="k2").id != first.id


@pytest.mark.parametrize("tidy", ["delete", "clear"])
def test_a_key_outlives_its_task_in_the_queue_for_a_day(store: TaskStore, database: Database, tidy: str) -> None:
    first = submit(store, "a red circle", key="k1")
    store.request_cancel(first.id)
    if tidy == "delete":
        store.delete(first.id)
    else:
        store.clear_finished()
    assert submit(store, "a red circle", key="k1").id == first.id
    with pytest.raises(IdempotencyConflict):
        submit(store, "another prompt", key="k1")
    for seconds, free in ((KEY_SECONDS - 60, False), (120, True)):
        with database.begin() as connection:
            connection.execute(update(tasks).values(deleted_at=tasks.c.deleted_at - seconds))
        assert (submit(store, "a red circle", key="k1").id != first.id) is free


def test_the_same_key_from_many_threads_creates_one_task(store: TaskStore) -> None:
    barrier = threading.Barrier(4)
    ids: list[str] = []

    def send() -> None:
        barrier.wait(DEADLINE_SECONDS)
        ids.append(submit(store, "a red circle", key="k1").id)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
    assert len(ids) == 4
    assert len(set(ids)) == 1


def test_09_five_cancels_racing_with_the_finish_end_the_task_exactly_once(store: TaskStore, database: Database) -> None:
    for _ in range(20):
        task = submit(store)
        _, token = claimed(store)
        barrier = threading.Barrier(6)

        def cancel(task_id: str = task.id, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(DEADLINE_SECONDS)
            try:
                store.request_cancel(task_id)
            except StateConflict:
                return

        threads = [threading.Thread(target=cancel) for _ in range(5)]
        for thread in threads:
            thread.start()
        barrier.wait(DEADLINE_SECONDS)
        try:
            if store.heartbeat(task.id, token, LEASE):
                store.acknowledge_cancel(task.id, token)
            else:
                store.complete(task.id, token, output_of(task.id))
        finally:
            for thread in threads:
                thread.join(DEADLINE_SECONDS)
        ends = {EventType.COMPLETED, EventType.CANCELLED, EventType.FAILED}
        assert len([event for event in types(database, task.id) if event in ends]) == 1
        assert store.get(task.id).status in (TaskStatus.COMPLETED, TaskStatus.CANCELLED)


def test_a_failing_transaction_leaves_nothing_behind(store: TaskStore, database: Database, home: Home) -> None:
    task = submit(store)
    _, token = claimed(store)
    with pytest.raises(
        (TypeError, StatementError)
    ):  # bytes are not JSON: the output's row fails after the task's was changed
        store.complete(task.id, token, replace(output_of(task.id), metadata={"raw": b"0"}))
    assert store.get(task.id).status is TaskStatus.PROCESSING
    assert types(database, task.id) == [EventType.SUBMITTED, EventType.STARTED]
    with pytest.raises(OutputNotFound):
        OutputStore(database, home).get(task.id)


def test_positions_follow_the_priority(store: TaskStore) -> None:
    made = [submit(store, "a ring", priority=one).id for one in (Priority.LOW, Priority.HIGH, Priority.NORMAL)]
    assert store.positions([*made, "unknown"]) == {made[1]: 1, made[2]: 2, made[0]: 3}
    assert store.positions(made[:1]) == {made[0]: 3}
    assert store.positions([]) == {}
