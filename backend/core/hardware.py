"""What this machine has: processor, memory, GPUs. Asks NVML and the system, never torch.

What cannot be found out is None, never a guess.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import psutil
import pynvml


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA card as NVML sees it; memory in bytes, load in percent."""

    index: int
    name: str
    memory_total: int
    memory_used: int
    utilisation: float | None


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine; memory in bytes."""

    processor: str
    cores: int
    memory_total: int
    gpus: tuple[Gpu, ...]
    driver: str | None
    python: str


def detect_hardware() -> Hardware:
    """Look at the machine now."""
    gpus, driver = _nvidia()
    return Hardware(
        processor=platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_total=psutil.virtual_memory().total,
        gpus=gpus,
        driver=driver,
        python=platform.python_version(),
    )


def _nvidia() -> tuple[tuple[Gpu, ...], str | None]:
    """Ask NVML; a machine without the library or a card has none."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return (), None
    try:
        gpus = tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
        return gpus, str(pynvml.nvmlSystemGetDriverVersion())
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        load: float | None = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except pynvml.NVMLError:  # vGPU, MIG and WSL do not tell
        load = None
    return Gpu(index, str(pynvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.used), load)
