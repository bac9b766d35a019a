"""The orders of model downloads: which models are wanted, in which order, and which downloads are paused.

A row lives until its download has ended, whichever process runs it. The bytes are on the disk and no concern of this
module.
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
    """Whether a download may run."""

    WANTED = "wanted"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Order:
    """One row."""

    model: str
    state: OrderState
    urgency: Urgency
    number: int  #: order of arrival
    wished: bool  #: False: nobody ordered the model; only its download for tasks is paused
    needed: bool  #: whether an unfinished task is for this model

    @property
    def paused(self) -> bool:
        """Whether no process may download this model now."""
        return self.state is OrderState.PAUSED


class DownloadOrders:
    """The table of orders. Each call is one transaction; every write leaves at most one order for a model."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def want(self, model: str) -> Order:
        """Order a model, or resume its paused order; a model that is ordered already keeps its place and urgency."""
        with self._database.begin() as connection:
            values = {"state": OrderState.WANTED, "wished": True}
            return _put(connection, model, values)

    def pause(self, model: str, *, wished: bool) -> Order:
        """Keep every process from downloading this model until it is resumed.

        `wished` says whether the model was ordered; it counts only where there is no row yet.
        """
        with self._database.begin() as connection:
            values: dict[str, Any] = {"state": OrderState.PAUSED}
            return _put(connection, model, values | ({} if _found(connection, model) else {"wished": wished}))

    def resume(self, model: str) -> Order | None:
        """Resume a paused download; return its order, or None when there was none or it only blocked tasks."""
        with self._database.begin() as connection:
            found = _found(connection, model)
            if found is None:
                return None
            if not found.wished:
                connection.execute(delete(download_orders).where(download_orders.c.model == model))
                return None
            return _put(connection, model, {"state": OrderState.WANTED})

    def rank(self, model: str, urgency: Urgency) -> None:
        """Change the urgency of an order; does nothing when it is gone."""
        with self._database.begin() as connection:
            changed = update(download_orders).where(download_orders.c.model == model)
            connection.execute(changed.values(urgency=urgency))

    def remove(self, model: str) -> None:
        """Strike an order: it was carried out, has failed, was given up, or is pointless."""
        with self._database.begin() as connection:
            connection.execute(delete(download_orders).where(download_orders.c.model == model))

    def get(self, model: str) -> Order | None:
        """Return the order of a model."""
        with self._database.read() as connection:
            found = _found(connection, model)
            return None if found is None else _order(found)

    def list(self) -> list[Order]:
        """Return all orders, oldest first."""
        with self._database.read() as connection:
            return [_order(row) for row in connection.execute(_ORDERS.order_by(download_orders.c.number))]

    def is_paused(self, model: str) -> bool:
        """Whether no process may download this model now."""
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
    """Update or insert the row of a model; the caller is the only writer while its transaction lasts."""
    known = connection.execute(update(download_orders).where(download_orders.c.model == model).values(values))
    if known.rowcount == 0:
        connection.execute(insert(download_orders).values({"model": model, "urgency": Urgency.MEDIUM} | values))
    return _order(connection.execute(_ORDERS.where(download_orders.c.model == model)).one())


def _order(row: Row[Any]) -> Order:
    return Order(row.model, OrderState(row.state), Urgency(row.urgency), row.number, bool(row.wished), bool(row.needed))
