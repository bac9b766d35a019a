"""Reads every few seconds what the web process and its worker hold, and how large the database is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import psutil

from benchmarks.home_server import HomeServer

#: Interval between two samples, in seconds.
SAMPLE_SECONDS: Final = 3.0
MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading of one process, or of the database."""

    hours: float  #: since the sampling began
    tasks: int  #: that had ended
    life: int  #: process id; a worker that took another one's place has another
    value: float


class Sampler:
    """A thread that samples; the series are named by what they measure."""

    def __init__(self, server: HomeServer, ended: Callable[[], int]) -> None:
        """Prepare; `ended` returns how many tasks have ended."""
        self._server = server
        self._ended = ended
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self.series: dict[str, list[Sample]] = {}

    def start(self) -> None:
        """Start sampling."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._stopping.wait(SAMPLE_SECONDS):
            hours, tasks = (time.monotonic() - began) / 3600, self._ended()
            if (pid := self._server.pid) is None:
                continue
            for name, process in (("web", psutil.Process(pid)), ("worker", self._server.worker)):
                if process is not None:
                    with suppress(psutil.Error):  # it was killed a moment ago
                        self._read(name, process, hours, tasks)
            database = self._server.home / "wan22.db"
            for name, path in (("database", database), ("write-ahead log", database.with_name("wan22.db-wal"))):
                with suppress(FileNotFoundError):
                    self._add(f"{name}, MiB", Sample(hours, tasks, 0, path.stat().st_size / MIB))

    def _read(self, name: str, process: psutil.Process, hours: float, tasks: int) -> None:
        with process.oneshot():
            values = {
                "memory, MiB": process.memory_info().rss / MIB,
                "open handles": process.num_fds(),
                "threads": process.num_threads(),
            }
        for what, value in values.items():
            self._add(f"{name} {what}", Sample(hours, tasks, process.pid, value))

    def _add(self, name: str, sample: Sample) -> None:
        self.series.setdefault(name, []).append(sample)
