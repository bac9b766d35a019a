"""One seed: a home with ended and waiting tasks, 200 bytes of its database overwritten, and a server on it."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import httpx2

from backend.core.errors.base import WanError
from backend.store.engine import Database
from backend.store.tasks import TaskStore
from backend.store.upkeep.rows_check import unreadable_rows
from benchmarks.home_server import HomeServer, Late, wait_for
from tests.store.samples import output_of

SETTINGS: Final = {
    "WAN22_AUTO_DOWNLOAD": "false",
}
#: One server in so many has a worker.
_WITH_WORKER: Final = 5
_LEASE_SECONDS: Final = 30.0
#: Bytes that are overwritten, at one place.
BYTES: Final = 200
#: Ended and waiting tasks of the home. They are mocks: a task goes its whole way in a tenth of a second.
_ENDED, _WAITING = 30, 12
_MOCK: Final = {
    "model_type": "T2V-A14B",
    "on_model_failure": "mock",
    "resolution": "128x128",
    "num_frames": 5,
    "steps": 4,
    "prompt": "a red circle moving right on a navy background",
}
#: What a web client reads all the time.
_READS: Final = (
    "/api/v1/queue",
    "/api/v1/queue/poll",
    "/api/v1/outputs",
    "/api/v1/models/status",
    "/api/v1/system/health",
)
#: How long the tasks of a damaged home may take to end, in seconds.
_PATIENCE: Final = 120.0
#: How long the server may take to say that rows are damaged, in seconds.
_SAID: Final = 30.0
#: Rounds of questions after which a server that still answers 5xx is in a loop.
_ROUNDS: Final = 3
_ENDS: Final = ("completed", "failed", "cancelled")


class Outcome(StrEnum):
    """What a start made of the damage."""

    UNHARMED = "nothing that was read was hit"
    ROWS = "rows were damaged, the others worked"
    RESTORED = "the newest copy took its place"
    REFUSED = "the start was refused"


@dataclass(slots=True)
class Found:
    """What was found with one seed."""

    seed: int
    has_copy: bool  #: whether the home had a copy of its database
    has_worker: bool
    outcome: Outcome | None = None  #: None where none of them fits, which is a fault
    damaged_rows: int = 0
    broken: list[str] = field(default_factory=list)  #: what did not hold, as sentences

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


@contextmanager
def prepared(folder: Path) -> Iterator[Path]:
    """Make the home that every seed starts from.

    Raises:
        Late: the server did not start, or its tasks did not end.
    """
    server = HomeServer(folder, SETTINGS)
    try:
        server.start()
        server.wait_ready()
        server.client.post("/api/v1/generation/policy", json={"mock_seconds": 0})
        ids = [_submit(server.client, number) for number in range(_ENDED)]
        server.client.post(f"/api/v1/queue/{ids[-1]}/cancel")
        wait_for(lambda: _unfinished(server) == 0, _PATIENCE, "end of the tasks")
        server.client.post("/api/v1/queue/pause")
        for number in range(_WAITING):
            _submit(server.client, _ENDED + number)
        server.stop()
        yield server.home
    finally:
        server.close()


def try_seed(seed: int, home: Path, folder: Path) -> Found:
    """Damage a copy of the home and start a server on it; every second home has a copy of its database.

    Every fifth server has a worker. For the others the campaign claims and completes the tasks through the store, as a
    worker does: starting one takes longer than all the rest.
    """
    found = Found(seed, has_copy=seed % 2 == 0, has_worker=seed % _WITH_WORKER == 0)
    own = folder / "home"
    shutil.copytree(home, own)
    database = own / "wan22.db"
    if found.has_copy:
        _copy(database, own / "backups")
    _overwrite(database, seed)
    damaged = _damaged(database)
    found.damaged_rows = len(damaged or ())
    server = HomeServer(folder, SETTINGS | {"WAN22_WORKER": "true" if found.has_worker else "false"})
    try:
        _judge(server, found, damaged)
    except Late as late:
        found.broken.append(f"{late}; the log ends with:\n{server.log_end()}")
    except httpx2.HTTPError as error:
        found.broken.append(f"no answer: {error!r}; the log ends with:\n{server.log_end()}")
    finally:
        server.close()
    return found


def _judge(server: HomeServer, found: Found, damaged: list[str] | None) -> None:
    server.start()
    wait_for(lambda: not server.is_running or server.ask("/live") is not None, _PATIENCE, "answer of the server")
    if not server.is_running:
        found.outcome = Outcome.REFUSED
        said = server.log_end()
        if found.has_copy or "damaged" not in said or "wan22 db" not in said or "Traceback" in said:
            found.broken.append(f"the start was refused with: {said}")
        return
    if any("was replaced" in one for one in _warnings(server)):
        found.outcome, damaged = Outcome.RESTORED, []
    elif damaged is None:
        found.broken.append("pages are damaged, and nobody noticed")
    elif not damaged:
        found.outcome = Outcome.UNHARMED
    else:
        found.outcome = Outcome.ROWS
        wait_for(lambda: any("cannot be read" in one for one in _warnings(server)), _SAID, f"word of {damaged}")
    _work(server, found, {one.split(":")[0].split()[-1] for one in damaged or ()})
    if (status := server.stop()) != 0:
        found.broken.append(f"the server stopped with status {status}")


def _work(server: HomeServer, found: Found, damaged: set[str]) -> None:
    """Let the waiting tasks run, and one more; ask what clients ask."""
    shown = server.client.get("/api/v1/queue", params={"limit": 500})
    if not shown.is_success:
        found.broken.append(f"the queue is answered with {shown.status_code}: {shown.text[:300]}")
    waiting = [task["id"] for task in shown.json().get("queue", ())]
    server.client.post("/api/v1/queue/resume")
    new = _submit(server.client, 1000)
    deadline = time.monotonic() + _PATIENCE
    if not found.has_worker:
        _complete_all(server, deadline)
    while _unfinished(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    for task_id in {*waiting, new} - damaged:
        status = (server.ask(f"/api/v1/queue/{task_id}") or {}).get("status")
        if status not in _ENDS or (task_id == new and status != "completed"):
            found.broken.append(f"task {task_id} is {status}")
    for path in (*_READS, "/ready") if found.has_worker else _READS:  # without a worker, /ready is 503
        answers = [server.client.get(path).status_code for _ in range(_ROUNDS)]
        if answers[-1] >= 500:
            found.broken.append(f"{path} is answered with {answers}")


def _complete_all(server: HomeServer, deadline: float) -> None:
    """Do what a worker does with the waiting tasks, without making videos."""
    database = Database(server.home / "wan22.db", checkpointer=False, creates=False)
    store = TaskStore(database)
    try:
        while _unfinished(server) != 0 and time.monotonic() < deadline:
            task = store.claim("campaign", _LEASE_SECONDS)  # None also for one that cannot be read: it has failed
            if task is not None and task.lease_token is not None:
                store.complete(task.id, task.lease_token, output_of(task.id))
    finally:
        database.close()


def _warnings(server: HomeServer) -> list[str]:
    return list(server.client.get("/api/v1/system/health").json()["system_info"]["warnings"])


def _submit(client: httpx2.Client, seed: int) -> str:
    answer = client.post("/api/v1/generation/submit", json=_MOCK | {"seed": seed})
    if not answer.is_success:
        raise Late(f"a submit was answered with {answer.status_code}: {answer.text[:300]}")
    return str(answer.json()["task_id"])


def _unfinished(server: HomeServer) -> int:
    counts = server.ask("/api/v1/queue", limit=1)
    return -1 if counts is None else int(counts["pending_tasks"]) + int(counts["processing_tasks"])


def _copy(database: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with closing(sqlite3.connect(database)) as source:
        source.execute("VACUUM INTO ?", (str(folder / "wan22-20260101T000000Z.db"),))


def _overwrite(database: Path, seed: int) -> None:
    chance = random.Random(f"damage {seed}")  # noqa: S311 - reproducible, not secret
    with database.open("r+b") as file:
        file.seek(chance.randrange(database.stat().st_size - BYTES))
        file.write(chance.randbytes(BYTES))


def _damaged(database: Path) -> list[str] | None:
    """Return the rows that cannot be read any more; None when it is pages that are damaged."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as file:
            if file.execute("PRAGMA quick_check").fetchone()[0] != "ok":
                return None
        return unreadable_rows(database)
    except (sqlite3.DatabaseError, UnicodeDecodeError, WanError):
        return None
