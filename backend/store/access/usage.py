"""What keys have used of the devices, by UTC day: the seconds for which workers held their tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Integer, Row, cast, func, insert, select, update

from backend.core.access.caller import current_caller
from backend.core.domain import TERMINAL, TaskStatus
from backend.core.errors.access import QuotaExceeded
from backend.store.engine import Database
from backend.store.tables import database_now, key_usage, tasks

DAY_SECONDS: Final = 86_400
#: When to ask again whether one of many tasks has ended, in seconds; when that will be is not known.
_TASK_ENDS_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """What one key has used so far."""

    gpu_seconds_today: float  #: of this UTC day, with what runs now
    seconds_left_today: float  #: until the next UTC day begins
    waiting_tasks: int  #: that have not ended


def _today() -> ColumnElement[int]:
    return cast(func.floor(database_now() / DAY_SECONDS), Integer)


def charge(connection: Connection, row: Row[Any]) -> None:
    """Add the attempt that has just ended to what the owner of the task has used."""
    if row.owner is None or row.started_at is None:
        return
    day, now = connection.execute(select(_today(), database_now())).one()
    seconds = max(0.0, float(now) - row.started_at)
    mine = (key_usage.c.key_id == row.owner) & (key_usage.c.day == int(day))
    more = update(key_usage).where(mine).values(gpu_seconds=key_usage.c.gpu_seconds + seconds)
    if connection.execute(more).rowcount == 0:
        connection.execute(insert(key_usage).values(key_id=row.owner, day=int(day), gpu_seconds=seconds))


class UsageOfKeys:
    """Reads what keys have used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, key_id: str) -> KeyUsage:
        """Return what one key has used today."""
        with self._database.read() as connection:
            return _usage(connection, key_id)


def refuse_beyond_limits(connection: Connection, new: int) -> None:
    """Check whether the current caller may queue this many tasks; nothing changes until the transaction ends.

    Raises:
        QuotaExceeded: its seconds of this day are used up, or it would have too many unfinished tasks.
    """
    caller = current_caller()
    seconds, most = caller.limits.gpu_seconds_per_day, caller.limits.waiting_tasks
    if caller.key_id is None or not new or (seconds is None and most is None):
        return
    used = _usage(connection, caller.key_id)
    if seconds is not None and used.gpu_seconds_today >= seconds:
        raise QuotaExceeded(
            f"This key has used its {seconds:g} seconds of computing for today; they are renewed at midnight UTC",
            seconds=used.seconds_left_today,
        )
    if most is not None and used.waiting_tasks + new > most:
        raise QuotaExceeded(
            f"This key may have {most} unfinished tasks, and has {used.waiting_tasks}", seconds=_TASK_ENDS_SECONDS
        )


def _usage(connection: Connection, key_id: str) -> KeyUsage:
    day = select(key_usage.c.gpu_seconds).where(key_usage.c.key_id == key_id, key_usage.c.day == _today())
    mine = tasks.c.owner == key_id
    running = select(func.coalesce(func.sum(database_now() - tasks.c.started_at), 0.0)).where(
        mine, tasks.c.status == TaskStatus.PROCESSING
    )
    unfinished = select(func.count()).where(mine, tasks.c.status.not_in(TERMINAL))
    ended = connection.execute(day).scalar_one_or_none() or 0.0
    active = float(connection.execute(running).scalar_one())
    waiting = int(connection.execute(unfinished).scalar_one())
    now = float(connection.execute(select(database_now())).scalar_one())
    return KeyUsage(float(ended) + active, DAY_SECONDS - now % DAY_SECONDS, waiting)
