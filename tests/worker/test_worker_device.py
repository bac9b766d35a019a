"""Workers on machines with an unusable GPU start, report it, and generate videos. Real processes, real model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import files
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.core.domain import TaskStatus
from backend.core.planning.hardware import GIB, Gpu, detect_hardware
from backend.store.workers import WorkerState
from backend.worker.supervisor import Supervisor, SupervisorStatus, as_environment
from tests.api.support import ADDRESS, GOOD
from tests.support.server import LiveServer, wait_for
from tests.worker.conftest import START_SECONDS, Queue

pytestmark = pytest.mark.timeout(900)


def broken_nvml(folder: Path) -> Path:
    """Replace NVIDIA's library with one that loads but has none of its functions; return its folder."""
    library = next(path.locate() for path in files("psutil") or () if path.suffix == ".so")
    folder.mkdir()
    (folder / "libnvidia-ml.so.1").symlink_to(Path(library))
    return folder


def assert_a_video_is_made_on_the_processor(queue: Queue, worker_id: str) -> None:
    task = queue.submit()
    queue.wait_status(task.id, TaskStatus.COMPLETED)
    assert queue.outputs.get(task.id).metadata["device"] == "cpu"
    assert queue.videos() == [f"{task.id}.mp4"]
    assert queue.worker(worker_id).device == "cpu"


def test_videos_are_generated_despite_a_failing_gpu_library(queue: Queue, tmp_path: Path) -> None:
    queue.start_worker("first", LD_LIBRARY_PATH=str(broken_nvml(tmp_path / "lib")))
    assert_a_video_is_made_on_the_processor(queue, "first")
    equipment = queue.worker("first").equipment
    assert equipment is not None
    assert equipment.device_reason == "no card can be used, so videos are generated on the processor"
    (warning,) = equipment.warnings
    assert "NVIDIA's library could not be started" in warning


def test_a_server_with_a_failing_gpu_library_starts_reports_it_and_generates_a_video(
    live_server: Callable[..., LiveServer], tmp_path: Path
) -> None:
    server = live_server(LD_LIBRARY_PATH=str(broken_nvml(tmp_path / "lib")))
    assert server.wait(server.submit(), "completed", seconds=START_SECONDS)["status"] == "completed"
    health = server.client.get("/api/v1/system/health").json()
    (worker,) = health["workers"]
    (warning,) = worker["warnings"]
    assert "NVIDIA's library could not be started" in warning
    assert (worker["device"], warning in health["system_info"]["warnings"]) == ("cpu", True)
    assert (health["database_connected"], health["worker_alive"]) == (True, True)


@contextmanager
def worker_with_a_newer_card(queue: Queue) -> Iterator[None]:
    """Run a worker, called `newer`, whose card its torch has no code for."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.worker.programs.newer_card", "newer"],
        stdin=subprocess.PIPE,
        env=os.environ | as_environment(queue.settings),
    )
    try:
        yield
    finally:
        worker.kill()
        worker.wait()
        assert worker.stdin is not None
        worker.stdin.close()


def test_videos_are_generated_with_a_card_newer_than_torch(queue: Queue) -> None:
    with worker_with_a_newer_card(queue):
        assert_a_video_is_made_on_the_processor(queue, "newer")
        equipment = queue.worker("newer").equipment
        assert equipment is not None
        (warning,) = equipment.warnings
        assert "compute capability 12.0" in warning
        assert "cu130" in warning


def test_a_server_plans_for_the_cpu_once_its_worker_found_the_card_unusable(
    queue: Queue,
) -> None:
    gpu = Gpu(0, "NVIDIA RTX 5090", 32 * GIB, 0, None, (12, 0))
    looks = replace(detect_hardware(), gpus=(gpu,))
    app = create_app(queue.settings.model_copy(update={"worker": False}), workers_on=looks)
    with TestClient(app, base_url=ADDRESS) as client:

        def estimate(model: str) -> dict[str, Any]:
            body: dict[str, Any] = client.post("/api/v1/generation/estimate", json=GOOD | {"model_type": model}).json()
            return body

        assert estimate("auto")["machine"]["kind"] == "cuda"
        with worker_with_a_newer_card(queue):
            wait_for(
                lambda: estimate("auto")["machine"]["kind"] == "cpu",
                seconds=START_SECONDS,
                what="what the worker found",
            )
            assert queue.worker("newer").device == "cpu"
            large = estimate("T2V-A14B")
            assert large["machine"]["ram_gib"] == round(detect_hardware().memory / GIB, 2)
            assert not any("vram" in option for option in large["options"])


def test_without_a_gpu_the_worker_reports_its_device(queue: Queue) -> None:
    queue.start_worker("first", WAN22_DEVICE="cpu")
    wait_for(
        lambda: [worker.state for worker in queue.workers.list()] == [WorkerState.IDLE],
        seconds=START_SECONDS,
        what="the worker",
    )
    equipment = queue.worker("first").equipment
    assert equipment is not None
    assert (equipment.device_reason, equipment.warnings) == ("the processor was chosen in WAN22_DEVICE", ())


def test_a_requested_unusable_device_is_an_error_that_the_server_reports(
    queue: Queue, supervise: Callable[..., Supervisor]
) -> None:
    task = queue.submit()
    supervisor = supervise(device="cuda:99", restart_limit=0)
    wait_for(
        lambda: supervisor.state.status is SupervisorStatus.DEFUNCT, seconds=START_SECONDS, what="the end of its tries"
    )
    assert "WAN22_DEVICE asks for cuda:99, which cannot be used" in (supervisor.state.reason or "")
    assert "Set WAN22_DEVICE to auto" in (supervisor.state.reason or "")
    assert queue.tasks.get(task.id).status is TaskStatus.PENDING


def test_the_chosen_kernel_is_used_and_recorded(queue: Queue) -> None:
    queue.start_worker("first", WAN22_ATTENTION="math")
    task = queue.submit()
    queue.wait_status(task.id, TaskStatus.COMPLETED)
    result = queue.outputs.get(task.id).metadata["result"]
    assert (result["attention"], result["precision"]) == ("math", "float32")
    equipment = queue.worker("first").equipment
    assert equipment is not None
    assert (equipment.attention, equipment.precision, equipment.warnings) == ("math", "float32", ())
    assert queue.home.abilities_file.exists()
