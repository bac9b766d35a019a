"""The messages to webhooks: claimed by one process at a time, ended or put off, listed, and sent again on request.

Knows neither addresses nor signatures. At least once: a message whose process died is claimed again when its claim has
run out, and has the same id then.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Row, and_, case, delete, func, literal, or_, select, update

from backend.core.errors.lookups import DeliveryNotFound
from backend.store.access.ownership import own
from backend.store.engine import Database
from backend.store.rows import moment, readable, storable
from backend.store.tables import database_now, deliveries, webhooks

#: After this long, in seconds, somebody else may deliver a claimed message. Longer than an attempt can take.
CLAIM_SECONDS: Final = 90.0
#: The longest pause before the next attempt, in seconds; one that is longer was made by a clock that was set.
LONGEST_PAUSE: Final = 36_000.0


class DeliveryState(StrEnum):
    """What became of a message."""

    PENDING = "pending"  # to be sent, for the first time or again
    DELIVERED = "delivered"
    FAILED = "failed"  # given up; the reason says why


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one webhook."""

    id: str
    task_id: str
    event: int  #: number of the event within the task
    type: str
    url: str = field(repr=False)  # its path and query may hold a token
    host: str
    secret: str | None = field(repr=False)
    body: str = field(repr=False)
    state: DeliveryState
    attempts: int
    created_at: datetime
    due_at: datetime
    ended_at: datetime | None
    status: int | None  #: HTTP status of the newest answer
    reason: str | None  #: why the newest attempt failed
    claim: str | None


