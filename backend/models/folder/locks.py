"""Keeps queuing a task for a model and removing that model apart, over all threads and processes of one home.

Both are short. The lock of the model's folder is another one: a download holds that for hours, while tasks are queued.

Who changes a model's folder: one at a time, over all threads and processes; the others wait and say how far it is.

Knows nothing of what is done in the turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from filelock import FileLock, Timeout

from backend.core.catalogue.table import ModelSpec
from backend.core.domain import DownloadPhase, DownloadProgress, OnProgress
from backend.core.errors import ModelUnavailable
from backend.core.paths import Home
from backend.models.folder.progress import read_status

#: How long the other side is waited for: removing a large model from a slow disk takes seconds.
WAIT_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.01
_FOLDER_POLL_SECONDS = 0.2


@contextmanager
def removal_lock(home: Home, spec: ModelSpec) -> Iterator[None]:
    """Within the block nobody else on this home queues a task for the model or removes it.

    A model that ships with the package is never removed, and neither is one from a folder that nobody can write.

    Raises:
        ModelUnavailable: somebody else holds it for too long.
    """
    if spec.embedded or not (home.models.is_dir() and os.access(home.models, os.W_OK)):
        yield
        return
    lock = FileLock(home.removal_lock_of(spec.id), thread_local=False)
    try:
        lock.acquire(timeout=WAIT_SECONDS, poll_interval=_POLL_SECONDS)
    except Timeout:
        raise ModelUnavailable(
            f"{spec.id} is being removed by another process just now", suggestions=("Try again in a moment.",)
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def folder_lock(home: Home, spec: ModelSpec, check: Callable[[], None], on_progress: OnProgress) -> Iterator[None]:
    """Wait until nobody else changes this model's folder, and keep others out within the block.

    `check` is asked while waiting and raises to stop; `on_progress` is told what the download that is waited for noted.
    """
    lock = FileLock(home.model_lock_of(spec.id), thread_local=False)
    while True:
        check()
        try:
            lock.acquire(timeout=_FOLDER_POLL_SECONDS, poll_interval=_FOLDER_POLL_SECONDS / 4)
            break
        except Timeout:
            seen = read_status(home.partial_model_of(spec.id))
            done, total = (seen.done_bytes, seen.total_bytes) if seen else (0, None)
            speed, eta = (seen.speed, seen.eta_seconds) if seen else (None, None)
            on_progress(DownloadProgress(DownloadPhase.WAITING, None, done, total, speed, eta))
    try:
        yield
    finally:
        lock.release()
