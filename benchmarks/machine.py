"""Says in words what a figure was measured on, without the machine's name."""

from __future__ import annotations

import os
import platform


def machine() -> str:
    """Return cores, system and Python version."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, no GPU used, {platform.system()}, Python {platform.python_version()}"
