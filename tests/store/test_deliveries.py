"""Messages to webhooks in both databases: written with the change of a task, claimed once, kept until they end."""

from __future__ import annotations

import itertools
import json
import threading

import pytest
from sqlalchemy import text

from backend.core.access.caller import ANYBODY, Caller, Scope, acting_as
from backend.core.domain import Task, WebhookEvent
from backend.core.errors.base import WanError
from backend.core.errors.generation import OutOfMemory
from backend.core.errors.lookups import DeliveryNotFound
from backend.core.requests.webhooks import Webhook
from backend.store.clients.deliveries import CLAIM_SECONDS, Delivery, DeliveryState, DeliveryStore
from backend.store.engine import Database
from backend.store.tasks import TaskStore
from backend.store.upkeep.retention import Retention, RowLimits
from tests.store.samples import LEASE, claimed, output_of, submit

HOOK = Webhook("https://a.example/hook?token=hidden", tuple(WebhookEvent), "whsec_" + "QUJD" * 10)
PER_HOST = 2
NO_LIMITS = RowLimits(progress_days=0, hidden_days=0, workers_hours=0, database_mb=0)


@pytest.fixture
def deliveries(database: Database) -> DeliveryStore:
    return DeliveryStore(database, "home")


def finished(store: TaskStore, hook: Webhook | None = HOOK) -> Task:
    task = submit(store, webhook=hook)
    _, token = claimed(store)
    store.complete(task.id, token, output_of(task.id))
    return task


def at(host: str) -> Webhook:
    return Webhook(f"https://{host}/")


def later(database: Database, column: str, seconds: float) -> None:
    """Move a moment of every message into the past, as if the time had gone by."""
    with database.begin() as connection:
        connection.execute(text(f"UPDATE deliveries SET {column} = {column} - {seconds}"))


def claim(deliveries: DeliveryStore, limit: int = 8, **busy: int) -> list[Delivery]:
    return deliveries.claim(limit, busy, PER_HOST)


def test_each_change_of_a_task_writes_its_message(store: TaskStore, deliveries: DeliveryStore) -> None:
    done = finished(store)
    failed = submit(store, webhook=HOOK)
    _, token = claimed(store)
    store.fail(failed.id, token, OutOfMemory("x" * 5000))
    cancelled = submit(store, webhook=HOOK)
    store.request_cancel(cancelled.id)
    finished(store, None)
    written = [(one.task_id, one.type) for one in reversed(deliveries.list())]
    assert written == [
        (done.id, "task.started"),
        (done.id, "task.completed"),
        (failed.id, "task.started"),
        (failed.id, "task.failed"),
        (cancelled.id, "task.cancelled"),
    ]
    bodies = {one.type: json.loads(one.body) for one in deliveries.list()}
    assert bodies["task.completed"]["data"]["video"]["sha256"] == "0" * 64
    assert bodies["task.failed"]["data"]["error"]["code"] == "out_of_memory"
    assert len(bodies["task.failed"]["data"]["error"]["message"]) == 1000
    assert all("a red circle" not in one.body for one in deliveries.list())
    assert "hidden" not in repr(deliveries.list())
    assert str(HOOK.secret) not in repr(deliveries.list())


def test_a_change_that_is_rolled_back_leaves_no_message(store: TaskStore, deliveries: DeliveryStore) -> None:
    task = submit(store, webhook=HOOK)
    claimed(store)
    with pytest.raises(WanError):
        store.complete(task.id, "another token", output_of(task.id))
    assert [one.type for one in deliveries.list()] == ["task.started"]


def test_only_the_messages_that_were_asked_for_are_written(store: TaskStore, deliveries: DeliveryStore) -> None:
    finished(store, Webhook(HOOK.url))
    finished(store, Webhook(HOOK.url, (WebhookEvent.FAILED,)))
    assert [one.type for one in deliveries.list()] == ["task.completed"]


def test_a_message_is_claimed_by_one_process_until_its_claim_runs_out(
    store: TaskStore, database: Database, deliveries: DeliveryStore
) -> None:
    finished(store, at("a.example"))
    other = DeliveryStore(database, "another home")
    [first] = claim(deliveries)
    assert claim(other) == []
    other.release_all()  # of its own home alone
    assert claim(other) == []
    later(database, "claimed_until", CLAIM_SECONDS + 1)
    [second] = claim(other)
    assert (second.id, second.claim == first.claim) == (first.id, False)
    deliveries.put_off(first, "too late", 500, 60.0)  # the first process is not entitled any more
    assert other.get(second.id).attempts == 0
    other.delivered(second, 204)
    done = other.get(second.id)
    assert (done.state, done.status, done.attempts) == (DeliveryState.DELIVERED, 204, 1)
    assert claim(other) == []


def test_a_restarted_server_goes_on_with_what_it_had_claimed(
    store: TaskStore, database: Database, deliveries: DeliveryStore
) -> None:
    finished(store, at("a.example"))
    [lost] = claim(deliveries)
    again = DeliveryStore(database, "home")
    again.release_all()
    assert [one.id for one in claim(again)] == [lost.id]


def test_many_processes_claim_every_message_once(
    store: TaskStore, database: Database, database_url: str, deliveries: DeliveryStore
) -> None:
    for number in range(40):
        finished(store, at(f"h{number}.example"))
    taken: list[list[str]] = [[], [], [], []]

    def take(number: int) -> None:
        own = Database(database_url, checkpointer=False)
        mine = DeliveryStore(own, f"home {number}")
        while found := mine.claim(3, {}, PER_HOST):
            taken[number] += [one.id for one in found]
        own.close()

    threads = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(itertools.chain(*taken)) == sorted(one.id for one in deliveries.list())


