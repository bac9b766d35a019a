"""The supervisor's promises: it reports giving up, restarts workers, and never loads the engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backend.core.domain import TaskStatus
from backend.core.settings import load_settings
from backend.store.tasks import TaskStore
from backend.worker import supervisor as supervisor_module
from backend.worker.supervisor import Supervisor, SupervisorStatus, as_environment
from tests.support.server import wait_for
from tests.worker.conftest import START_SECONDS, Queue

pytestmark = pytest.mark.timeout(300)


def test_05_a_worker_that_cannot_start_is_abandoned_and_tasks_stay_queued(
    tmp_path: Path, queue: Queue, supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text("raise ImportError('libcudart is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    task = queue.submit()
    supervisor = supervise(restart_limit=1)
    wait_for(lambda: supervisor.state.status is SupervisorStatus.DEFUNCT, seconds=START_SECONDS, what="defunct")
    state = supervisor.state
    assert state.restarts == 1
    assert state.pid is None
    assert "exit status 1" in (state.reason or "")
    assert "libcudart is broken" in (state.reason or "")
    assert queue.tasks.get(task.id).status is TaskStatus.PENDING
    assert queue.workers.list() == []
    supervisor.stop()
    assert supervisor.state.status is SupervisorStatus.STOPPED


def test_the_supervisor_outlives_every_exception(
    tmp_path: Path, queue: Queue, supervise: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread must live for ever: without it nobody would start a worker again."""
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart is broken')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(supervisor_module, "MAX_BACKOFF_SECONDS", 0.05)
    failures = {name: iter(range(1)) for name in ("recover_worker", "leases")}

    def failing(name: str) -> Callable[..., object]:
        real = getattr(TaskStore, name)

        def call(*arguments: object) -> object:
            if next(failures[name], None) is not None:
                raise ValueError("a row that cannot be read")
            return real(*arguments)

        return call

    for name in failures:
        monkeypatch.setattr(TaskStore, name, failing(name))
    supervisor = supervise(restart_limit=0)
    wait_for(lambda: supervisor.state.status is SupervisorStatus.DEFUNCT, seconds=START_SECONDS, what="defunct")
    assert all(next(left, None) is None for left in failures.values()), "both failed once"


def test_a_stopped_supervisor_leaves_no_process(queue: Queue, supervise: Callable[..., Supervisor]) -> None:
    supervisor = supervise()
    wait_for(queue.workers.list, seconds=START_SECONDS, what="the worker's first beat")
    (worker,) = queue.workers.list()
    assert worker.id == supervisor.state.worker_id
    assert worker.pid == supervisor.state.pid
    supervisor.stop()
    assert worker.is_dead()
    assert supervisor.state.status is SupervisorStatus.STOPPED
    assert queue.workers.list() == []
    supervisor.stop()


def test_the_worker_gets_the_settings_of_its_server(tmp_path: Path) -> None:
    secrets = {"api_key": "k" * 20, "webhook_secret": "whsec_" + "QUJD" * 10}
    given = load_settings(home=tmp_path, threads=2, worker=False, allowed_hosts=["a.example"], **secrets)
    environment = as_environment(given)
    assert environment == {
        "WAN22_HOME": str(tmp_path),
        "WAN22_THREADS": "2",
        "WAN22_WORKER": "false",
        "WAN22_ALLOWED_HOSTS": '["a.example"]',
    }


def test_supervising_needs_no_engine() -> None:
    program = "import sys, backend.worker.supervisor; print([m for m in ('torch', 'diffusers') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
