"""Keeps queuing a task for a model and removing that model apart, over all threads and processes of one home.

Both are short. The lock of the model's folder is another one: a download holds that for hours, while tasks are queued.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from filelock import FileLock, Timeout

from backend.core.catalogue.table import ModelSpec
from backend.core.errors import ModelUnavailable
from backend.core.paths import Home

#: How long the other side is waited for: removing a large model from a slow disk takes seconds.
WAIT_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.01


@contextmanager
def need_lock(home: Home, spec: ModelSpec) -> Iterator[None]:
    """Within the block nobody else on this home queues a task for the model or removes it.

    A model that ships with the package is never removed, and neither is one from a folder that nobody can write.

    Raises:
        ModelUnavailable: somebody else holds it for too long.
    """
    if spec.embedded or not (home.models.is_dir() and os.access(home.models, os.W_OK)):
        yield
        return
    lock = FileLock(home.need_lock_of(spec.id), thread_local=False)
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
