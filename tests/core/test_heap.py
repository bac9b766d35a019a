"""Freed memory goes back to the system, although a block behind it is still in use."""

from __future__ import annotations

import ctypes
import platform

import psutil
import pytest

from backend.core.heap import return_freed_memory, share_freed_memory

MIB = 2**20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_what_was_freed_is_returned_to_the_system() -> None:
    share_freed_memory()
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(1024) for _ in range(100 * 1024)]
    for block in blocks:
        ctypes.memset(block, 1, 1024)
    last = blocks.pop()  # keeps the end of the heap in use
    for block in blocks:
        libc.free(block)
    before = psutil.Process().memory_info().rss
    return_freed_memory()
    assert before - psutil.Process().memory_info().rss > 50 * MIB
    libc.free(last)