class DeliveryStore:
    """Reads and writes the messages; thread-safe. A caller sees those of its own webhooks."""

    def __init__(self, database: Database, holder: str = "") -> None:
        """`holder` identifies the home folder, which no two servers share at one time."""
        self._database = database
        self._holder = holder

    def release_all(self) -> None:
        """Give back what an earlier server of this home had claimed: nobody is sending it any more."""
        mine = deliveries.c.claim.startswith(f"{self._holder}:", autoescape=True)
        with self._database.begin() as connection:
            connection.execute(update(deliveries).where(mine).values(claim=None, claimed_until=None))

    def claim(self, limit: int, busy: Mapping[str, int], per_host: int) -> list[Delivery]:
        """Take messages that are due, oldest first; `busy` counts those that are being sent, by host."""
        order = (deliveries.c.due_at, deliveries.c.number)
        # Counted by host in the database: a long backlog of one host must not hide what is due to the others.
        place = func.row_number().over(partition_by=deliveries.c.host, order_by=order)
        sending = case(dict(busy), value=deliveries.c.host, else_=0) if busy else literal(0)
        due = (
            select(deliveries.c.number, deliveries.c.due_at, (place + sending).label("place")).where(_due()).subquery()
        )
        free = select(due.c.number).where(due.c.place <= per_host).order_by(due.c.due_at, due.c.number).limit(limit)
        with self._database.read() as connection:
            if connection.execute(free.limit(1)).first() is None:
                return []  # the usual poll must not keep the writers waiting
        token = f"{self._holder}:{secrets.token_hex(8)}"
        with self._database.begin() as connection:
            mine = deliveries.c.number.in_(connection.execute(free).scalars().all())
            values = {"claim": token, "claimed_until": database_now() + CLAIM_SECONDS}
            connection.execute(update(deliveries).where(mine).values(values))
            return readable(
                connection.execute(select(deliveries).where(mine).order_by(deliveries.c.number)).all(), _read
            )

    def delivered(self, one: Delivery, status: int) -> None:
        """Note that the receiver has taken a message."""
        self._end(one, {"state": DeliveryState.DELIVERED, "status": status, "reason": None, "ended_at": database_now()})

    def put_off(self, one: Delivery, reason: str, status: int | None, seconds: float) -> None:
        """Note that an attempt failed, and when the next one is due."""
        self._end(one, {"status": status, "reason": storable(reason), "due_at": database_now() + seconds})

    def give_up(self, one: Delivery, reason: str, status: int | None) -> None:
        """Note that a message is not sent any more, and why."""
        failed = {"state": DeliveryState.FAILED, "ended_at": database_now()}
        self._end(one, failed | {"status": status, "reason": storable(reason)})

    def unsubscribe(self, one: Delivery, reason: str) -> None:
        """End the webhook of a message: its receiver wants no more, neither what waits nor what would come."""
        same = (deliveries.c.task_id == one.task_id) & (deliveries.c.url == one.url)
        waiting = same & (deliveries.c.state == DeliveryState.PENDING) & deliveries.c.claim.is_(None)
        ended = {"state": DeliveryState.FAILED, "reason": reason, "ended_at": database_now()}
        hook = (webhooks.c.task_id == one.task_id) & (webhooks.c.url == one.url)
        with self._database.begin() as connection:
            connection.execute(update(deliveries).where(waiting).values(ended))
            connection.execute(delete(webhooks).where(hook))

    def release(self, one: Delivery) -> None:
        """Give a claim back: the attempt was interrupted by the operator and does not count."""
        mine = (deliveries.c.id == one.id) & (deliveries.c.claim == one.claim)
        with self._database.begin() as connection:
            connection.execute(update(deliveries).where(mine).values(claim=None, claimed_until=None))

    def redeliver(self, delivery_id: str) -> Delivery:
        """Send a message again from the first attempt on, whatever became of it; it keeps its id.

        Raises:
            DeliveryNotFound: there is none with this id.
        """
        values = {"state": DeliveryState.PENDING, "attempts": 0, "ended_at": None, "reason": None, "status": None}
        mine = (deliveries.c.id == delivery_id) & own(deliveries.c.owner)
        with self._database.begin() as connection:
            connection.execute(update(deliveries).where(mine).values(due_at=database_now(), **values))
        return self.get(delivery_id)

    def get(self, delivery_id: str) -> Delivery:
        """Return one message.

        Raises:
            DeliveryNotFound: there is none with this id.
        """
        with self._database.read() as connection:
            row = connection.execute(
                select(deliveries).where(deliveries.c.id == delivery_id, own(deliveries.c.owner))
            ).one_or_none()
        if row is None:
            raise DeliveryNotFound
        return _read(row)

    def list(
        self,
        *,
        states: Collection[DeliveryState] = (),
        task_id: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Delivery]:
        """Return messages, newest first; `before` is the id of the last one of the page before."""
        query = select(deliveries).where(own(deliveries.c.owner)).order_by(deliveries.c.number.desc()).limit(limit)
        if states:
            query = query.where(deliveries.c.state.in_(states))
        if task_id is not None:
            query = query.where(deliveries.c.task_id == task_id)
        if before is not None:
            number = (
                select(deliveries.c.number).where(deliveries.c.id == before, own(deliveries.c.owner)).scalar_subquery()
            )
            query = query.where(deliveries.c.number < number)
        with self._database.read() as connection:
            return readable(connection.execute(query).all(), _read)

    def counts(self, seconds: float | None = None) -> dict[DeliveryState, int]:
        """Return how many messages are in each state; with `seconds`, of those that ended only the newer ones."""
        query = select(deliveries.c.state, func.count()).where(own(deliveries.c.owner)).group_by(deliveries.c.state)
        if seconds is not None:
            query = query.where(or_(deliveries.c.ended_at.is_(None), deliveries.c.ended_at > database_now() - seconds))
        with self._database.read() as connection:
            found = {row[0]: row[1] for row in connection.execute(query)}
        return {state: found.get(state, 0) for state in DeliveryState}

    def _end(self, one: Delivery, values: dict[str, Any]) -> None:
        """End an attempt, unless somebody else has claimed the message since."""
        mine = (deliveries.c.id == one.id) & (deliveries.c.claim == one.claim)
        done = values | {"attempts": deliveries.c.attempts + 1, "claim": None, "claimed_until": None}
        with self._database.begin() as connection:
            connection.execute(update(deliveries).where(mine).values(done))


def _due() -> ColumnElement[bool]:
    free = or_(deliveries.c.claimed_until.is_(None), _has_come(deliveries.c.claimed_until, CLAIM_SECONDS))
    return and_(deliveries.c.state == DeliveryState.PENDING, _has_come(deliveries.c.due_at, LONGEST_PAUSE), free)


def _has_come(moment_of: Column[Any], longest: float) -> ColumnElement[bool]:
    """Whether a moment has come, or is further away than it ever was: then a clock was set."""
    return or_(moment_of <= database_now(), moment_of > database_now() + longest)


def old_deliveries(days: float) -> ColumnElement[bool]:
    """Whether a message ended long ago."""
    return deliveries.c.ended_at < database_now() - days * 86_400.0


def _read(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        task_id=row.task_id,
        event=row.event,
        type=row.type,
        url=row.url,
        host=row.host,
        secret=row.secret,
        body=row.body,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        created_at=moment(row.created_at),
        due_at=moment(row.due_at),
        ended_at=None if row.ended_at is None else moment(row.ended_at),
        status=row.status,
        reason=row.reason,
        claim=row.claim,
    )
