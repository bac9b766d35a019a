"""The machine as detected: container limits, failing GPU libraries, and changes since the last start."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from backend.core.planning.hardware import GIB, Gpu, HardwareProfile, detect_hardware


def _machine(root: Path, cgroup: str, **files: str) -> Path:
    """Write a `proc` and a `sys`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_a_cgroup_v2_limit_applies_across_all_levels(tmp_path: Path) -> None:
    files = {"a/b/memory.max": "max\n", "a/memory.max": f"{GIB}\n", "a/memory.current": f"{GIB // 4}\n"}
    found = detect_hardware(root=_machine(tmp_path, "0::/a/b\n", **files))
    assert found.memory_limit == found.memory == GIB
    assert found.memory_available is not None
    assert found.memory_available <= GIB * 3 // 4


def test_a_cgroup_v1_limit_is_read_too(tmp_path: Path) -> None:
    cgroup = "5:cpu,cpuacct:/x\n4:memory:/docker/not-visible-inside\n"
    files = {"memory/memory.limit_in_bytes": f"{2 * GIB}\n", "memory/memory.usage_in_bytes": "0\n"}
    assert detect_hardware(root=_machine(tmp_path, cgroup, **files)).memory_limit == 2 * GIB


@pytest.mark.parametrize("value", ["max", "9223372036854771712", "", str(1 << 50)])
def test_no_limit_is_reported_as_none(tmp_path: Path, value: str) -> None:
    found = detect_hardware(root=_machine(tmp_path, "0::/\n", **{"memory.max": value}))
    assert found.memory_limit is None
    assert found.memory == found.memory_total


def test_a_system_without_cgroups_has_no_limit(tmp_path: Path) -> None:
    assert detect_hardware(root=tmp_path).memory_limit is None


def test_the_disk_is_that_of_the_nearest_existing_folder(tmp_path: Path) -> None:
    disk = detect_hardware(tmp_path / "not" / "yet").disk
    assert disk is not None
    assert 0 < disk.free <= disk.total


def _fails(*_: object) -> Any:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)


NVML: dict[str, Callable[..., Any]] = {
    "nvmlInit": lambda: None,
    "nvmlShutdown": lambda: None,
    "nvmlDeviceGetCount": lambda: 1,
    "nvmlSystemGetDriverVersion": lambda: "580.1",
    "nvmlDeviceGetHandleByIndex": lambda index: index,
    "nvmlDeviceGetName": lambda _: "NVIDIA H100 80GB HBM3",
    "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=80 * GIB, used=GIB),
    "nvmlDeviceGetCudaComputeCapability": lambda _: (9, 0),
    "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=7),
}


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A fake of NVIDIA's library with one card."""
    for name, call in NVML.items():
        monkeypatch.setattr(pynvml, name, call)
    return monkeypatch


def test_a_card_is_described(nvml: pytest.MonkeyPatch) -> None:
    found = detect_hardware()
    assert found.gpus == (Gpu(0, "NVIDIA H100 80GB HBM3", 80 * GIB, GIB, 7.0, (9, 0)),)
    assert (found.driver, found.findings) == ("580.1", ())


@pytest.mark.parametrize("broken", [name for name in NVML if name != "nvmlDeviceGetUtilizationRates"])
def test_a_library_that_fails_at_any_call_is_a_finding(nvml: pytest.MonkeyPatch, broken: str) -> None:
    nvml.setattr(pynvml, broken, _fails)
    found = detect_hardware()
    assert len(found.findings) == 1
    assert "NVIDIA" in found.findings[0]
    if broken == "nvmlDeviceGetMemoryInfo":
        assert found.gpus[0].memory_total is None
    if broken == "nvmlDeviceGetCudaComputeCapability":
        assert found.gpus[0].compute_capability is None


def test_a_card_without_a_load_reading_is_no_finding(nvml: pytest.MonkeyPatch) -> None:
    nvml.setattr(pynvml, "nvmlDeviceGetUtilizationRates", _fails)
    found = detect_hardware()
    assert found.gpus[0].utilisation is None
    assert found.findings == ()


def test_a_profile_round_trips_through_json_and_describes_changes(nvml: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = detect_hardware(tmp_path)
    assert HardwareProfile.from_json(json.loads(json.dumps(before.to_json()))) == before
    assert replace(before, memory_available=1).changes_since(before) == []
    card = replace(before.gpus[0], name="NVIDIA A100", memory_used=0)
    changed = replace(before, gpus=(card,), driver="590.2").changes_since(before)
    assert changed == [
        "driver: 580.1 became 590.2",
        "GPU 0: NVIDIA H100 80GB HBM3, 80.0 GiB became NVIDIA A100, 80.0 GiB",
    ]
    assert replace(before, gpus=()).changes_since(before) == ["GPU 0 is gone: NVIDIA H100 80GB HBM3, 80.0 GiB"]
    assert before.changes_since(replace(before, gpus=())) == ["GPU 0 is new: NVIDIA H100 80GB HBM3, 80.0 GiB"]
