"""Two locks for each model, over all threads and processes of one home.

The removal lock keeps queuing a task for a model and removing that model apart; it is held for moments. The folder lock
admits one process at a time to the model's folder; a download holds it for hours, while tasks are queued.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from filelock import FileLock, Timeout

from backend.core.catalogue.table import ModelSpec
from backend.core.domain import DownloadPhase, DownloadProgress, OnProgress
from backend.core.errors.models import ModelUnavailable
from backend.core.paths import Home
from backend.models.folder.progress import read_status

#: Longest wait for the removal lock, in seconds: removing a large model from a slow disk takes seconds.
WAIT_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.01
_FOLDER_POLL_SECONDS = 0.2


@contextmanager
def removal_lock(home: Home, spec: ModelSpec) -> Iterator[None]:
    """Keep everybody else of this home from queuing a task for the model or removing it within the block.

    Takes no lock for a model that ships with the package or is in a folder that cannot be written: it is never removed.

    Raises:
        ModelUnavailable: another process holds the lock for too long.
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
    """Wait until no other process changes this model's folder, and keep others out within the block.

    `check` is called while waiting and raises to stop; `on_progress` receives the progress of the other download.
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
