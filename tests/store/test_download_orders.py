"""Download orders: what is stored, what ends them, concurrent writers, and which tasks a pause holds up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from backend.core.domain import EventType, Priority, TaskStatus
from backend.store.download_orders import DownloadOrders, Order, OrderState, Urgency
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.schema import MIGRATIONS
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerStore
from tests.store.samples import LEASE, claimed, submit

T2V = "T2V-A14B"
WORDS = "Somebody paused it"


@pytest.fixture
def orders(database: Database) -> DownloadOrders:
    return DownloadOrders(database)


def test_orders_keep_their_order_of_arrival_and_their_state(
    orders: DownloadOrders, database: Database, database_url: str
) -> None:
    assert (orders.list(), orders.get("a"), orders.is_paused("a")) == ([], None, False)
    for model in ("b", "a", "c"):
        orders.want(model)
    orders.pause("a", wished=True)
    orders.rank("c", Urgency.CRITICAL)
    assert orders.want("b").number == orders.list()[0].number, "asked for twice, it keeps its place"
    database.close()
    reopened = Database(database_url)
    again = DownloadOrders(reopened).list()
    reopened.close()
    assert [(one.model, one.state, one.urgency) for one in again] == [
        ("b", OrderState.WANTED, Urgency.MEDIUM),
        ("a", OrderState.PAUSED, Urgency.MEDIUM),
        ("c", OrderState.WANTED, Urgency.CRITICAL),
    ]
    assert orders.is_paused("a")
    resumed = orders.resume("a")
    assert resumed is not None
    assert (resumed.paused, resumed.number) == (False, again[1].number)
    orders.remove("b")
    assert orders.want("b").number > again[2].number, "what was struck out and is asked for again comes last"


def test_a_pause_without_an_order_ends_with_its_resume(orders: DownloadOrders) -> None:
    held = orders.pause("a", wished=False)
    assert (held.paused, held.wished) == (True, False)
    assert orders.resume("a") is None
    assert (orders.list(), orders.resume("a")) == ([], None)
    orders.pause("a", wished=False)
    assert orders.want("a").wished, "an order takes the place of a bare pause"
    assert orders.pause("a", wished=False).wished, "and stays one when it is paused"
    orders.rank("gone", Urgency.LOW)
    orders.remove("gone")
    assert [one.model for one in orders.list()] == ["a"]


def test_an_order_says_whether_a_task_needs_its_model(orders: DownloadOrders, store: TaskStore) -> None:
    first, second = submit(store), submit(store, "a blue ring")
    assert [task.id for task in store.needing(first.model)] == [first.id, second.id]
    assert orders.want(first.model).needed
    assert not orders.want("another").needed
    store.request_cancel(first.id)
    store.claim("w1", 30.0)
    assert [task.id for task in store.needing(first.model)] == [second.id]
    assert [one.needed for one in orders.list()] == [True, False]
    claimed = store.get(second.id)
    store.acknowledge_cancel(second.id, str(claimed.lease_token))
    assert store.needing(first.model) == []
    assert orders.get(first.model) is not None
    assert not any(one.needed for one in orders.list())


@pytest.mark.parametrize("wished", [True, False])
def test_tasks_with_a_paused_download_are_skipped_and_keep_their_place(
    orders: DownloadOrders, store: TaskStore, wished: bool
) -> None:
    held = [submit(store, model=T2V, priority=Priority.HIGH), submit(store, model=T2V)]
    others = [submit(store), submit(store, priority=Priority.LOW)]
    last = submit(store, model=T2V, priority=Priority.LOW)
    assert [store.queue_position(task.id) for task in (*held, *others, last)] == [1, 2, 3, 4, 5]
    orders.pause(T2V, wished=wished)
    assert [store.queue_position(task.id) for task in (*held, *others, last)] == [None, None, 1, 2, None]
    assert [store.get(task.id).download_paused for task in (*held, *others, last)] == [True, True, False, False, True]
    assert [task.download_paused for task in store.list()] == [True, False, False, True, True]
    assert [task.id for task in store.up_to(others[1].id)] == [task.id for task in others]
    assert store.up_to(held[0].id) == []
    assert submit(store, model=T2V, key="k", priority=Priority.LOW).download_paused
    assert claimed(store)[0].id == others[0].id
    orders.resume(T2V)
    assert [claimed(store)[0].id for _ in range(2)] == [task.id for task in held]
    orders.pause(T2V, wished=wished)
    assert claimed(store)[0].id == others[1].id
    assert store.claim("w1", LEASE) is None
    assert store.get(last.id).status is TaskStatus.PENDING
    orders.remove(T2V)  # given up, or carried out
    assert claimed(store)[0].id == last.id


def test_a_worker_that_never_downloads_ignores_pauses(orders: DownloadOrders, store: TaskStore) -> None:
    waiting, later = submit(store, model=T2V), submit(store)
    orders.pause(T2V, wished=False)
    assert [claimed(store, downloads=False)[0].id for _ in range(2)] == [waiting.id, later.id]
    assert orders.is_paused(T2V)


def test_a_pause_during_a_claim_takes_effect(
    orders: DownloadOrders, store: TaskStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the read that avoids the writer lock and the transaction that claims."""
    tiny, begin = submit(store), database.begin

    def pause_first() -> AbstractContextManager[Connection]:
        monkeypatch.undo()
        orders.pause(tiny.model, wished=False)
        return begin()

    monkeypatch.setattr(database, "begin", pause_first)
    assert store.claim("w1", LEASE) is None
    assert orders.resume(tiny.model) is None
    assert claimed(store)[0].id == tiny.id