def test_a_long_backlog_of_one_host_holds_up_no_other(store: TaskStore, deliveries: DeliveryStore) -> None:
    for _ in range(70):
        finished(store, at("slow.example"))
    finished(store, at("fast.example"))
    assert [one.host for one in claim(deliveries)] == ["slow.example", "slow.example", "fast.example"]
    finished(store, at("fast.example"))
    found = deliveries.claim(8, {"slow.example": 2, "fast.example": 1}, PER_HOST)
    assert [one.host for one in found] == ["fast.example"]
    assert len(deliveries.claim(1, {}, PER_HOST)) == 1


def test_a_message_that_was_put_off_waits_and_is_not_forgotten_when_the_clock_is_set(
    store: TaskStore, database: Database, deliveries: DeliveryStore
) -> None:
    finished(store, at("a.example"))
    deliveries.put_off(claim(deliveries)[0], "no connection", None, 600.0)
    assert claim(deliveries) == []
    later(database, "due_at", 601)
    [again] = claim(deliveries)
    assert (again.attempts, again.reason, again.status) == (1, "no connection", None)
    deliveries.put_off(again, "no connection", None, 600.0)
    later(database, "due_at", -86_400)  # the clock was a day ahead when the pause began
    assert [one.attempts for one in claim(deliveries)] == [2]


def test_what_was_given_up_is_counted_and_sent_again_from_the_beginning(
    store: TaskStore, database: Database, deliveries: DeliveryStore
) -> None:
    finished(store, at("a.example"))
    deliveries.give_up(claim(deliveries)[0], "given up", 500)
    assert deliveries.counts()[DeliveryState.FAILED] == deliveries.counts(60.0)[DeliveryState.FAILED] == 1
    later(database, "ended_at", 61)
    assert (deliveries.counts()[DeliveryState.FAILED], deliveries.counts(60.0)[DeliveryState.FAILED]) == (1, 0)
    [dead] = deliveries.list(states=(DeliveryState.FAILED,))
    anew = deliveries.redeliver(dead.id)
    assert (anew.id, anew.state, anew.attempts, anew.reason) == (dead.id, DeliveryState.PENDING, 0, None)
    assert [one.id for one in claim(deliveries)] == [dead.id]


def test_a_webhook_that_ended_gets_neither_what_waits_nor_what_comes(
    store: TaskStore, deliveries: DeliveryStore
) -> None:
    task = submit(store, webhook=HOOK)
    other = submit(store, webhook=HOOK)
    _, token = claimed(store)
    [started] = claim(deliveries)
    store.request_pause(task.id)
    deliveries.give_up(started, "gone", 410)
    deliveries.unsubscribe(started, "gone")
    store.complete(task.id, token, output_of(task.id))
    assert {one.state for one in deliveries.list(task_id=task.id)} == {DeliveryState.FAILED}
    claimed(store)
    assert [one.task_id for one in claim(deliveries)] == [other.id]


def test_a_list_has_pages_and_every_key_its_own(store: TaskStore, deliveries: DeliveryStore) -> None:
    anna = Caller("anna", "anna", frozenset({Scope.GENERATE}))
    finished(store, at("a.example"))
    with acting_as(anna):
        mine = finished(store, at("b.example"))
        finished(store, at("c.example"))
        assert [one.host for one in deliveries.list()] == ["c.example", "b.example"]
        assert [one.host for one in deliveries.list(task_id=mine.id)] == ["b.example"]
        newest, older = deliveries.list()
        assert deliveries.list(before=newest.id) == [older]
        assert deliveries.list(before=older.id) == []
        assert sum(deliveries.counts().values()) == 2
    with acting_as(Caller("bert", "bert", frozenset({Scope.GENERATE}))):
        assert deliveries.list() == []
        for refused in (deliveries.get, deliveries.redeliver):
            with pytest.raises(DeliveryNotFound):
                refused(newest.id)
    with acting_as(ANYBODY):
        assert len(deliveries.list(limit=2)) == 2
        assert len(deliveries.list()) == 3


def test_old_messages_go_and_those_that_wait_stay(
    store: TaskStore, database: Database, deliveries: DeliveryStore
) -> None:
    finished(store, at("a.example"))
    finished(store, at("b.example"))
    deliveries.delivered(claim(deliveries, 1)[0], 200)
    for column in ("created_at", "ended_at"):
        later(database, column, 31 * 86_400)
    Retention(database).sweep(NO_LIMITS)
    assert len(deliveries.list()) == 2
    Retention(database).sweep(RowLimits(0, 0, 0, 0, deliveries_days=30.0))
    assert [one.host for one in deliveries.list()] == ["b.example"]


def test_a_removed_task_goes_with_its_webhook(store: TaskStore, database: Database, deliveries: DeliveryStore) -> None:
    task = submit(store, webhook=HOOK)
    _, token = claimed(store, lease_seconds=LEASE)
    store.fail(task.id, token, OutOfMemory())
    store.delete(task.id)
    with database.begin() as connection:
        connection.execute(text("UPDATE tasks SET created_at = 0, completed_at = 0, deleted_at = 0"))
    Retention(database).sweep(RowLimits(0, 30, 0, 0))
    assert store.list() == []
    assert [one.type for one in deliveries.list()] == ["task.failed", "task.started"]
