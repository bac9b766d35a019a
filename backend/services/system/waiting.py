"""Why each task in the queue does not run, in one sentence: what is paused, which worker is missing, who is first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from backend.core.domain import Task, TaskStatus, utcnow
from backend.services.downloads.state import waits_for_resume
from backend.store.control import Hold
from backend.store.order import QUEUE_SCOPE, device_scope
from backend.store.workers import WorkerInfo, WorkerState

PAUSED = "Paused: it continues from where it is when it is resumed"
QUEUE_PAUSED = "The queue is paused: no task starts until it is resumed"
DRAINED = "Every device is drained: no task starts until one is resumed"


class Waiting:
    """The reasons at one moment."""

    def __init__(
        self, positions: Mapping[str, int], holds: Sequence[Hold], workers: Sequence[WorkerInfo], no_worker: str | None
    ) -> None:
        """Note what was read: the positions of the ready tasks, and why no worker works, if that is known."""
        self._positions = positions
        scopes = {hold.scope for hold in holds}
        self.queue_paused = QUEUE_SCOPE in scopes
        self._general: str | None = None
        if self.queue_paused:
            self._general = QUEUE_PAUSED
        elif workers and all(device_scope(one.host, one.device) in scopes for one in workers):
            self._general = DRAINED
        elif workers and all(one.state is WorkerState.YIELDING and one.detail for one in workers):
            reasons = dict.fromkeys(one.detail for one in workers if one.detail)
            self._general = f"{'; '.join(reasons)}: this task waits, and starts automatically"
        self._no_worker = None if workers else no_worker

    def reason(self, task: Task) -> str | None:
        """Return why a task waits; None for one that runs or has ended."""
        if task.status is TaskStatus.PAUSED:
            return PAUSED
        if task.status is not TaskStatus.PENDING:
            return None
        pause = waits_for_resume(task.model)
        if task.download_paused:
            return pause
        # The message of a pause stays with its task, and is over once the download is resumed.
        own = None if task.message == pause else task.message
        return self._general or _later(task) or own or self._no_worker or self._turn(task)

    def position(self, task: Task) -> int | None:
        """Return its place among the tasks that are ready to run; 1 is next, None = it is not among them."""
        return self._positions.get(task.id) if task.status is TaskStatus.PENDING else None

    def _turn(self, task: Task) -> str:
        ahead = self._positions.get(task.id, 1) - 1
        if not ahead:
            return "Next in the queue: it starts when a worker is free"
        return f"{ahead} {'task runs' if ahead == 1 else 'tasks run'} before it"


def _later(task: Task) -> str | None:
    """Say when a failed attempt is repeated."""
    if task.next_retry_at is None or not task.repeats:
        return None
    seconds = max(1.0, (task.next_retry_at - utcnow()).total_seconds())
    return f"{(task.message or 'An attempt failed').rstrip('.')}: it is tried again in {seconds:.0f} s"
