"""The totals that triggers keep: how many tasks and videos each owner has. Reads them, and counts anew.

A page that only shows a number need not read fifty thousand rows for it.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, func, insert, literal_column, select

from backend.store.access.ownership import seen_by_caller
from backend.store.engine import Database
from backend.store.tables import gallery, gallery_totals, task_totals, tasks


def of_states() -> Select[Any]:
    """Select the number of tasks of each state in the queue view that the caller sees; a state may be missing."""
    # PostgreSQL adds whole numbers up to a decimal one.
    number = func.sum(task_totals.c.tasks).cast(task_totals.c.tasks.type)
    return (
        select(task_totals.c.status, number).where(seen_by_caller(task_totals.c.owner)).group_by(task_totals.c.status)
    )


def of_gallery(connection: Connection) -> tuple[int, int]:
    """Return how many videos of the gallery the caller sees, and the bytes of their files."""
    videos, size = (func.coalesce(func.sum(one), 0) for one in (gallery_totals.c.videos, gallery_totals.c.size_bytes))
    count, size_bytes = connection.execute(select(videos, size).where(seen_by_caller(gallery_totals.c.owner))).one()
    return int(count), int(size_bytes)


def recount(database: Database) -> bool:
    """Count everything anew, and return whether a total was wrong: by damage to the file, or by a hand in the tables.

    Raises:
        StoreFailed: the database cannot be read or written now.
    """
    with database.read() as connection:
        if all(_difference(connection, *each) is None for each in _COUNTED):
            return False
    found = False
    with database.begin() as connection:
        for totals, counted in _COUNTED:
            # Looked at again: somebody may have written meanwhile.
            rows = _difference(connection, totals, counted)
            if rows is not None:
                found = True
                connection.execute(delete(totals))
                if rows:
                    connection.execute(insert(totals), rows)
    return found


def _difference(
    connection: Connection, totals: Table, counted: Select[*tuple[Any, ...]]
) -> list[dict[str, Any]] | None:
    """Return the true rows of a table of totals; None where it has them. One without a row is a total of 0."""
    names = totals.columns.keys()
    true = {tuple(row) for row in connection.execute(counted)}
    kept = {tuple(row) for row in connection.execute(select(totals)) if any(row[len(totals.primary_key) :])}
    return None if true == kept else [dict(zip(names, row, strict=True)) for row in true]


def _owner(table: Table) -> ColumnElement[str]:
    # Not a parameter: PostgreSQL would take the one in the list and the one in GROUP BY for two.
    return func.coalesce(table.c.owner, literal_column("''"))


_COUNTED: Final[tuple[tuple[Table, Select[*tuple[Any, ...]]], ...]] = (
    (
        task_totals,
        select(_owner(tasks), tasks.c.status, func.count())
        .where(tasks.c.deleted_at.is_(None))
        .group_by(_owner(tasks), tasks.c.status),
    ),
    (
        gallery_totals,
        select(_owner(gallery), func.count(), func.sum(gallery.c.size_bytes))
        .where(gallery.c.trashed_at.is_(None))
        .group_by(_owner(gallery)),
    ),
)
