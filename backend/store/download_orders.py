"""Which models somebody wants to have here, in which order, and whose download is paused, whoever runs it.

A row lives until its download has ended. Says nothing of bytes: those lie on the disk. Knows no process.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, insert, select, update

from backend.core.domain import TERMINAL, TaskStatus
from backend.store.engine import Database
from backend.store.tables import download_orders, tasks


class Urgency(StrEnum):
    """Which download goes first; within one urgency the oldest does."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class OrderState(StrEnum):
    """Whether a download may go on."""

    WANTED = "wanted"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Order:
    """One row."""

    model: str
    state: OrderState
    urgency: Urgency
    number: int  #: order of arrival
    wished: bool  #: False: nobody asked for the model; only what tasks fetch of it is paused
    needed: bool  #: whether a task that has not ended is for this model

    @property
    def paused(self) -> bool:
        """Whether nobody may fetch this model now."""
        return self.state is OrderState.PAUSED


class DownloadOrders:
    """Keeps the orders. Each call is one transaction; every write leaves at most one order for a model."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def want(self, model: str) -> Order:
        """Order a model, or let a paused order go on; a model that is ordered keeps its place and urgency."""
        with self._database.begin() as connection:
            values = {"state": OrderState.WANTED, "wished": True}
            return _put(connection, model, values)

    def pause(self, model: str, *, wished: bool) -> Order:
        """Let nobody fetch this model until further notice.

        `wished` says whether it was ordered, in case the row is not here; one that is here keeps what it says.
        """
        with self._database.begin() as connection:
            values: dict[str, Any] = {"state": OrderState.PAUSED}
            return _put(connection, model, values | ({} if _found(connection, model) else {"wished": wished}))

    def resume(self, model: str) -> Order | None:
        """Let a paused download go on; return its order, or None when there was none or it only held tasks up."""
        with self._database.begin() as connection:
            found = _found(connection, model)
            if found is None:
                return None
            if not found.wished:
                connection.execute(delete(download_orders).where(download_orders.c.model == model))
                return None
            return _put(connection, model, {"state": OrderState.WANTED})

    def rank(self, model: str, urgency: Urgency) -> None:
        """Change when an order gets its turn; does nothing for one that is not here any more."""
        with self._database.begin() as connection:
            changed = update(download_orders).where(download_orders.c.model == model)
            connection.execute(changed.values(urgency=urgency))

    def remove(self, model: str) -> None:
        """Strike an order out: it was carried out, has failed, or was given up."""
        with self._database.begin() as connection:
            connection.execute(delete(download_orders).where(download_orders.c.model == model))

    def get(self, model: str) -> Order | None:
        """Return the order of a model."""
        with self._database.read() as connection:
            found = _found(connection, model)
            return None if found is None else _order(found)

    def list(self) -> list[Order]:
        """Return all orders in the order of their arrival."""
        with self._database.read() as connection:
            return [_order(row) for row in connection.execute(_ORDERS.order_by(download_orders.c.number))]

    def is_paused(self, model: str) -> bool:
        """Whether nobody may fetch this model now."""
        with self._database.read() as connection:
            found = _found(connection, model)
            return found is not None and found.state == OrderState.PAUSED


_UNFINISHED = [status for status in TaskStatus if status not in TERMINAL]
_ORDERS = select(
    download_orders,
    exists().where(tasks.c.model == download_orders.c.model, tasks.c.status.in_(_UNFINISHED)).label("needed"),
)


def _found(connection: Connection, model: str) -> Row[Any] | None:
    return connection.execute(_ORDERS.where(download_orders.c.model == model)).one_or_none()


def _put(connection: Connection, model: str, values: dict[str, Any]) -> Order:
    """Change the row of a model, or write a new one; the caller is the only writer while its transaction lasts."""
    known = connection.execute(update(download_orders).where(download_orders.c.model == model).values(values))
    if known.rowcount == 0:
        connection.execute(insert(download_orders).values({"model": model, "urgency": Urgency.MEDIUM} | values))
    return _order(connection.execute(_ORDERS.where(download_orders.c.model == model)).one())


def _order(row: Row[Any]) -> Order:
    return Order(row.model, OrderState(row.state), Urgency(row.urgency), row.number, bool(row.wished), bool(row.needed))
