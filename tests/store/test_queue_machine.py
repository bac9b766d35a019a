"""Random histories of a queue, compared with a model of it after every step, on SQLite and PostgreSQL.

Workers claim, die, come back as zombies and are stopped; users submit, cancel, delete, pause, resume, retry, move and
pause downloads or the whole queue. No task may be lost, a lease is valid only while it is the newest, ended tasks never
change unless they are retried, and the event log has no gaps.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import delete, func, select

from backend.core.domain import TERMINAL, Priority, StopRequest, Task, TaskEvent, TaskStatus
from backend.core.errors.generation import GenerationFailed
from backend.core.errors.interruptions import LeaseLost
from backend.core.errors.lookups import StateConflict, TaskNotFound
from backend.store.access.totals import recount
from backend.store.download_orders import DownloadOrders
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.order import QueuePlace, places
from backend.store.tables import download_orders, events, holds, outputs, tasks
from backend.store.tasks import TaskStore
from tests.store.samples import at_step, output_of, submit

pytestmark = pytest.mark.timeout(300)
WORKERS = ("a", "b")
MODELS = ("tiny-t2v-a14b", "T2V-A14B")
ENDED_AT_ONCE, LONG = 0.0, 300.0
MAX_ATTEMPTS = 2


@dataclass
class Expected:
    """What the model knows of one task."""

    priority: int
    model: str
    status: TaskStatus = TaskStatus.PENDING
    attempt: int = 0
    strikes: int = 0
    saved: int = -1
    advanced: bool = False
    cancel: bool = False
    pause: bool = False
    worker: str = ""
    token: str = ""
    expired: bool = False
    deleted: bool = False


class QueueMachine(RuleBasedStateMachine):
    """The rules are actions of users and workers; the invariants are the store's promises."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        with database.begin() as connection:
            for table in (events, outputs, tasks, download_orders, holds):
                connection.execute(delete(table))
        self.database = database
        self.store = TaskStore(database)
        self.orders = DownloadOrders(database)
        self.paused: set[str] = set()
        self.log = EventLog(database)
        self.model: dict[str, Expected] = {}  # in order of submission
        self.order: list[str] = []  # of the ready tasks, within one priority
        self.held: bool | None = None  # whether the hold interrupts
        self.leases: list[tuple[str, str]] = []  # every lease ever given: task and token
        self.frozen: dict[str, Task] = {}
        self.seen = 0  # the id of the last event read; the log is empty
        self.numbers: dict[str, int] = {}

    @rule(priority=st.sampled_from(Priority), model=st.sampled_from(MODELS))
    def submit(self, priority: Priority, model: str) -> None:
        task = submit(self.store, priority=priority, max_attempts=MAX_ATTEMPTS, model=model)
        self.model[task.id] = Expected(priority.rank, model)
        self.order.append(task.id)

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
        assert (task.id if task else None) == (waiting[0] if waiting and self.held is None else None)
        if task is not None:
            expected = self.model[task.id]
            expected.status, expected.worker, expected.expired = TaskStatus.PROCESSING, worker, seconds == ENDED_AT_ONCE
            expected.attempt += 1
            expected.advanced = False
            expected.cancel = expected.pause = False
            expected.token = task.lease_token or ""
            assert (task.id, expected.token) not in self.leases
            self.leases.append((task.id, expected.token))

    def _in_order(self, paused: set[str]) -> list[str]:
        """The ids of the ready tasks, the next one first."""
        ready = {key: e for key, e in self.model.items() if e.status == "pending" and e.model not in paused}
        return sorted(ready, key=lambda key: (-ready[key].priority, self.order.index(key)))

    @rule(model=st.sampled_from(MODELS))
    def model_is_complete(self, model: str) -> None:
        self.orders.remove(model)
        self.paused -= {model}

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        deed=st.sampled_from(
            ["heartbeat", "report", "save", "complete", "fail", "cancelled", "paused", "release", "held"]
        ),
    )
    def work(self, data: st.DataObject, deed: str) -> None:
        task_id, token = data.draw(st.sampled_from(self.leases), "lease")
        expected = self.model[task_id]
        saved = data.draw(st.integers(0, 3), "saved")
        deeds = {
            "heartbeat": lambda: self.store.heartbeat(task_id, token, LONG),
            "report": lambda: self.store.report(task_id, token, at_step(data.draw(st.integers(0, 20), "step"))),
            "save": lambda: self.store.report(task_id, token, replace(at_step(20), saved_step=saved)),
            "complete": lambda: self.store.complete(task_id, token, output_of(task_id)),
            "fail": lambda: self.store.fail(task_id, token, GenerationFailed()),
            "cancelled": lambda: self.store.acknowledge_cancel(task_id, token),
            "paused": lambda: self.store.acknowledge_pause(task_id, token),
            "release": lambda: self.store.release(task_id, token),
            "held": lambda: self.store.release(task_id, token, "paused"),
        }
        if expected.status is not TaskStatus.PROCESSING or expected.token != token:
            with pytest.raises(LeaseLost):
                deeds[deed]()
            return
        before = self.store.get(task_id).progress
        answer = deeds[deed]()
        if deed == "save" and saved > expected.saved:
            expected.saved, expected.strikes, expected.advanced = saved, 0, True
        if deed in ("heartbeat", "report", "save"):
            asked = {
                StopRequest.CANCEL: expected.cancel,
                StopRequest.PAUSE: expected.pause,
                StopRequest.HAND_BACK: self.held is True,
            }
            assert answer is next((request for request, is_asked in asked.items() if is_asked), None)
            assert self.store.get(task_id).progress >= before
            expected.expired = expected.expired and deed != "heartbeat"
        elif deed in ("paused", "release", "held") and not expected.cancel:
            expected.status = TaskStatus.PAUSED if expected.pause else TaskStatus.PENDING
            expected.attempt -= 1
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
            if expected.status is not TaskStatus.PROCESSING:
                expected.status = TaskStatus.CANCELLED
            expected.cancel = True

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(list(self.model)), "task")
        expected = self.model[task_id]
        being_cancelled = expected.status is TaskStatus.PROCESSING and expected.cancel
        if expected.deleted or expected.status in TERMINAL or being_cancelled:
            with pytest.raises(TaskNotFound if expected.deleted else StateConflict):
                self.store.request_pause(task_id)
            return
        self.store.request_pause(task_id)
        if expected.status is TaskStatus.PENDING:
            expected.status = TaskStatus.PAUSED
        expected.pause = expected.status is TaskStatus.PROCESSING

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(list(self.model)), "task")
        expected = self.model[task_id]
        if expected.deleted or expected.status in TERMINAL:
            with pytest.raises(TaskNotFound if expected.deleted else StateConflict):
                self.store.resume(task_id)
            return
        self.store.resume(task_id)
        expected.pause = False
        if expected.status is TaskStatus.PAUSED:
            expected.status = TaskStatus.PENDING

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def retry(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(list(self.model)), "task")
        expected = self.model[task_id]
        if expected.deleted or expected.status in (TaskStatus.PAUSED, TaskStatus.COMPLETED):
            with pytest.raises(TaskNotFound if expected.deleted else StateConflict):
                self.store.retry(task_id)
            return
        self.store.retry(task_id)
        if expected.status in TERMINAL:
            expected.status, expected.attempt, expected.cancel, expected.pause = TaskStatus.PENDING, 0, False, False
            expected.strikes, expected.advanced = 0, False
            del self.frozen[task_id]

    @rule(data=st.data(), position=st.integers(1, 6))
    def move(self, data: st.DataObject, position: int) -> None:
        ready = self._in_order(self.paused)
        if not ready:
            return
        task_id = data.draw(st.sampled_from(ready), "task")
        task = self.store.move(task_id, position)
        others = [key for key in ready if key != task_id]
        index = min(position, len(ready)) - 1
        wanted = [*others[:index], task_id, *others[index:]]
        ranks = [self.model[key].priority for key in others]
        own = self.model[task_id].priority
        own = max([own, *ranks[index : index + 1]])
        self.model[task_id].priority = min([own, *ranks[index - 1 : index]]) if index else own
        assert task.priority == self.model[task_id].priority
        self._ordered(wanted)

    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        ready = self._in_order(self.paused)
        named = data.draw(st.permutations(ready).map(lambda keys: keys[: len(keys) // 2 + 1]), "order")
        ended = [key for key, expected in self.model.items() if expected.status in TERMINAL]
        assert self.store.reorder([*ended, *named]) == len(named)
        slots = [key for key in ready if key in named]
        ranks = [self.model[key].priority for key in slots]
        taken = dict(zip(slots, named, strict=True))
        for key, rank in zip(named, ranks, strict=True):
            self.model[key].priority = rank
        self._ordered([taken.get(key, key) for key in ready])

    def _ordered(self, wanted: list[str]) -> None:
        """Note the order of the ready tasks; where tasks that are not ready stand among them, only the store knows."""
        assert [place.task_id for place in self._places()] == wanted
        with self.database.read() as connection:
            rows = connection.execute(select(tasks.c.id).order_by(tasks.c.place, tasks.c.number))
            self.order = [row.id for row in rows]

    def _places(self) -> list[QueuePlace]:
        with self.database.read() as connection:
            return places(connection)

    @rule(interrupts=st.booleans())
    def hold(self, interrupts: bool) -> None:
        assert self.store.hold(interrupts=interrupts) is (self.held is None or (interrupts and not self.held))
        self.held = self.held is True or interrupts

    @rule()
    def lift(self) -> None:
        assert self.store.lift() is (self.held is not None)
        self.held = None

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

    @rule(worker=st.sampled_from(WORKERS))
    def operator_ends_worker(self, worker: str) -> None:
        lost = [e for e in self.model.values() if e.status is TaskStatus.PROCESSING and e.worker == worker]
        assert len(self.store.hand_back(worker)) == len(lost)
        for expected in lost:
            waits = TaskStatus.PAUSED if expected.pause else TaskStatus.PENDING
            expected.status = TaskStatus.CANCELLED if expected.cancel else waits
            expected.attempt -= 0 if expected.cancel else 1

    @rule()
    def leases_run_out(self) -> None:
        silent = [lease for lease in self.store.leases() if self.model[lease.task_id].expired]
        self._lost(self.store.recover_silent(silent), lambda expected: expected.expired)

    def _lost(self, recovered: list[str], whose) -> None:  # type: ignore[no-untyped-def]
        lost = [key for key, e in self.model.items() if e.status is TaskStatus.PROCESSING and whose(e)]
        assert recovered == lost
        for expected in (self.model[key] for key in lost):
            expected.strikes += 0 if expected.advanced else 1
            if expected.cancel:
                expected.status = TaskStatus.CANCELLED
            elif expected.strikes == MAX_ATTEMPTS:
                expected.status = TaskStatus.FAILED
            elif expected.pause:
                expected.status = TaskStatus.PAUSED
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
        some = [*visible[::2], "unknown"]
        assert self.store.positions(some) == {key: ready.index(key) + 1 for key in some if key in ready}
        states = Counter(self.model[key].status for key in visible)
        assert self.store.counts() == {status: states[status] for status in TaskStatus}
        assert not recount(self.database)
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
