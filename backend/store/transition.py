"""The only way to change the state of a task: a guarded UPDATE and a numbered event, in the caller's transaction.

The table in `core/domain.py` defines which transitions are legal; only `TaskStore` requests them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from backend.core.domain import TERMINAL, TRANSITIONS, EventType, TaskStatus
from backend.store.access.usage import charge
from backend.store.clients.outbox import announce
from backend.store.tables import database_now, events, tasks


def apply(
    connection: Connection,
    task_id: str,
    origins: Collection[TaskStatus],
    target: TaskStatus,
    event: EventType,
    data: Callable[[Row[Any]], dict[str, Any]] | None = None,
    *,
    token: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> Row[Any] | None:
    """Move a task from one of `origins` to `target`, set `values`, and record the event; return the changed row.

    `data` makes the event's data from the changed row. Returns None, and changes nothing, when the task is in
    another state or `token` is given and is not its lease token.

    Raises:
        ValueError: the transition is not in the table.
    """
    illegal = {(origin, target) for origin in origins if origin is not target} - TRANSITIONS
    if illegal:
        raise ValueError(f"not in the transition table: {sorted(illegal)}")
    changes: dict[str, Any] = {"status": target, "last_event": tasks.c.last_event + 1, **(values or {})}
    if target is not TaskStatus.PROCESSING:
        changes |= {"lease_token": None, "lease_expires_at": None}
    if target in TERMINAL and target not in origins:
        changes |= {"completed_at": database_now()}
    statement = update(tasks).where(tasks.c.id == task_id, tasks.c.status.in_(origins))
    if token is not None:
        statement = statement.where(tasks.c.lease_token == token)
    row = connection.execute(statement.values(changes).returning(*tasks.c)).one_or_none()
    if row is not None and TaskStatus.PROCESSING in origins and target is not TaskStatus.PROCESSING:
        charge(connection, row)
    if row is not None:
        append(connection, row, event, data(row) if data else {})
    return row


def append(connection: Connection, row: Row[Any], event: EventType, data: dict[str, Any]) -> None:
    """Record an event under the number in `row.last_event`, with the messages to the webhooks of the task."""
    values = {"task_id": row.id, "number": row.last_event, "type": event, "data": data, "created_at": database_now()}
    connection.execute(insert(events).values(values))
    announce(connection, row, event, data)


def append_all(connection: Connection, task_ids: Sequence[str], event: EventType, data: dict[str, Any]) -> None:
    """Record one event, with the same data, for each of these tasks; their states stay, and unknown ids are skipped."""
    if not task_ids:
        return
    counted = update(tasks).where(tasks.c.id.in_(task_ids)).values(last_event=tasks.c.last_event + 1)
    numbers = {row[0]: row[1] for row in connection.execute(counted.returning(tasks.c.id, tasks.c.last_event))}
    made = {"type": event, "data": data, "created_at": connection.execute(select(database_now())).scalar_one()}
    rows = [made | {"task_id": one, "number": numbers[one]} for one in task_ids if one in numbers]
    if rows:
        connection.execute(insert(events), rows)
