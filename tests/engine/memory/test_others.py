"""Other programs on the device: their memory and their share of its time, on this processor and through NVML."""

from __future__ import annotations

import multiprocessing
import os
import time
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest
import torch

from backend.core.planning.memory_level import Place
from backend.engine.memory.others import OtherPrograms
from tests.support.server import wait_for


def _work(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sum(range(1000))


def test_memory_of_the_machine_less_our_own() -> None:
    reading = OtherPrograms(torch.device("cpu")).memory()
    assert reading is not None
    assert (reading.place, reading.total) == (Place.RAM, psutil.virtual_memory().total)
    assert 0 <= reading.used < reading.total


def test_the_work_of_another_process_counts_and_our_own_does_not() -> None:
    others = OtherPrograms(torch.device("cpu"))
    assert others.load() is None, "a share of no time is unknown"
    _work(0.5)
    assert others.load() is not None
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(60.0,))
    process.start()
    try:
        # One busy process uses at least most of one core, however many more there are.
        share = 60.0 / (psutil.cpu_count() or 1)

        def is_seen() -> bool:
            time.sleep(0.2)
            return (others.load() or 0.0) > share

        wait_for(is_seen, seconds=60.0, what="the load of another process")
    finally:
        process.kill()
        process.join()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A stand-in of torch's and NVIDIA's libraries with one card."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="0000-1111"))
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", lambda name: name)
    own = [SimpleNamespace(pid=os.getpid())]
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda _: own)
    return monkeypatch


def sample(pid: int, percent: int, moment: int) -> SimpleNamespace:
    return SimpleNamespace(pid=pid, smUtil=percent, timeStamp=moment)


def test_the_samples_of_other_processes_are_added_up(card: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, int]] = []
    samples = [sample(os.getpid(), 90, 5), sample(1, 20, 6), sample(1, 30, 7), sample(2, 10, 6)]

    def utilisation(handle: Any, since: int) -> list[SimpleNamespace]:
        asked.append((handle, since))
        return samples

    card.setattr(pynvml, "nvmlDeviceGetProcessUtilization", utilisation)
    others = OtherPrograms(torch.device("cuda", 0))
    assert others.load() == 40.0
    others.load()
    assert asked == [(b"GPU-0000-1111", 0), (b"GPU-0000-1111", 7)], "only newer samples are asked for"


def test_nothing_is_known_where_our_own_share_cannot_be_told_apart(card: pytest.MonkeyPatch) -> None:
    foreign = [SimpleNamespace(pid=1)]
    card.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", lambda _: foreign)
    assert OtherPrograms(torch.device("cuda", 0)).load() is None


@pytest.mark.parametrize(
    ("code", "load"), [(pynvml.NVML_ERROR_NOT_FOUND, 0.0), (pynvml.NVML_ERROR_NOT_SUPPORTED, None)]
)
def test_no_samples_are_no_load_and_no_support_is_unknown(
    card: pytest.MonkeyPatch, code: int, load: float | None
) -> None:
    def utilisation(*_: Any) -> None:
        raise pynvml.NVMLError(code)

    card.setattr(pynvml, "nvmlDeviceGetProcessUtilization", utilisation)
    assert OtherPrograms(torch.device("cuda", 0)).load() == load
