"""Answers to calls that created something, kept for clients that repeat a call because they lost its answer.

Knows calls, keys and bytes, not what was created. Tasks have their keys in their own rows, written in the transaction
that queues them; a call that is kept here is one whose repetition after a crash does no harm.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, delete, insert, or_, select, update

from backend.core.errors.lookups import IdempotencyInProgress
from backend.store.access.ownership import key_of_caller
from backend.store.engine import Database
from backend.store.tables import answers, database_now

#: How long an answer is kept; a client that lost it has repeated its call by then.
KEEP_SECONDS: Final = 86_400.0
#: A call that has not ended after this long is one whose server died. Longer than the slowest upload.
LOST_SECONDS: Final = 1_800.0


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """A call that ended, and what it was answered."""

    fingerprint: str  #: of the body of the call
    status: int
    body: str


class AnswerStore:
    """Reserves keys, and keeps and returns answers; thread-safe."""

    def __init__(self, database: Database, holder: str) -> None:
        """`holder` identifies the home folder, which no two servers share at one time."""
        self._database = database
        self._holder = holder

    def forget_unfinished(self) -> None:
        """Free the keys of calls that an earlier server of this home did not end."""
        mine = (answers.c.holder == self._holder) & answers.c.status.is_(None)
        with self._database.begin() as connection:
            connection.execute(delete(answers).where(mine))

    def begin(self, call: str, key: str) -> str | KeptAnswer:
        """Reserve a key for a call and return the token of the reservation, or return the answer of the first call.

        Equal keys of different callers are different.

        Raises:
            IdempotencyInProgress: the first call has not ended.
        """
        key = str(key_of_caller(key))
        mine = (answers.c.call == call) & (answers.c.key == key)
        token = secrets.token_hex(16)
        values = {"call": call, "key": key, "token": token, "holder": self._holder, "created_at": database_now()}
        with self._database.begin() as connection:
            connection.execute(delete(answers).where(mine, old_answers()))
            known = connection.execute(select(answers).where(mine)).one_or_none()
            if known is None:
                connection.execute(insert(answers).values(values))
                return token
        if known.status is None:
            raise IdempotencyInProgress
        return KeptAnswer(known.fingerprint, known.status, known.body)

    def keep(self, token: str, answer: KeptAnswer) -> None:
        """Keep the answer of a call."""
        values = {"fingerprint": answer.fingerprint, "status": answer.status, "body": answer.body}
        with self._database.begin() as connection:
            connection.execute(update(answers).where(answers.c.token == token).values(values))

    def release(self, token: str) -> None:
        """Free the key of a call that was refused or failed, so that it can be repeated."""
        with self._database.begin() as connection:
            connection.execute(delete(answers).where(answers.c.token == token))


def old_answers() -> ColumnElement[bool]:
    """Whether an answer has been kept long enough, or its call was lost."""
    lost = and_(answers.c.status.is_(None), answers.c.created_at < database_now() - LOST_SECONDS)
    return or_(answers.c.created_at < database_now() - KEEP_SECONDS, lost)
