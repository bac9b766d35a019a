"""Turns whatever ends an attempt into an error of the tree, and writes the complete detail to the log.

Recognises the errors of libraries by their class names and texts, so that it imports none of them. Decides which
errors the worker process does not survive; ending it is the worker's part.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterator
from typing import Final

import structlog

from backend.core.catalogue.table import find_model
from backend.core.domain import Task
from backend.core.errors.actions import resubmit
from backend.core.errors.base import Action, Severity, WanError
from backend.core.errors.cuda import DEVICE_KINDS, DEVICE_MEMORY_SIGNS, HOST_MEMORY_SIGNS
from backend.core.errors.generation import FileUnusable, GenerationFailed, OutOfMemory, UnexpectedFailure
from backend.core.errors.models import HubUnreachable, ModelDamaged
from backend.core.errors.requests import InvalidRequest
from backend.core.errors.surroundings import StorageFull
from backend.core.requests.forms import GenerationRequest
from backend.core.requests.frame_size import TEMPORAL_STRIDE, snap_frames

#: Packages whose errors are those of the network.
_NETWORK_PACKAGES: Final = {"httpx", "httpx2", "httpcore", "httpcore2"}
_FULL_DISK: Final = {errno.ENOSPC, errno.EDQUOT}
_LEVELS: Final = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.ERROR: logging.ERROR,
    Severity.CRITICAL: logging.CRITICAL,
}

log = structlog.get_logger(__name__)


class GenerationErrorHandler:
    """The errors of one worker."""

    def __init__(self, worker_id: str) -> None:
        self._worker_id = worker_id

    def explain(self, error: BaseException, task: Task | None = None) -> WanError:
        """Return the error of the tree for what ended an attempt at `task`, or the start of the worker (None).

        The log gets everything: the error with its causes, the task, its attempt and the worker. Where the error is
        one of ours and nothing else caused it, its sentence says what a traceback would.
        """
        failure = classify(error)
        if task is not None and not failure.actions and isinstance(failure, OutOfMemory):
            failure.actions = _less_memory(task)
        log.log(
            _LEVELS[failure.severity],
            "error.explained",
            error=failure.code,
            category=failure.category.value,
            severity=failure.severity.value,
            retryable=failure.retryable,
            ends_process=failure.ends_process,
            message=failure.message,
            actions=list(failure.actions),
            cause=type(error).__name__,
            task_id=None if task is None else task.id,
            attempt=None if task is None else task.attempt,
            worker_id=self._worker_id,
            exc_info=None if isinstance(error, WanError) and error.__cause__ is None else error,
        )
        return failure


def classify(error: BaseException) -> WanError:
    """Return the error of the tree that an exception is, or stands for.

    An error that the process does not survive counts wherever it is in the chain of causes: what was raised because
    of it may say something else.
    """
    for one in _chain(error):
        kind = _device_kind(one)
        if kind is not None and kind.ends_process:
            return kind()
    if isinstance(error, WanError):
        return error
    return _of_memory(error) or _of_device(error) or _of_system(error) or _unforeseen(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and what led to it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _device_kind(error: BaseException) -> type[GenerationFailed] | None:
    """Return the error of a device that the text of an exception of torch names."""
    if not isinstance(error, RuntimeError) or _of_memory(error) is not None:
        return None
    text = str(error).lower()
    return next((kind for kind in DEVICE_KINDS if any(sign in text for sign in kind.signs)), None)


def _of_device(error: BaseException) -> WanError | None:
    kind = _device_kind(error)
    return None if kind is None else kind()


def _of_memory(error: BaseException) -> WanError | None:
    text = str(error).lower()
    if isinstance(error, RuntimeError):
        if type(error).__name__ == "OutOfMemoryError" or any(sign in text for sign in DEVICE_MEMORY_SIGNS):
            return OutOfMemory()
        if any(sign in text for sign in HOST_MEMORY_SIGNS):
            return OutOfMemory("This machine ran out of memory", host=True)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return OutOfMemory("This machine ran out of memory", host=True)
    return None


def _of_system(error: BaseException) -> WanError | None:
    """Recognise errors of the disk, the network and of files of models."""
    if type(error).__name__ == "SafetensorError":
        return ModelDamaged("A file of the model cannot be read")
    if isinstance(error, socket.gaierror) or type(error).__module__.partition(".")[0] in _NETWORK_PACKAGES:
        return HubUnreachable()
    if isinstance(error, OSError) and error.errno in _FULL_DISK:
        return StorageFull()
    return FileUnusable() if isinstance(error, OSError) else None


def _unforeseen(error: BaseException) -> WanError:
    return UnexpectedFailure(f"The video could not be generated: {type(error).__name__}")


def _less_memory(task: Task) -> tuple[Action, ...]:
    """Return the same request with about half the frames, which needs about half the memory for latents and pixels."""
    request = GenerationRequest.from_json(task.request)
    if request.latents_of is not None:  # the number of frames is that of the latents
        return ()
    half = (request.num_frames - 1) // (2 * TEMPORAL_STRIDE) * TEMPORAL_STRIDE + 1
    try:
        frames, _ = snap_frames(find_model(request.model), half)
    except InvalidRequest:  # the model is no longer known
        return ()
    return (resubmit(num_frames=frames),) if frames < request.num_frames else ()
