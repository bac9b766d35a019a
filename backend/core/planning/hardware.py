"""The machine's processor, memory, GPUs and disk, queried from NVML and the system, never from torch.

Unknown values are None, never a guess; a library that fails leads to a finding, never to a crash. The profile of the
last server start is kept in a JSON file, so that a missing card or a lower limit is noticed. Decides nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
import pynvml

from backend.core.files import read_json, write_json

GIB = 1024**3
#: A cgroup of version 1 without a limit reports a number near 2^63.
_NO_LIMIT = 1 << 60

T = TypeVar("T")

_UNCORRECTED: Final = (pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC)
#: Reasons for a lower clock that are no choice of the operator.
_HEAT: Final = (
    pynvml.nvmlClocksEventReasonHwSlowdown
    | pynvml.nvmlClocksEventReasonSwThermalSlowdown
    | pynvml.nvmlClocksEventReasonHwThermalSlowdown
    | pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA card as reported by NVML; memory in bytes, load in percent."""

    index: int
    name: str
    memory_total: int | None
    memory_used: int | None
    utilisation: float | None
    compute_capability: tuple[int, int] | None = None
    temperature: int | None = None  #: in degrees Celsius
    ecc_errors: int | None = None  #: memory errors since the driver was loaded that could not be corrected
    slowed_by_heat: bool = False  #: whether it runs below its clock because it, or its power supply, is too hot


@dataclass(frozen=True, slots=True)
class Disk:
    """The file system that holds a folder; sizes in bytes."""

    free: int
    total: int
    filesystem: str | None  #: its type, such as ext4


@dataclass(frozen=True, slots=True)
class HardwareProfile:
    """The machine; memory in bytes."""

    processor: str
    cores: int
    memory_total: int  #: installed
    memory_limit: int | None  #: limit of the container; None = no limit was found
    memory_available: int | None  #: available now without swapping
    gpus: tuple[Gpu, ...]
    driver: str | None
    python: str
    disk: Disk | None = None
    findings: tuple[str, ...] = ()  #: sentences about what could not be determined

    @property
    def memory(self) -> int:
        """Memory that this process and its workers may use: installed memory or the limit, whichever is smaller."""
        return self.memory_total if self.memory_limit is None else min(self.memory_total, self.memory_limit)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> HardwareProfile:
        """Build the profile that `to_json` wrote.

        Raises:
            KeyError, TypeError: the record is malformed.
        """
        gpus = tuple(Gpu(**(gpu | {"compute_capability": _pair(gpu["compute_capability"])})) for gpu in values["gpus"])
        disk = None if values["disk"] is None else Disk(**values["disk"])
        return cls(**(values | {"gpus": gpus, "disk": disk, "findings": tuple(values["findings"])}))

    def changes_since(self, earlier: HardwareProfile) -> list[str]:
        """Describe what has changed, without values that always vary (free memory, load)."""
        now, then = _lasting(self), _lasting(earlier)
        changes = [
            f"{name}: {then[name]} became {now[name]}" for name in now if name in then and now[name] != then[name]
        ]
        changes += [f"{name} is new: {now[name]}" for name in now if name not in then]
        return changes + [f"{name} is gone: {then[name]}" for name in then if name not in now]


def _lasting(profile: HardwareProfile) -> dict[str, str]:
    facts = {
        "processor": f"{profile.processor}, {profile.cores} cores",
        "memory": in_gib(profile.memory_total),
        "memory limit": in_gib(profile.memory_limit),
        "driver": profile.driver or "none",
        "Python": profile.python,
    }
    if profile.disk is not None:
        facts["disk"] = f"{in_gib(profile.disk.total)} {profile.disk.filesystem or 'of unknown kind'}"
    return facts | {f"GPU {gpu.index}": f"{gpu.name}, {in_gib(gpu.memory_total)}" for gpu in profile.gpus}


def in_gib(size: int | None) -> str:
    """Format a number of bytes for people."""
    return "unknown" if size is None else f"{size / GIB:.1f} GiB"


def detect_hardware(folder: Path | None = None, *, root: Path = Path("/")) -> HardwareProfile:
    """Return the machine's current profile.

    Args:
        folder: a folder on the disk to report, which need not exist yet; None omits the disk.
        root: the parent of `proc` and `sys`.
    """
    findings: list[str] = []
    gpus, driver = _nvidia(findings)
    memory = psutil.virtual_memory()
    limit, used = _cgroup(root)
    total = int(memory.total)
    limit = None if limit is None or limit >= total else limit
    available = int(memory.available)
    if limit is not None and used is not None:
        available = max(0, min(available, limit - used))
    return HardwareProfile(
        processor=platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_total=total,
        memory_limit=limit,
        memory_available=available,
        gpus=gpus,
        driver=driver,
        python=platform.python_version(),
        disk=None if folder is None else _disk(folder, findings),
        findings=tuple(findings),
    )


