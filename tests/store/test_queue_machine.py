"""Random histories of a queue, compared with a model of it after every step, on SQLite and PostgreSQL.

Workers claim, die, come back as zombies and are stopped; users submit, cancel, delete, pause downloads. No task may
be lost, a lease is valid only while it is the newest, ended tasks never change, and the event log has no gaps.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import delete, func, select

from backend.core.domain import TERMINAL, Priority, Task, TaskEvent, TaskStatus
from backend.core.errors.generation import GenerationFailed
from backend.core.errors.interruptions import LeaseLost
from backend.core.errors.lookups import StateConflict, TaskNotFound
from backend.store.download_orders import DownloadOrders
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.tables import download_orders, events, outputs, tasks
from backend.store.tasks import TaskStore
from tests.store.samples import at_step, output_of, submit

pytestmark = pytest.mark.timeout(300)
WORKERS = ("a", "b")
MODELS = ("tiny-t2v-a14b", "T2V-A14B")
ENDED_AT_ONCE, LONG = 0.0, 300.0


@dataclass
class Expected:
    """What the model knows of one task."""

    priority: int
    model: str
    status: TaskStatus = TaskStatus.PENDING
    attempt: int = 0
    max_attempts: int = 2
    cancel: bool = False
    worker: str = ""
    token: str = ""
    expired: bool = False
    deleted: bool = False


class QueueMachine(RuleBasedStateMachine):
    """The rules are actions of users and workers; the invariants are the store's promises."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        with database.begin() as connection:
            for table in (events, outputs, tasks, download_orders):
                connection.execute(delete(table))
        self.database = database
        self.store = TaskStore(database)
        self.orders = DownloadOrders(database)
        self.paused: set[str] = set()
        self.log = EventLog(database)
        self.model: dict[str, Expected] = {}  # in order of submission
        self.leases: list[tuple[str, str]] = []  # every lease ever given: task and token
        self.frozen: dict[str, Task] = {}
        self.seen = 0  # the id of the last event read; the log is empty
        self.numbers: dict[str, int] = {}

    @rule(priority=st.sampled_from(Priority), model=st.sampled_from(MODELS))
    def submit(self, priority: Priority, model: str) -> None:
        task = submit(self.store, priority=priority, max_attempts=2, model=model)
        self.model[task.id] = Expected(priority.rank, model)

    @rule(model=st.sampled_from(MODELS))
    def pause_or_resume(self, model: str) -> None:
        if model in self.paused:
            self.orders.resume(model)
        else:
            self.orders.pause(model, wished=False)
        self.paused ^= {model}

    @rule(
        worker=st.sampled_from(WORKERS),
        seconds=st.sampled_from([ENDED_AT_ONCE, LONG]),
        downloads=st.booleans(),
    )
    def claim(self, worker: str, seconds: float, downloads: bool) -> None:
        waiting = self._in_order(self.paused if downloads else set())
        task = self.store.claim(worker, seconds, downloads=downloads)
        assert (task.id if task else None) == (waiting[0] if waiting else None)
        if task is not None:
            expected = self.model[task.id]
            expected.status, expected.worker, expected.expired = TaskStatus.PROCESSING, worker, seconds == ENDED_AT_ONCE
            expected.attempt += 1
            expected.token = task.lease_token or ""
            assert (task.id, expected.token) not in self.leases
            self.leases.append((task.id, expected.token))

    def _in_order(self, paused: set[str]) -> list[str]:
        """The ids of the ready tasks, the next one first."""
        ready = {key: e for key, e in self.model.items() if e.status == "pending" and e.model not in paused}
        return [key for _, _, key in sorted((-e.priority, i, key) for i, (key, e) in enumerate(ready.items()))]

    @rule(model=st.sampled_from(MODELS))
    def model_is_complete(self, model: str) -> None:
        self.orders.remove(model)
        self.paused -= {model}

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        deed=st.sampled_from(["heartbeat", "report", "complete", "fail", "cancelled", "release", "held"]),
    )
    def work(self, data: st.DataObject, deed: str) -> None:
        task_id, token = data.draw(st.sampled_from(self.leases), "lease")
        expected = self.model[task_id]
        deeds = {
            "heartbeat": lambda: self.store.heartbeat(task_id, token, LONG),
            "report": lambda: self.store.report(task_id, token, at_step(data.draw(st.integers(0, 20), "step"))),
            "complete": lambda: self.store.complete(task_id, token, output_of(task_id)),
            "fail": lambda: self.store.fail(task_id, token, GenerationFailed()),
            "cancelled": lambda: self.store.acknowledge_cancel(task_id, token),
            "release": lambda: self.store.release(task_id, token),
            "held": lambda: self.store.release(task_id, token, "paused"),
        }
        if expected.status is not TaskStatus.PROCESSING or expected.token != token:
            with pytest.raises(LeaseLost):
                deeds[deed]()
            return
        before = self.store.get(task_id).progress
        answer = deeds[deed]()
        if deed in ("heartbeat", "report"):
            assert answer is expected.cancel
            assert self.store.get(task_id).progress >= before
            expected.expired = expected.expired and deed != "heartbeat"
        elif deed in ("release", "held") and not expected.cancel:
            expected.status, expected.attempt = TaskStatus.PENDING, expected.attempt - 1
        else:
            ends = {"complete": TaskStatus.COMPLETED, "fail": TaskStatus.FAILED}
            expected.status = ends.get(deed, TaskStatus.CANCELLED)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(list(self.model)), "task")
        expected = self.model[task_id]
        if expected.deleted:
            with pytest.raises(TaskNotFound):
                self.store.request_cancel(task_id)
        elif expected.status is TaskStatus.CANCELLED:
            assert self.store.request_cancel(task_id).status is TaskStatus.CANCELLED
        elif expected.status in TERMINAL:
            with pytest.raises(StateConflict):
                self.store.request_cancel(task_id)
        else:
            self.store.request_cancel(task_id)
            if expected.status is TaskStatus.PENDING:
                expected.status = TaskStatus.CANCELLED
            expected.cancel = True

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(list(self.model)), "task")
        expected = self.model[task_id]
        if expected.deleted:
            with pytest.raises(TaskNotFound):
                self.store.delete(task_id)
        elif expected.status not in TERMINAL:
            with pytest.raises(StateConflict):
                self.store.delete(task_id)
        else:
            self.store.delete(task_id)
            expected.deleted = True

    @rule(worker=st.sampled_from(WORKERS))
    def worker_dies(self, worker: str) -> None:
        self._lost(self.store.recover_worker(worker), lambda expected: expected.worker == worker)

    @rule()
    def leases_run_out(self) -> None:
        silent = [lease for lease in self.store.leases() if self.model[lease.task_id].expired]
        self._lost(self.store.recover_silent(silent), lambda expected: expected.expired)

    def _lost(self, recovered: list[str], whose) -> None:  # type: ignore[no-untyped-def]
        lost = [key for key, e in self.model.items() if e.status is TaskStatus.PROCESSING and whose(e)]
        assert recovered == lost
        for expected in (self.model[key] for key in lost):
            if expected.cancel:
                expected.status = TaskStatus.CANCELLED
            elif expected.attempt == expected.max_attempts:
                expected.status = TaskStatus.FAILED
            else:
                expected.status = TaskStatus.PENDING

    @invariant()
    def the_store_is_as_expected(self) -> None:
        for task_id, expected in self.model.items():
            assert self.store.status_of(task_id) is expected.status
        ready = self._in_order(self.paused)
        for task_id in (key for key, expected in self.model.items() if not expected.deleted):
            position = self.store.queue_position(task_id)
            assert position == (ready.index(task_id) + 1 if task_id in ready else None)
        visible = [key for key, expected in self.model.items() if not expected.deleted]
        listed = {task.id: task for task in self.store.list()}
        assert list(listed) == visible[::-1]
        for task_id, task in listed.items():
            assert task.attempt == self.model[task_id].attempt
            if task.status in TERMINAL:
                assert self.frozen.setdefault(task_id, task) == task

    @invariant()
    def every_completed_task_has_one_output_and_no_other_has(self) -> None:
        completed = sum(expected.status is TaskStatus.COMPLETED for expected in self.model.values())
        with self.database.read() as connection:
            assert connection.execute(select(func.count()).select_from(outputs)).scalar_one() == completed

    @invariant()
    def the_log_has_no_gaps(self) -> None:
        new: list[TaskEvent] = self.log.after(self.seen)
        for event in new:
            assert event.id > self.seen
            assert event.number == self.numbers.get(event.task_id, 0) + 1
            self.seen, self.numbers[event.task_id] = event.id, event.number


def test_random_lives_of_a_queue(database: Database) -> None:
    run_state_machine_as_test(
        lambda: QueueMachine(database),
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
