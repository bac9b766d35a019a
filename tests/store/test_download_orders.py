"""The orders of downloads: what is kept, what ends with what, and many writers at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from backend.store.download_orders import DownloadOrders, Order, OrderState, Urgency
from backend.store.engine import MIGRATIONS, Database
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerState, WorkerStore
from tests.store.samples import submit


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


def test_a_pause_that_nobody_ordered_ends_with_its_resume(orders: DownloadOrders) -> None:
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


def test_the_table_refuses_what_means_nothing(orders: DownloadOrders, database: Database) -> None:
    orders.want("a")
    for change in ("state = 'lost'", "urgency = 'now'", "wished = (1 = 0)"):
        with pytest.raises(IntegrityError), database.begin() as connection:
            connection.execute(text(f"UPDATE download_orders SET {change}"))
    assert orders.get("a") == Order("a", OrderState.WANTED, Urgency.MEDIUM, 1, wished=True, needed=False)


def test_a_database_of_the_version_before_gets_the_table(database_url: str) -> None:
    database = Database(database_url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
    WorkerStore(database).beat("old", device="cpu", state=WorkerState.IDLE)
    database.migrate()
    assert [worker.id for worker in WorkerStore(database).list()] == ["old"]
    assert DownloadOrders(database).list() == []
    database.close()
