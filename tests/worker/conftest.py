"""A home with a queue, and real worker processes that run the embedded tiny model in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.core.catalogue.table import MODELS
from backend.core.domain import EventType, Priority, Task, TaskStatus, new_task_id
from backend.core.requests.forms import RequestDraft
from backend.core.requests.rules import resolve_request
from backend.core.settings import Settings, load_settings
from backend.store.engine import Database
from backend.store.events import EventLog
from backend.store.gallery.outputs import OutputStore
from backend.store.tables import tasks
from backend.store.tasks import TaskStore
from backend.store.workers import WorkerInfo, WorkerStore
from backend.worker.supervisor import Supervisor, as_environment
from tests.support.server import wait_for

#: Starting a worker takes 6 s of CPU time (torch, diffusers, the model); this allows for a machine that also
#: trains models.
START_SECONDS = 240.0


class Queue:
    """A home folder with its stores, and queries for tests."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = settings.paths.create()
        self.database = Database(settings.database)
        self.database.migrate()
        self.tasks = TaskStore(self.database)
        self.events = EventLog(self.database)
        self.outputs = OutputStore(self.database, self.home)
        self.workers = WorkerStore(self.database)
        self._processes: list[subprocess.Popen[bytes]] = []

    def submit(self, *, steps: int = 4, frames: int = 5, max_attempts: int = 3, model: str = "tiny-t2v-a14b") -> Task:
        """Queue a small task; for a large model only the name differs from that for the tiny one."""
        draft = RequestDraft(
            prompt="a red circle moving right on a navy background",
            width=64,
            height=64,
            num_frames=frames,
            steps=steps,
            seed=7,
        )
        own = MODELS[model] if model in MODELS and MODELS[model].miniature else MODELS["tiny-t2v-a14b"]
        request, notes = resolve_request(own, draft)
        return self.tasks.insert(
            new_task_id(),
            replace(request, model=model),
            adjustments=notes,
            priority=Priority.NORMAL,
            max_attempts=max_attempts,
            fingerprint=request.digest,
        )

    def types(self, task_id: str) -> list[EventType]:
        """The types of a task's events, in order."""
        return [event.type for event in self.events.of_task(task_id)]

    def wait_status(self, task_id: str, status: TaskStatus, seconds: float = START_SECONDS) -> Task:
        """Wait until the task has this state."""
        wait_for(lambda: self.tasks.get(task_id).status is status, seconds=seconds, what=f"{status} of {task_id}")
        return self.tasks.get(task_id)

    def wait_denoising(self, task_id: str) -> WorkerInfo:
        """Wait until denoising has started; return the task's worker."""
        wait_for(lambda: self.tasks.get(task_id).stage == "generating", seconds=START_SECONDS, what="denoising")
        return self.worker(self.tasks.get(task_id).worker_id)

    def worker(self, worker_id: str | None) -> WorkerInfo:
        """The worker's entry in the register."""
        (worker,) = [worker for worker in self.workers.list() if worker.id == worker_id]
        return worker

    def start_worker(self, worker_id: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a worker process with a pipe as its standard input."""
        process = subprocess.Popen(
            [sys.executable, "-m", "backend.cli", "worker", "--worker-id", worker_id],
            stdin=subprocess.PIPE,
            env=os.environ | as_environment(self.settings) | env,
        )
        self._processes.append(process)
        return process

    def leftovers(self) -> list[str]:
        """Names of files that only a running task may have, except saved states."""
        # A worker may be cleaning up meanwhile: `os.walk` tolerates folders that disappear.
        found = [Path(folder, name) for folder, _, names in os.walk(self.home.work) for name in names]
        work = [path.relative_to(self.home.work) for path in found]
        left = [p.name for p in self.home.outputs.glob("*.part")] + [str(p) for p in work if "state" not in p.parts]
        # An idle worker writes a probe every second, and removes it at once.
        return [name for name in left if not name.startswith("probe.")]

    def states(self, task_id: str) -> list[int]:
        """The steps of a task's saved states."""
        names = [path.name for path in self.home.state_of(task_id).glob("step-*.safetensors")]
        return sorted(int(name.removeprefix("step-").removesuffix(".safetensors")) for name in names)

    def saved_step(self, task_id: str) -> int | None:
        """The step of the newest saved state that the queue knows of."""
        with self.database.read() as connection:
            return connection.execute(select(tasks.c.saved_step).where(tasks.c.id == task_id)).scalar_one()

    def videos(self) -> list[str]:
        """Names of the finished videos on disk."""
        return sorted(path.name for path in self.home.outputs.glob("*.mp4"))

    def close(self) -> None:
        """Stop every process that a test left running."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self.database.close()


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings for fast tests, for this process and the workers it starts."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return load_settings(
        home=tmp_path / "home",
        threads=1,
        poll_seconds=0.05,
        heartbeat_seconds=0.5,
        recovery_seconds=0.2,
        restart_backoff_seconds=0.05,
    )


@pytest.fixture
def queue(settings: Settings) -> Iterator[Queue]:
    """An empty queue; worker processes started through it end with the test."""
    queue = Queue(settings)
    yield queue
    queue.close()


@pytest.fixture
def supervise(settings: Settings, queue: Queue) -> Iterator[Callable[..., Supervisor]]:
    """Start supervisors of the queue's home, optionally with changed settings; all are stopped at the end."""
    started: list[Supervisor] = []

    def start(**changes: object) -> Supervisor:
        supervisor = Supervisor(settings.model_copy(update=changes))
        started.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for supervisor in started:
        supervisor.stop(grace=0.0)
