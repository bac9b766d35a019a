"""Maps torch's out-of-memory errors to the product's own error. Knows nothing about tasks or requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from backend.core.errors.generation import OutOfMemory
from backend.core.faults import DeviceFull
from backend.core.planning.memory_ladder import MemoryUse

#: Marks a failed allocation by torch's CPU allocator, which has no exception class of its own.
_CPU_ALLOCATOR = "DefaultCPUAllocator"


@contextmanager
def device_errors(doing: str, use: MemoryUse) -> Iterator[None]:
    """Turn out-of-memory errors of the block into `OutOfMemory` ("while <doing>", for `use`); others pass through."""
    try:
        yield
    except (torch.OutOfMemoryError, DeviceFull) as error:
        raise OutOfMemory(f"The device ran out of memory while {doing}", use=use) from error
    except MemoryError as error:
        raise OutOfMemory(f"This machine ran out of memory while {doing}", use=use, host=True) from error
    except RuntimeError as error:
        if _CPU_ALLOCATOR not in str(error):
            raise
        raise OutOfMemory(f"This machine ran out of memory while {doing}", use=use, host=True) from error
