"""What glibc does with freed memory, in a process that runs for months. Other C libraries are left as they are."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

#: Number of the option in glibc's `malloc.h`.
_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2


def share_freed_memory() -> None:
    """Let the threads share two pools of freed memory: with one for each, what one frees helps no other."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def return_freed_memory() -> None:
    """Return freed memory to the system; what a rare, large piece of work needed would stay with the process."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
