"""A worker on a machine with little memory: a real worker with a simulated memory size."""

from __future__ import annotations

import sys
from dataclasses import replace
from unittest.mock import patch

from backend.core.planning.hardware import GIB, detect_hardware
from backend.core.settings import load_settings
from backend.engine.memory import readings as device_memory
from backend.worker.runner import WorkerRunner

if __name__ == "__main__":
    small = replace(detect_hardware(), memory_total=4 * GIB, memory_limit=None)
    with patch.object(device_memory, "detect_hardware", lambda: small):
        sys.exit(WorkerRunner(load_settings(), sys.argv[1], supervised=True).run())
