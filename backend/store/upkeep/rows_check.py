"""Reads every row of an SQLite database as the server does: a flipped bit in a text damages no page, only its row.

Opens the file read-only, so that a copy stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Engine, NullPool, Row, Table, create_engine, select
from sqlalchemy.exc import DBAPIError

from backend.core.domain import Task, TaskStatus
from backend.core.errors.generation import TaskUnreadable
from backend.core.errors.surroundings import StoreUnavailable
from backend.core.requests.forms import GenerationRequest
from backend.store.rows import strict_json, to_event, to_output, to_task
from backend.store.sqlite_file import open_to_read
from backend.store.tables import events, outputs, tasks

#: Most rows that are listed; a longer list helps nobody.
LISTED: Final = 20
#: Rows that are read without a break.
_BATCH: Final = 100


def unreadable_rows(path: Path, stop: Callable[[], bool] = lambda: False) -> list[str]:
    """Return the rows that cannot be read, at most twenty, each as its table, its key and the fault.

    The file must be intact and have the newest schema. `stop` is asked after every hundred rows, and may rest first.

    Raises:
        StoreUnavailable: the file cannot be read.
    """
    engine = create_engine(
        "sqlite://", creator=lambda: open_to_read(path), poolclass=NullPool, json_deserializer=strict_json
    )
    found: list[str] = []
    try:
        for table, key, read in (
            (tasks, tasks.c.id, _task),
            (events, events.c.id, to_event),
            (outputs, outputs.c.task_id, to_output),
        ):
            found += _of_table(engine, table, key, read, stop)
    except (DBAPIError, UnicodeDecodeError) as error:
        raise StoreUnavailable("Not every row of the database could be read") from error
    return found[:LISTED]


def _of_table(
    engine: Engine, table: Table, key: ColumnElement[Any], read: Callable[[Row[Any]], object], stop: Callable[[], bool]
) -> list[str]:
    found: list[str] = []
    for batch in _keys(engine, key):
        if stop() or len(found) >= LISTED:
            break
        if _fault(engine, table, key, batch, read) is not None:
            faults = ((one, _fault(engine, table, key, [one], read)) for one in batch)
            found += [f"{table.name} {_shown(one)}: {fault}" for one, fault in faults if fault is not None]
    return found


def _keys(engine: Engine, key: ColumnElement[Any]) -> Iterator[Sequence[Any]]:
    """Yield all keys of a table, in order, a hundred at a time."""
    last: list[Any] = []
    while True:
        after = [key > one for one in last]
        with engine.connect() as connection:
            keys = connection.execute(select(key).where(*after).order_by(key).limit(_BATCH)).scalars().all()
        if not keys:
            return
        yield keys
        last = [keys[-1]]


def _fault(
    engine: Engine, table: Table, key: ColumnElement[Any], keys: Sequence[Any], read: Callable[[Row[Any]], object]
) -> str | None:
    """Return why one of these rows cannot be read."""
    with engine.connect() as connection:
        try:
            for row in connection.execute(select(table).where(key.in_(keys))):
                for value in row:
                    if isinstance(value, str):
                        value.encode()
                read(row)
        except (TaskUnreadable, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            return f"{type(error).__name__}: {_shown(error)}"
    return None


def _shown(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()


def _task(row: Row[Any]) -> Task:
    if row.attempt or row.status != TaskStatus.COMPLETED:  # nobody asked for an imported clip
        GenerationRequest.from_json(row.request)
    return to_task(row)
