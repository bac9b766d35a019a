"""What can be taken from a running server without killing it. Each kind is a place with a server, and a disturbance."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.home_server import HomeServer
from benchmarks.outages.failing_disk import Condition, FailingDisk, failing_disk, why_not
from tests.support.postgres import postgres_server

_SHIFTED_CLOCK: Final = Path(__file__).with_name("shifted_clock.c")
_SECONDS: Final = struct.Struct("=q")

#: Does its work for as many seconds as it is told, and undoes it.
Disturb = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and what can be done to it; by the name of the outage."""

    server: HomeServer
    outages: dict[str, Disturb]


@dataclass(frozen=True, slots=True)
class Kind:
    """Outages that need the same place."""

    outages: tuple[str, ...]
    missing: Callable[[], str | None]  #: what keeps this machine from it; None when nothing does
    place: Callable[[Path, dict[str, str]], AbstractContextManager[Place]]


def _nothing_missing() -> str | None:
    return None


@contextmanager
def _plain(folder: Path, settings: dict[str, str]) -> Iterator[Place]:
    server = HomeServer(folder, settings)

    def lock(seconds: float) -> None:
        with closing(sqlite3.connect(server.home / "wan22.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            other.execute("ROLLBACK")

    def suspend(seconds: float) -> None:  # server and workers notice of it only that none of them ran
        _stop(server.processes(), seconds)

    yield Place(server, {"database locked by another program": lock, "machine suspended": suspend})


def _stop(processes: list[psutil.Process], seconds: float) -> None:
    """Stop processes for a while."""
    for process in processes:
        process.suspend()
    time.sleep(seconds)
    for process in reversed(processes):
        with suppress(psutil.Error):
            process.resume()


def _without_compiler() -> str | None:
    return None if shutil.which("cc") else "there is no C compiler (Debian: apt-get install gcc libc6-dev)"


@contextmanager
def _with_its_own_clock(folder: Path, settings: dict[str, str]) -> Iterator[Place]:
    folder.mkdir(parents=True, exist_ok=True)
    library, shift = folder / "shifted_clock.so", folder / "shift"
    compiler = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(_SHIFTED_CLOCK)]
    subprocess.run(compiler, check=True)
    shift.write_bytes(_SECONDS.pack(0))
    server = HomeServer(folder, settings | {"LD_PRELOAD": str(library), "SHIFTED_CLOCK": str(shift)})

    def jump(days: int) -> Disturb:
        def disturb(seconds: float) -> None:
            with shift.open("r+b", buffering=0) as file:  # the same file: the processes have it mapped
                file.write(_SECONDS.pack(days * 24 * 3600))
                time.sleep(seconds)
                file.seek(0)
                file.write(_SECONDS.pack(0))  # another jump, the other way

        return disturb

    yield Place(server, {"clock a day ahead and back": jump(1), "clock a day behind and back": jump(-1)})


@contextmanager
def _on_a_failing_disk(folder: Path, settings: dict[str, str]) -> Iterator[Place]:
    with failing_disk(folder / "disk") as disk:
        server = HomeServer(folder, settings, home=disk.folder / "home")
        yield Place(server, {f"disk {condition}": _while(disk, condition) for condition in _CONDITIONS})


_CONDITIONS: Final = (Condition.FULL, Condition.READ_ONLY, Condition.FAILING)


def _while(disk: FailingDisk, condition: Condition) -> Disturb:
    def disturb(seconds: float) -> None:
        disk.become(condition)
        time.sleep(seconds)
        disk.become(Condition.SOUND)

    return disturb


@contextmanager
def _on_postgresql(folder: Path, settings: dict[str, str]) -> Iterator[Place]:
    folder.mkdir(parents=True, exist_ok=True)
    with postgres_server(folder) as database:
        server = HomeServer(folder, settings | {"WAN22_DATABASE_URL": database.new_database()})

        def crash(seconds: float) -> None:
            database.crash()
            time.sleep(seconds)
            database.start()

        def silence(seconds: float) -> None:
            leader = psutil.Process(database.pid)
            _stop([leader, *leader.children(recursive=True)], seconds)  # the connections stay open and answer nothing

        yield Place(server, {"PostgreSQL crashed and started": crash, "PostgreSQL silent": silence})


KINDS: Final = (
    Kind(("database locked by another program", "machine suspended"), _nothing_missing, _plain),
    Kind(("clock a day ahead and back", "clock a day behind and back"), _without_compiler, _with_its_own_clock),
    Kind(tuple(f"disk {condition}" for condition in _CONDITIONS), why_not, _on_a_failing_disk),
    Kind(("PostgreSQL crashed and started", "PostgreSQL silent"), _nothing_missing, _on_postgresql),
)
