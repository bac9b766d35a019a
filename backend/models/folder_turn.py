"""Who changes a model's folder: one at a time, over all threads and processes; the others wait and say how far it is.

Knows nothing of what is done in the turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from backend.core.catalogue.table import ModelSpec
from backend.core.paths import Home
from backend.models.download_progress import DownloadProgress, OnProgress, Phase, read_status

_POLL_SECONDS = 0.2


@contextmanager
def folder_turn(home: Home, spec: ModelSpec, check: Callable[[], None], on_progress: OnProgress) -> Iterator[None]:
    """Wait until nobody else changes this model's folder, and keep others out within the block.

    `check` is asked while waiting and raises to stop; `on_progress` is told what the download that is waited for noted.
    """
    lock = FileLock(home.model_lock_of(spec.id), thread_local=False)
    while True:
        check()
        try:
            lock.acquire(timeout=_POLL_SECONDS, poll_interval=_POLL_SECONDS / 4)
            break
        except Timeout:
            seen = read_status(home.partial_model_of(spec.id))
            done, total = (seen.done_bytes, seen.total_bytes) if seen else (0, None)
            speed, eta = (seen.speed, seen.eta_seconds) if seen else (None, None)
            on_progress(DownloadProgress(Phase.WAITING, None, done, total, speed, eta))
    try:
        yield
    finally:
        lock.release()