def _cgroup(root: Path) -> tuple[int | None, int | None]:
    """Return the tightest memory limit over all levels of this process's cgroup, and the usage at that level.

    Version 2 has one tree (`memory.max`), version 1 one for memory (`memory.limit_in_bytes`). Inside a container the
    path of the group may not be visible; the top of the tree is then read instead.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None, None
    limits: list[tuple[int, int | None]] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            top, limit_name, use_name = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top, limit_name, use_name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        group = top / path.strip("/")
        for level in (group, *group.parents):
            limit = _number(level / limit_name)
            if limit is not None and limit < _NO_LIMIT:
                limits.append((limit, _number(level / use_name)))
            if level == top:
                break
    return min(limits, key=lambda one: one[0]) if limits else (None, None)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # the file is missing, or contains "max"
        return None


def _disk(folder: Path, findings: list[str]) -> Disk | None:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        usage = shutil.disk_usage(existing)
        mounts = psutil.disk_partitions(all=True)
    except OSError as error:
        findings.append(f"The disk of the home folder could not be read: {error.strerror}")
        return None
    under = [mount for mount in mounts if existing.resolve().is_relative_to(mount.mountpoint)]
    kind = max(under, key=lambda mount: len(mount.mountpoint)).fstype if under else None
    return Disk(usage.free, usage.total, kind or None)


def _nvidia(findings: list[str]) -> tuple[tuple[Gpu, ...], str | None]:
    """Query NVML for the cards and the driver version; without the library there are none."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError_LibraryNotFound:
        return (), None  # no driver: not worth a finding
    except (pynvml.NVMLError, OSError) as error:
        findings.append(f"NVIDIA's library could not be started: {error}")
        return (), None
    try:
        query = _Queries(findings)
        count = query("the number of cards", pynvml.nvmlDeviceGetCount) or 0
        gpus = tuple(gpu for gpu in (_gpu(index, query) for index in range(count)) if gpu is not None)
        driver = query("the driver version", pynvml.nvmlSystemGetDriverVersion)
        return gpus, None if driver is None else str(driver)
    finally:
        query("shutdown", pynvml.nvmlShutdown)


class _Queries:
    """Runs one NVML query at a time; a failed query returns None and adds a finding."""

    def __init__(self, findings: list[str]) -> None:
        self._findings = findings

    def __call__(self, what: str, call: Callable[..., T], *args: object, may_lack: bool = False) -> T | None:
        try:
            return call(*args)
        except (pynvml.NVMLError, OSError) as error:
            if not may_lack:
                self._findings.append(f"NVIDIA's library failed to answer a query for {what}: {error}")
            return None


def _gpu(index: int, query: _Queries) -> Gpu | None:
    handle = query(f"card {index}", pynvml.nvmlDeviceGetHandleByIndex, index)
    if handle is None:
        return None
    name = query(f"the name of card {index}", pynvml.nvmlDeviceGetName, handle)
    memory = query(f"the memory of card {index}", pynvml.nvmlDeviceGetMemoryInfo, handle)
    capability = query(f"the compute capability of card {index}", pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    # vGPU, MIG and WSL do not report their load.
    load = query(f"the load of card {index}", pynvml.nvmlDeviceGetUtilizationRates, handle, may_lack=True)
    heat = query("", pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU, may_lack=True)
    ecc = query("", pynvml.nvmlDeviceGetTotalEccErrors, handle, *_UNCORRECTED, may_lack=True)  # data centre cards only
    slowed = query("", pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle, may_lack=True)
    if slowed is None:  # drivers before 535 know it by its older name
        slowed = query("", pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle, may_lack=True)
    return Gpu(
        index,
        "NVIDIA GPU" if name is None else str(name),
        None if memory is None else int(memory.total),
        None if memory is None else int(memory.used),
        None if load is None else float(load.gpu),
        _pair(capability),
        None if heat is None else int(heat),
        None if ecc is None else int(ecc),
        bool((slowed or 0) & _HEAT),
    )


def _pair(values: Any) -> tuple[int, int] | None:
    return None if values is None else (int(values[0]), int(values[1]))


def last_profile(path: Path) -> HardwareProfile | None:
    """Return the profile of the last start; None if there is none, or another version wrote it."""
    try:
        return HardwareProfile.from_json(read_json(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def remember(path: Path, profile: HardwareProfile) -> list[str]:
    """Store the profile of this start, and describe what has changed since the last one.

    A file that cannot be written is reported elsewhere and does not keep the server from starting.
    """
    before = last_profile(path)
    with suppress(OSError):
        write_json(path, profile.to_json())
    return [] if before is None else profile.changes_since(before)
