"""Takes unfinished tasks over from a damaged SQLite database: those that are newer than the copy that replaced it.

Each row is looked up by its number, so that a damaged page costs only the rows in it. Videos are not salvaged here:
finished ones are added again from their files.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select

from backend.core.domain import TERMINAL, EventType, TaskStatus
from backend.core.requests.forms import GenerationRequest
from backend.store.engine import Database
from backend.store.leases import UNTOUCHED
from backend.store.sqlite_file import open_to_read
from backend.store.tables import tasks
from backend.store.transition import append

#: What a task keeps of its row; everything else is as if it had just been queued.
_KEPT: Final = ("id", "model", "priority", "max_attempts", "idempotency_key", "fingerprint", "created_at")
_FAULTS: Final = (ValueError, TypeError, KeyError, AttributeError)
#: Most numbers that are looked up; a damaged counter could name any.
_MOST: Final = 100_000


def salvage_tasks(damaged: Path, database: Database) -> int:
    """Queue the unfinished tasks that only the damaged file has, in their order; return how many.

    Raises:
        StoreFailed: the database cannot be written; those queued so far stay.
    """
    with database.read() as connection:
        newest = connection.execute(select(func.coalesce(func.max(tasks.c.number), 0))).scalar_one()
    taken = 0
    for row in _unfinished(damaged, newest):
        with database.begin() as connection:
            taken += _queue(connection, row)
    return taken


def _unfinished(damaged: Path, newest: int) -> Iterator[dict[str, Any]]:
    """Yield what can be read of the unfinished tasks with a higher number than the newest one of the copy."""
    try:
        with closing(open_to_read(damaged)) as connection:
            connection.row_factory = sqlite3.Row
            connection.text_factory = str  # a row with bytes that are no text is an error, and is left
            last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'tasks'").fetchone()
            for number in range(newest + 1, min(int(last["seq"]) if last else 0, newest + _MOST) + 1):
                try:
                    found = connection.execute("SELECT * FROM tasks WHERE number = ?", (number,)).fetchone()
                except (sqlite3.DatabaseError, UnicodeDecodeError):
                    continue  # its page is damaged
                if found is not None and found["status"] not in TERMINAL and found["deleted_at"] is None:
                    yield dict(found)
    except (sqlite3.DatabaseError, UnicodeDecodeError, IndexError):
        return  # nothing of it can be read


def _queue(connection: Connection, row: dict[str, Any]) -> bool:
    """Queue one task, unless its row does not make sense or the database has it."""
    try:
        request, adjustments = json.loads(row["request"]), json.loads(row["adjustments"])
        form = GenerationRequest.from_json(request)
        kept = {name: row[name] for name in _KEPT}
    except _FAULTS:
        return False
    known = tasks.c.id == kept["id"]
    if kept["idempotency_key"] is not None:
        known |= tasks.c.idempotency_key == kept["idempotency_key"]
    if connection.execute(select(tasks.c.id).where(known)).first() is not None:
        return False
    status = TaskStatus.PAUSED if row["status"] == TaskStatus.PAUSED else TaskStatus.PENDING
    state = {"status": status, "request": request, "adjustments": adjustments, "attempt": 0, "last_event": 1}
    place = select(func.coalesce(func.max(tasks.c.number), 0) + 1).scalar_subquery()
    connection.execute(insert(tasks).values(kept | state | UNTOUCHED | {"place": place}))
    inserted = connection.execute(select(tasks).where(tasks.c.id == kept["id"])).one()
    data = {"model": form.model, "prompt": form.prompt, "resolution": form.resolution, "salvaged": True}
    append(connection, inserted, EventType.SUBMITTED, data)
    return True