def test_pauses_use_up_no_attempts_and_a_waiting_task_is_cancelled_at_once(
    orders: DownloadOrders, store: TaskStore, database: Database
) -> None:
    task = submit(store, model=T2V, max_attempts=1)
    for _ in range(10):
        _, token = claimed(store)
        orders.pause(T2V, wished=False)
        store.release(task.id, token, WORDS)
        assert store.claim("w2", LEASE) is None
        orders.resume(T2V)
    back = store.get(task.id)
    assert (back.status, back.attempt, back.message) == (TaskStatus.PENDING, 0, WORDS)
    events = EventLog(database).of_task(task.id)
    held = [event.data for event in events if event.type is EventType.HELD_UP]
    assert held == [{"attempt": 1, "message": WORDS}] * 10
    assert claimed(store)[0].message is None
    assert store.request_cancel(task.id).status is TaskStatus.PROCESSING
    store.release(task.id, str(store.get(task.id).lease_token), WORDS)
    assert store.get(task.id).status is TaskStatus.CANCELLED, "who wished its end while it was handed back has it"
    other = submit(store, model=T2V)
    orders.pause(T2V, wished=False)
    assert store.request_cancel(other.id).status is TaskStatus.CANCELLED


def test_many_writers_of_two_servers_leave_one_order(database: Database, database_url: str) -> None:
    other = Database(database_url, checkpointer=False)
    servers = [DownloadOrders(database), DownloadOrders(other)]
    changes = ("want", "pause", "resume")

    def change(number: int) -> object:
        server = servers[number % 2]
        what = changes[number % 3]
        return server.pause("a", wished=False) if what == "pause" else getattr(server, what)("a")

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(change, range(48)))
    assert len(done) == 48
    assert len(servers[0].list()) <= 1
    assert servers[0].want("a") == servers[1].get("a")
    assert [one.model for one in servers[1].list()] == ["a"]
    other.close()


def test_the_table_refuses_invalid_rows(orders: DownloadOrders, database: Database) -> None:
    orders.want("a")
    for change in ("state = 'lost'", "urgency = 'now'", "wished = (1 = 0)"):
        with pytest.raises(IntegrityError), database.begin() as connection:
            connection.execute(text(f"UPDATE download_orders SET {change}"))
    assert orders.get("a") == Order("a", OrderState.WANTED, Urgency.MEDIUM, 1, wished=True, needed=False)


def test_a_database_of_the_previous_version_gets_the_table(database_url: str) -> None:
    database = Database(database_url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        connection.exec_driver_sql(
            "INSERT INTO workers (id, host, pid, process_started_at, device, state, started_at, seen_at) "
            "VALUES ('old', 'host', 1, 0, 'cpu', 'idle', 0, 0)"
        )
    database.migrate()
    assert [worker.id for worker in WorkerStore(database).list()] == ["old"]
    assert DownloadOrders(database).list() == []
    database.close()
