"""The register of worker processes: their state, device, model and last heartbeat.

Serves people and `/ready`; only the lease decides who owns a task.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

import psutil
from sqlalchemy import Row, delete, insert, select, update

from backend.core.planning.machine import Machine
from backend.store.engine import Database
from backend.store.rows import moment, readable, storable
from backend.store.tables import database_now, workers

#: Two starts of processes with the same id that are closer than this are the same one, in seconds.
_SAME_START_SECONDS: Final = 2.0


class WorkerState(StrEnum):
    """What a worker is doing."""

    LOADING = "loading"  # starting, or loading a model
    IDLE = "idle"  # waiting for a task
    BUSY = "busy"  # running a task
    YIELDING = "yielding"  # takes no task now, as its operator or user wants; the detail says why
    WAITING = "waiting"  # takes no task until its surroundings are in order again; the detail says what is wrong


class WorkerWish(StrEnum):
    """What a worker is asked to do."""

    UNLOAD = "unload"  # free the memory of its model as soon as no task runs
    RESTART = "restart"  # hand its task back, with its state saved, and start anew as a process


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a worker computes with, detected at its start."""

    device_reason: str  #: why this device
    warnings: tuple[str, ...] = ()  #: what should work on its machine and does not, each with a remedy
    attention: str | None = None  #: its attention kernel
    convolution: str | None = None  #: its VAE's convolutions
    precision: str | None = None  #: the number format in which its experts compute
    machine: Machine | None = None  #: the worker's machine, for the planner; None = a worker of an older version


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One worker as of its last heartbeat."""

    id: str
    host: str
    pid: int
    process_started_at: float  #: in seconds since the host's start, which no change of its clock moves
    device: str
    state: WorkerState
    detail: str | None
    started_at: datetime
    seen_at: datetime
    model: str | None  #: id of the model in its memory
    equipment: Equipment | None = None  #: None while it is starting

    def is_dead(self) -> bool:
        """Return whether the worker ran on this machine and its process is gone."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return ended or abs(_started_at(process) - self.process_started_at) > _SAME_START_SECONDS
        except psutil.NoSuchProcess:
            return True


def new_worker_id() -> str:
    """Return a unique worker id: host, process id, time and random digits."""
    return f"{socket.gethostname()}:{os.getpid()}:{int(time.time())}:{secrets.token_hex(4)}"


class WorkerStore:
    """Reads and writes the register."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(
        self,
        worker_id: str,
        *,
        device: str,
        state: WorkerState,
        detail: str | None = None,
        model: str | None = None,
        equipment: Equipment | None = None,
    ) -> WorkerWish | None:
        """Record a heartbeat, with state and model, from inside the worker's process; return what it is asked to do."""
        now = {
            "device": device,
            "state": state,
            "detail": detail and storable(detail),
            "model": model,
            "equipment": None if equipment is None else asdict(equipment),
            "seen_at": database_now(),
        }
        mine = workers.c.id == worker_id
        with self._database.begin() as connection:
            wish = connection.execute(select(workers.c.wish).where(mine)).scalar_one_or_none()
            known = connection.execute(update(workers).where(mine).values(now | {"wish": None}))
            if known.rowcount == 0:
                process = psutil.Process()
                who = {"id": worker_id, "host": socket.gethostname(), "pid": os.getpid()}
                since = {"process_started_at": _started_at(process), "started_at": database_now()}
                connection.execute(insert(workers).values(who | since | now))
        return None if wish is None else WorkerWish(wish)

    def ask(self, worker_id: str, wish: WorkerWish) -> bool:
        """Ask a worker for something; it takes the newest wish with its next heartbeat. False when it is unknown."""
        mine = workers.c.id == worker_id
        with self._database.begin() as connection:
            return connection.execute(update(workers).where(mine).values(wish=wish)).rowcount > 0

    def alive(self, within_seconds: float) -> list[WorkerInfo]:
        """Return the workers with a heartbeat in the last `within_seconds` seconds."""
        # A heartbeat of the future is one from before the clock was set back.
        fresh = workers.c.seen_at.between(database_now() - within_seconds, database_now() + within_seconds)
        with self._database.read() as connection:
            return readable(connection.execute(select(workers).where(fresh).order_by(workers.c.id)).all(), _info)

    def list(self) -> list[WorkerInfo]:
        """Return every registered worker, dead or alive."""
        with self._database.read() as connection:
            return readable(connection.execute(select(workers).order_by(workers.c.started_at)).all(), _info)

    def remove(self, worker_id: str) -> None:
        """Remove a worker from the register."""
        with self._database.begin() as connection:
            connection.execute(delete(workers).where(workers.c.id == worker_id))


def _started_at(process: psutil.Process) -> float:
    """Return when a process was started, in seconds since the host's start."""
    return process.create_time() - psutil.boot_time()


def _info(row: Row[Any]) -> WorkerInfo:
    return WorkerInfo(
        id=row.id,
        host=row.host,
        pid=row.pid,
        process_started_at=row.process_started_at,
        device=row.device,
        state=WorkerState(row.state),
        detail=row.detail,
        started_at=moment(row.started_at),
        seen_at=moment(row.seen_at),
        model=row.model,
        equipment=_equipment(row.equipment),
    )


def _equipment(values: dict[str, Any] | None) -> Equipment | None:
    if values is None:
        return None
    machine = values.get("machine")
    read = {"warnings": tuple(values["warnings"]), "machine": None if machine is None else Machine.from_json(machine)}
    return Equipment(**(values | read))
