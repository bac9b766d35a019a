"""When a worker counts as silent: only time in which its observer was running proves anything."""

from __future__ import annotations

from contextlib import suppress

import pytest

from backend.core.domain import EventType, TaskStatus
from backend.core.errors.surroundings import StorageFull, StoreUnavailable
from backend.store.leases import Lease
from backend.store.tasks import TaskStore
from backend.worker.silence import SilenceWatch
from tests.store.samples import claimed
from tests.worker.conftest import Queue

LEASE = 30.0
INTERVAL = 5.0


class Clock:
    """The monotonic clock of an observer, moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A queue with one running task, an observer of it, and the observer's clock."""

    def __init__(self, queue: Queue, store: TaskStore | None = None, *, lease_seconds: float = LEASE) -> None:
        self.queue = queue
        self.task = queue.submit()
        _, self.token = claimed(queue.tasks, "w1", lease_seconds)
        self.clock = Clock()
        self.watch = SilenceWatch(store or queue.tasks, INTERVAL, self.clock)

    def look(self, seconds: float, *, beats: bool = False) -> None:
        """Let the observer run for a while, and look at its interval."""
        for _ in range(round(seconds / INTERVAL)):
            self.clock.now += INTERVAL
            if beats:
                self.queue.tasks.heartbeat(self.task.id, self.token, LEASE)
            self.watch.recover(LEASE, except_of=None)

    @property
    def lost(self) -> bool:
        return EventType.ATTEMPT_LOST in self.queue.types(self.task.id)


@pytest.mark.parametrize("lease_seconds", [-3600.0, LEASE, 7 * 24 * 3600.0])
def test_31_a_silent_worker_loses_its_task_whatever_the_databases_clock_says(
    queue: Queue, lease_seconds: float
) -> None:
    watched = Watched(queue, lease_seconds=lease_seconds)  # as if the clock had been set after the last heartbeat
    watched.look(LEASE)
    assert not watched.lost
    watched.look(INTERVAL)
    assert watched.lost
    assert queue.tasks.get(watched.task.id).status is TaskStatus.PENDING


def test_a_worker_that_beats_keeps_its_task(queue: Queue) -> None:
    watched = Watched(queue, lease_seconds=-3600.0)
    watched.look(10 * LEASE, beats=True)
    assert not watched.lost


@pytest.mark.parametrize("asleep", [LEASE, 8 * 3600.0])
def test_an_observer_that_was_suspended_itself_gives_everyone_a_whole_lease(queue: Queue, asleep: float) -> None:
    watched = Watched(queue)
    for _ in range(3):
        watched.look(LEASE - INTERVAL)
        watched.clock.now += asleep
    watched.look(LEASE)
    assert not watched.lost
    watched.look(INTERVAL)
    assert watched.lost


def test_an_own_worker_is_spared_and_others_are_not(queue: Queue) -> None:
    watched = Watched(queue)
    other = queue.submit()
    claimed(queue.tasks, "w2")
    for _ in range(8):
        watched.clock.now += INTERVAL
        watched.watch.recover(LEASE, except_of="w1")
    assert not watched.lost
    assert queue.tasks.get(other.id).status is TaskStatus.PENDING


class FullStore(TaskStore):
    """A store that can be read and not written."""

    def recover_silent(self, silent: object) -> list[str]:
        raise StorageFull if silent else AssertionError


class AbsentStore(TaskStore):
    """A store that cannot be read now and then."""

    absent = False

    def leases(self) -> list[Lease]:
        if self.absent:
            raise StoreUnavailable
        return super().leases()


def test_silence_proves_nothing_while_no_heartbeat_can_be_written(queue: Queue) -> None:
    watched = Watched(queue, FullStore(queue.database))
    watched.watch.look()
    for _ in range(6):
        watched.clock.now += INTERVAL
        watched.watch.look()
    silent = watched.watch.silent(LEASE)
    assert [lease.worker_id for lease in silent] == ["w1"]
    with pytest.raises(StorageFull):
        watched.watch.take_back(silent)
    assert watched.watch.silent(LEASE) == []


class LockedStore(TaskStore):
    """A store that another process locks now and then, so that nobody can write."""

    locked = False

    def prove_writable(self) -> None:
        if self.locked:
            raise StoreUnavailable
        super().prove_writable()


def test_a_lock_that_ends_just_before_the_lease_costs_no_attempt(queue: Queue) -> None:
    store = LockedStore(queue.database)
    watched = Watched(queue, store)
    store.locked = True
    watched.look(LEASE / 2 - INTERVAL)  # too early to ask
    for _ in range(3):
        watched.clock.now += INTERVAL
        with suppress(StoreUnavailable):
            watched.watch.recover(LEASE, except_of=None)
    store.locked = False
    watched.look(LEASE - INTERVAL)
    assert not watched.lost
    watched.look(INTERVAL)
    assert watched.lost, "it had a whole lease in which it could write"


def test_silence_proves_nothing_while_the_database_is_away(queue: Queue) -> None:
    store = AbsentStore(queue.database)
    watched = Watched(queue, store)
    watched.look(LEASE)
    store.absent = True
    with pytest.raises(StoreUnavailable):
        watched.look(INTERVAL)
    store.absent = False
    watched.look(LEASE)
    assert not watched.lost


def test_a_request_to_cancel_is_timed_by_the_observer(queue: Queue) -> None:
    watched = Watched(queue)
    watched.look(INTERVAL, beats=True)
    queue.tasks.request_cancel(watched.task.id)
    watched.look(INTERVAL, beats=True)
    assert watched.watch.deaf(INTERVAL) == []
    watched.look(INTERVAL, beats=True)
    assert [lease.task_id for lease in watched.watch.deaf(INTERVAL)] == [watched.task.id]
    watched.clock.now += 3600.0
    watched.look(INTERVAL, beats=True)
    assert watched.watch.deaf(INTERVAL) == [], "it slept as well"
