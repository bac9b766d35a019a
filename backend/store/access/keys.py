"""The stored API keys: created, listed, revoked. Of a key itself only the digest is kept.

Rows stay after a key was revoked, because its things name it as their owner.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, func, insert, or_, select, update

from backend.core.access.caller import Caller, KeyLimits, Scope
from backend.core.access.text import NewKey
from backend.core.domain import iso, utcnow
from backend.core.errors.access import KeyNameTaken, KeyNotFound
from backend.core.errors.requests import InvalidRequest
from backend.store.engine import Database
from backend.store.rows import moment, readable
from backend.store.tables import api_keys, database_now

LONGEST_NAME: Final = 100


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored."""

    id: str
    name: str
    digest: str
    scopes: tuple[Scope, ...]
    limits: KeyLimits
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    @property
    def state(self) -> str:
        """One of valid, expired, revoked."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= utcnow() else "valid"

    @property
    def caller(self) -> Caller:
        """Who a request with this key comes from."""
        return Caller(self.id, self.name, frozenset(self.scopes), self.limits)

    def to_json(self) -> dict[str, Any]:
        """Return what may be shown of it, which is all but the digest."""
        times = {"created_at": self.created_at, "expires_at": self.expires_at}
        times |= {"revoked_at": self.revoked_at, "last_used_at": self.last_used_at}
        return {
            "id": self.id,
            "name": self.name,
            "scopes": list(self.scopes),
            "state": self.state,
            **{name: None if when is None else iso(when) for name, when in times.items()},
            **asdict(self.limits),
        }


class KeyStore:
    """All operations on stored keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, key: NewKey, name: str, scopes: Collection[Scope], limits: KeyLimits, expires_in: float | None = None
    ) -> ApiKey:
        """Store a key that was just drawn; `expires_in` is in seconds.

        Raises:
            InvalidRequest: the name is empty, too long or not printable, or there is no scope.
            KeyNameTaken: a valid key has this name.
        """
        name = name.strip()
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise InvalidRequest(
                f"The name of a key has 1 to {LONGEST_NAME} printable characters", details={"field": "name"}
            )
        if not scopes:
            raise InvalidRequest("A key needs at least one scope", details={"field": "scopes"})
        values: dict[str, Any] = {
            "id": key.id,
            "name": name,
            "digest": key.digest,
            "scopes": [str(scope) for scope in Scope if scope in scopes],
            "created_at": database_now(),
            "expires_at": None if expires_in is None else database_now() + expires_in,
            "requests_per_minute": limits.requests_per_minute,
            "gpu_seconds_per_day": limits.gpu_seconds_per_day,
            "waiting_tasks": limits.waiting_tasks,
        }
        unexpired = or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > database_now())
        with self._database.begin() as connection:
            same = select(api_keys.c.id).where(api_keys.c.name == name, api_keys.c.revoked_at.is_(None), unexpired)
            if connection.execute(same).first() is not None:
                raise KeyNameTaken
            connection.execute(insert(api_keys).values(values))
            return _to_key(connection.execute(select(api_keys).where(api_keys.c.id == key.id)).one())

    def any(self) -> bool:
        """Whether a key was ever stored, readable or not: damage must not open a server that asked for keys."""
        with self._database.read() as connection:
            return connection.execute(select(api_keys.c.id).limit(1)).first() is not None

    def all(self) -> list[ApiKey]:
        """Return every key that can be read, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)).all()
        return readable(rows, _to_key)

    def revoke(self, key_id: str) -> ApiKey:
        """End a key; revoking it again changes nothing.

        Raises:
            KeyNotFound: there is none.
        """
        mine = api_keys.c.id == key_id
        with self._database.begin() as connection:
            when = func.coalesce(api_keys.c.revoked_at, database_now())
            connection.execute(update(api_keys).where(mine).values(revoked_at=when))
            row = connection.execute(select(api_keys).where(mine)).one_or_none()
        if row is None:
            raise KeyNotFound
        return _to_key(row)

    def note_use(self, used: Mapping[str, datetime]) -> None:
        """Record when keys were last used."""
        with self._database.begin() as connection:
            for key_id, when in used.items():
                change = update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=when.timestamp())
                connection.execute(change)


def _to_key(row: Row[Any]) -> ApiKey:
    def when(seconds: float | None) -> datetime | None:
        return None if seconds is None else moment(seconds)

    return ApiKey(
        id=row.id,
        name=row.name,
        digest=row.digest,
        scopes=tuple(Scope(scope) for scope in row.scopes),
        limits=KeyLimits(row.requests_per_minute, row.gpu_seconds_per_day, row.waiting_tasks),
        created_at=moment(row.created_at),
        expires_at=when(row.expires_at),
        revoked_at=when(row.revoked_at),
        last_used_at=when(row.last_used_at),
    )
