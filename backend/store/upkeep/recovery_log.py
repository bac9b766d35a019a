"""What was done to recover, by the server itself or by somebody: the table `recovery_actions`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select, update

from backend.store.engine import Database
from backend.store.rows import moment, readable, storable
from backend.store.tables import database_now, recovery_actions

#: The newest actions that are kept.
KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class RecordedAction:
    """One action, as it was carried out."""

    id: int
    failure_type: str
    action: str
    reason: str  #: what was found, or who asked
    automatic: bool
    succeeded: bool
    message: str  #: what was done, or why nothing was
    seconds: float
    undo: dict[str, Any] | None  #: how to take it back; None = there is nothing to take back
    created_at: datetime
    undone_at: datetime | None

    @property
    def in_force(self) -> bool:
        """Whether it changed something that can still be taken back."""
        return self.undo is not None and self.undone_at is None


class RecoveryLog:
    """Reads and writes the table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        *,
        failure_type: str,
        action: str,
        reason: str,
        automatic: bool,
        succeeded: bool,
        message: str,
        seconds: float,
        undo: dict[str, Any] | None,
    ) -> RecordedAction:
        """Record an action and return it."""
        values = {
            "failure_type": failure_type,
            "action": action,
            "reason": storable(reason),
            "automatic": automatic,
            "succeeded": succeeded,
            "message": storable(message),
            "seconds": seconds,
            "undo": undo,
            "created_at": database_now(),
        }
        with self._database.begin() as connection:
            added = connection.execute(insert(recovery_actions).values(values).returning(*recovery_actions.c)).one()
            connection.execute(delete(recovery_actions).where(recovery_actions.c.id <= added.id - KEPT))
        return _action(added)

    def list(self, limit: int = KEPT) -> list[RecordedAction]:
        """Return the newest actions, newest first."""
        query = select(recovery_actions).order_by(recovery_actions.c.id.desc()).limit(limit)
        with self._database.read() as connection:
            return readable(connection.execute(query).all(), _action)

    def automatic_since(self, action: str, seconds: float) -> int:
        """Count how often the server carried out an action by itself in the last `seconds` seconds."""
        query = select(func.count()).where(
            recovery_actions.c.action == action,
            recovery_actions.c.automatic,
            recovery_actions.c.created_at > database_now() - seconds,
        )
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def undone(self, action_id: int) -> None:
        """Note that an action was taken back."""
        mine = recovery_actions.c.id == action_id
        with self._database.begin() as connection:
            connection.execute(update(recovery_actions).where(mine).values(undone_at=database_now()))


def _action(row: Row[Any]) -> RecordedAction:
    return RecordedAction(
        id=row.id,
        failure_type=row.failure_type,
        action=row.action,
        reason=row.reason,
        automatic=row.automatic,
        succeeded=row.succeeded,
        message=row.message,
        seconds=row.seconds,
        undo=row.undo,
        created_at=moment(row.created_at),
        undone_at=None if row.undone_at is None else moment(row.undone_at),
    )
