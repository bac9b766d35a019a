"""Tells a worker that stopped answering from one that was suspended together with its observer.

An observer counts only the time in which it was running itself: how long it has seen a lease unchanged, by its own
monotonic clock. So neither a suspended machine, nor a paused virtual machine, nor a clock that is set costs an attempt,
and no two machines need to agree on the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from backend.core.errors.surroundings import StoreFailed
from backend.store.leases import Lease
from backend.store.tasks import TaskStore

#: An interval between two looks that is longer than planned by this factor, plus a second for a busy machine, means
#: that the observer was not running: whatever it knows about silence is void.
_LATE: Final = 2.0
_BUSY_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Observed:
    lease: Lease
    since: float  #: when this lease was first seen as it is now
    cancel_since: float | None  #: when the request to cancel was first seen


class SilenceWatch:
    """What one process has observed of the leases; call `look` at a steady interval."""

    def __init__(self, tasks: TaskStore, interval_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._tasks = tasks
        self._longest_gap = _LATE * interval_seconds + _BUSY_SECONDS
        self._clock = clock
        self._looked_at: float | None = None
        self._observed: dict[str, _Observed] = {}

    def look(self) -> None:
        """Read the leases.

        Raises:
            StoreUnavailable: they could not be read; what was observed so far is forgotten.
        """
        known, self._observed = self._observed, {}
        leases = self._tasks.leases()
        now = self._clock()
        if self._looked_at is None or now - self._looked_at > self._longest_gap:
            if known:
                log.info("silence.observer_was_away", seconds=now - (self._looked_at or now))
            known = {}
        self._looked_at = now
        for lease in leases:
            before = known.get(lease.token)
            same = before is not None and before.lease.mark == lease.mark
            cancel_since = None if before is None else before.cancel_since
            if lease.cancel_requested and cancel_since is None:
                cancel_since = now
            since = before.since if before is not None and same else now
            self._observed[lease.token] = _Observed(lease, since, cancel_since)

    def silent(self, seconds: float) -> list[Lease]:
        """Return the leases that nobody has renewed for this long."""
        now = self._looked_at or 0.0
        return [one.lease for one in self._observed.values() if now - one.since >= seconds]

    def deaf(self, seconds: float) -> list[Lease]:
        """Return the leases whose workers have had a request to cancel for this long and still hold the task."""
        now = self._looked_at or 0.0
        return [
            one.lease
            for one in self._observed.values()
            if one.cancel_since is not None and now - one.cancel_since >= seconds
        ]

    def recover(self, seconds: float, *, except_of: str | None) -> None:
        """Look, and take back the tasks of silent workers other than `except_of`.

        Raises:
            StoreUnavailable, StorageFull: the next call tries again.
        """
        self.look()
        if self.silent(seconds / 2):
            self._prove_writable()
        self.take_back([lease for lease in self.silent(seconds) if lease.worker_id != except_of])

    def _prove_writable(self) -> None:
        """Write, as the silent workers should have: where nobody can, all that was observed so far is void.

        Done at every look in the second half of a lease, so that a worker that had to wait for a locked database comes
        first. A write that waits for long makes the next look late, which voids everything as well.
        """
        try:
            self._tasks.prove_writable()
        except StoreFailed:
            self._observed = {}
            raise

    def take_back(self, leases: list[Lease]) -> list[str]:
        """Take back the tasks of these leases, unless their workers answer after all; return their ids.

        Raises:
            StoreUnavailable, StorageFull: nothing can be written, and so the workers cannot renew their leases either:
                what was observed so far is forgotten.
        """
        try:
            recovered = self._tasks.recover_silent(leases)
        except StoreFailed:
            self._observed = {}
            raise
        if recovered:
            log.warning("silence.recovered", tasks=recovered)
        return recovered
