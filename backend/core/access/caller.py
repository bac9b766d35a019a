"""Who a request comes from, and what that key may do. Travels with the request, also into its threads.

Workers, commands and background threads act as the operator, who sees everything. Knows no store and no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Scope(StrEnum):
    """What a key may do. Every key may read; `admin` may do everything and sees what belongs to every key."""

    READ = "read"  # look at its own things and at the state of the server
    GENERATE = "generate"  # queue and change tasks, delete videos
    MODELS = "models"  # download and delete models and LoRAs
    ADMIN = "admin"  # settings, workers, keys


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may use; None is no limit."""

    requests_per_minute: int | None = None
    gpu_seconds_per_day: float | None = None  #: of a UTC day, over all attempts
    waiting_tasks: int | None = None  #: that have not ended


@dataclass(frozen=True, slots=True)
class Caller:
    """One key at work."""

    key_id: str | None  #: None: `OPERATOR` or `ANYBODY`
    name: str
    scopes: frozenset[Scope]
    limits: KeyLimits = field(default_factory=KeyLimits)

    def may(self, scope: Scope) -> bool:
        """Whether the key has a scope."""
        return scope is Scope.READ or scope in self.scopes or Scope.ADMIN in self.scopes

    @property
    def confined_to(self) -> str | None:
        """The owner whose things alone it sees; None when it sees everything."""
        return None if Scope.ADMIN in self.scopes else self.key_id


#: The key in the environment, the home's own user, and everything that is not a request.
OPERATOR: Final = Caller(None, "operator", frozenset(Scope))
#: Anybody, on a server without keys.
ANYBODY: Final = Caller(None, "anybody", frozenset(Scope))
_caller: ContextVar[Caller] = ContextVar("caller", default=OPERATOR)


def current_caller() -> Caller:
    """Return who is served now; outside of requests the operator."""
    return _caller.get()


@contextmanager
def acting_as(caller: Caller) -> Iterator[None]:
    """Serve somebody while the block runs."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)
