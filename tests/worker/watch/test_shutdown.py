"""How a server ends with a running task: in order at the first signal, at once at the second, without orphans."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable

import psutil
import pytest
from filelock import FileLock

from backend.core.domain import EventType, TaskStatus
from backend.core.settings import load_settings
from tests.support.server import LiveServer, wait_for
from tests.worker.conftest import START_SECONDS, Queue

pytestmark = pytest.mark.timeout(900)
LONG = {"steps": 100, "num_frames": 65}


def children(server: LiveServer) -> list[psutil.Process]:
    return psutil.Process(server.pid).children(recursive=True)


def end(server: LiveServer, signals: list[signal.Signals]) -> tuple[int, float]:
    """Send the signals, the second when the first is being acted on; return exit status and duration in seconds."""
    began = time.monotonic()
    server.process.send_signal(signals[0])
    for another in signals[1:]:
        wait_for(lambda: "worker.stopping" in server.log.read_text(), what="the first signal's effect")
        began = time.monotonic()
        server.process.send_signal(another)
    status = server.process.wait(60)
    server.client.close()
    return status, time.monotonic() - began


@pytest.mark.parametrize(
    ("signals", "status"),
    [
        ([signal.SIGTERM], 0),
        ([signal.SIGTERM, signal.SIGTERM], 0),
        ([signal.SIGINT, signal.SIGINT], 130),
    ],
)
def test_08_a_signal_ends_the_server_in_order_and_a_second_one_at_once(
    live_server: Callable[..., LiveServer], signals: list[signal.Signals], status: int
) -> None:
    twice = len(signals) > 1
    # A worker that hangs in a step cannot hand its task back before the grace is over.
    faults = {"WAN22_FAULTS": "denoise.step:2=hang", "WAN22_STOP_GRACE_SECONDS": "120"} if twice else {}
    server = live_server(**faults)
    port = psutil.Process(server.pid).net_connections("inet")[0].laddr.port
    task_id = server.submit(**LONG)
    server.wait(task_id, "processing")
    wait_for(lambda: server.task(task_id).get("current_step"), seconds=START_SECONDS, what="a step")
    processes = children(server)
    assert processes

    code, seconds = end(server, signals)
    assert code == status
    assert seconds < 30.0, "far less than the grace of the worker" if twice else "within the grace"
    wait_for(lambda: not any(one.is_running() and one.status() != "zombie" for one in processes), what="no orphan")
    assert not (server.home / "server.json").exists()
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))
    with FileLock(server.home / "server.lock", timeout=0):
        pass

    queue = Queue(load_settings(home=server.home))
    back = queue.tasks.get(task_id)
    assert (back.status, back.attempt) == (TaskStatus.PENDING, 0), "the attempt does not count"
    assert queue.types(task_id)[-1] is EventType.RELEASED
    assert bool(queue.states(task_id)) is not twice, "it saved what it had, where it was given the time"
    queue.close()


def test_a_second_signal_ends_a_worker_of_its_own_at_once(queue: Queue, capfd: pytest.CaptureFixture[str]) -> None:
    task = queue.submit()
    worker = queue.start_worker("alone", WAN22_FAULTS="denoise.step:1=hang", WAN22_STOP_GRACE_SECONDS="300")
    queue.wait_denoising(task.id)
    capfd.readouterr()
    worker.send_signal(signal.SIGINT)
    wait_for(lambda: "worker.stopping" in capfd.readouterr().err, what="the first signal's effect")
    worker.send_signal(signal.SIGINT)
    assert worker.wait(60) == 130
    back = queue.tasks.get(task.id)
    assert (back.status, back.attempt) == (TaskStatus.PENDING, 0)
    assert queue.leftovers() == []
