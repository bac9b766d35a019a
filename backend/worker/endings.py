"""What an error means for the attempt that it ended: repeat it, let it wait, give the task up, or end the process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import structlog

from backend.core.errors.base import WanError
from backend.core.errors.cuda import DeviceFailed
from backend.core.errors.models import HubRateLimited, HubUnreachable
from backend.core.errors.repeats import pause_before_repeat
from backend.core.errors.surroundings import StorageFull
from backend.models.download.hub import hub_is_forbidden
from backend.services.system.surroundings import Surroundings
from backend.worker.absent_hub import AbsentHub
from backend.worker.attempt import Attempt

log = structlog.get_logger(__name__)


def hold(attempt: Attempt, reason: str, again_in: float | None = None) -> Callable[[], None]:
    """Return the call that hands a task back until `reason` is gone; the attempt does not count."""
    log.warning("task.handed_back", reason=reason)
    sentence = f"{reason.rstrip('.')}: this task waits, and continues automatically"
    return partial(attempt.release, sentence, again_in)


class Endings:
    """The rules of one worker."""

    def __init__(
        self, surroundings: Surroundings, hub: AbsentHub, lacks: Callable[[str], bool], retry_seconds: float
    ) -> None:
        """Prepare.

        Args:
            surroundings: the folders and disks.
            hub: remembers which models the hub did not serve.
            lacks: whether the files of a model are not complete on this machine.
            retry_seconds: the pause before the first repeat.
        """
        self._surroundings = surroundings
        self._hub = hub
        self._lacks = lacks
        self._retry_seconds = retry_seconds
        self.last_words: str | None = None  #: why this process must end, although nobody asked it to

    def of(self, attempt: Attempt, error: WanError) -> Callable[[], None]:
        """Return the call that records an attempt which this error ended."""
        task = attempt.task
        if isinstance(error, DeviceFailed):
            self.last_words = f"{error.message.rstrip('.')} while it worked on {task.id}"
            return partial(attempt.lose_device, error)
        if isinstance(error, HubUnreachable | HubRateLimited):
            return self._wait_for_hub(attempt, error)
        # A model that is missing needs more room than any video: others must not wait for it.
        if isinstance(error, StorageFull) and not self._lacks(task.model):
            self._surroundings.ran_out_of_room()
            return hold(attempt, error.message)
        return self._failed(attempt, error)

    def _failed(self, attempt: Attempt, error: WanError) -> Callable[[], None]:
        """End the attempt, unless its surroundings are to blame: then the task waits for them."""
        fault = self._surroundings.refusal()
        if fault is not None:
            return hold(attempt, fault)
        log.warning("task.attempt_failed", error=error.code, message=error.message)
        return partial(attempt.fail, error, lambda repeats: pause_before_repeat(error, repeats, self._retry_seconds))

    def _wait_for_hub(self, attempt: Attempt, error: WanError) -> Callable[[], None]:
        """Let the task wait until the hub answers, and others run meanwhile; fail it where nobody may ask the hub."""
        if hub_is_forbidden():
            return self._failed(attempt, error)
        return hold(attempt, error.message, self._hub.failed(attempt.task.model))
