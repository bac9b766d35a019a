"""Health, readiness, statistics, models, and the page that documents them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from backend import __version__
from backend.app import create_app
from backend.core.catalogue.table import MODELS
from backend.core.settings import load_settings
from backend.services.system.container import LocalWorker as Supervisor
from backend.store.workers import Equipment, WorkerState
from tests.api.support import ADDRESS, TINY, Served, assert_error

HEALTH = "/api/v1/system/health"


def alive(served: Served, worker_id: str = "w1") -> None:
    """Let a worker say that it lives; it is this process."""
    served.services.workers.beat(worker_id, device="cpu", state=WorkerState.IDLE)


def test_a_server_without_a_worker_lives_but_is_not_ready(served: Served) -> None:
    assert served.client.get("/live").json()["status"] == "alive"
    response = served.client.get("/ready")
    body = assert_error(response, 503, "not_ready")
    assert "worker" in body["detail"]
    assert "retry-after" in response.headers
    health = served.client.get(HEALTH).json()
    assert (health["status"], health["health_status"], health["worker_alive"]) == ("degraded", "warning", False)
    assert health["system_info"]["issues"] == [health["message"]] == [body["detail"]]
    assert served.client.get("/system/health").json()["status"] == "warning"
    assert served.client.get("/api/v1/health").json()["status"] == "degraded"


def test_probes_read_no_folder(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """They show what the background knows of the disk, and ask the database and the workers at each call."""
    alive(served)
    walks: list[str] = []

    def counted(real: Callable[[], object], name: str) -> object:
        walks.append(name)
        return real()

    for owner, name in ((served.services.models, "states"), (served.services.loras, "all")):
        monkeypatch.setattr(owner, name, partial(counted, getattr(owner, name), name))
    for path in ("/ready", "/health", HEALTH) * 10:
        assert served.client.get(path).status_code == 200
    assert walks.count("states") <= 1, "the background may have inspected once meanwhile"
    assert walks.count("all") <= 1
    served.services.workers.remove("w1")
    assert_error(served.client.get("/ready"), 503, "not_ready")


def test_with_a_worker_everything_is_healthy(served: Served) -> None:
    alive(served)
    assert served.client.get("/ready").json() == {"status": "ready", "workers": 1}
    for path in (HEALTH, "/system/health", "/api/v1/health", "/health", "/api/health"):
        assert served.client.get(path).json()["status"] == "healthy", path
    served.services.workers.remove("w1")
    assert served.client.get("/ready").status_code == 503


def test_a_card_that_cannot_be_used_is_a_warning_and_videos_are_made_all_the_same(served: Served) -> None:
    warned = ("NVIDIA X has no code. Install cu130.",)
    equipment = Equipment("no card can be used", warned, "native", "onednn", "float32")
    for worker_id in ("w1", "w2"):
        served.services.workers.beat(worker_id, device="cpu", state=WorkerState.IDLE, equipment=equipment)
    health = served.client.get(HEALTH).json()
    assert (health["status"], health["message"]) == ("degraded", "NVIDIA X has no code. Install cu130.")
    assert health["system_info"]["warnings"] == ["NVIDIA X has no code. Install cu130."], "once"
    worker = health["workers"][0]
    assert worker["warnings"] == health["system_info"]["warnings"]
    told = [worker[name] for name in ("device_reason", "attention", "convolution", "precision")]
    assert told == ["no card can be used", "native", "onednn", "float32"]
    assert served.client.get("/ready").status_code == 200


def test_what_auto_means_follows_what_the_workers_compute_on(served: Served) -> None:
    """A card that no worker can use does not make a large model the best one."""
    models = served.services.models
    folder = models.state(MODELS["TI2V-5B"]).folder
    (folder / "vae").mkdir(parents=True)
    (folder / "vae" / "x.safetensors").touch()
    (folder / "model_index.json").write_text('{"vae": ["diffusers", "AutoencoderKLWan"]}')
    for device, best in (("cpu", TINY), ("cuda:0", "TI2V-5B")):
        equipment = Equipment("it was tried")
        served.services.workers.beat("w1", device=device, state=WorkerState.IDLE, equipment=equipment)
        assert models.default().id == best


def test_the_health_answer_is_the_union_that_clients_read(served: Served) -> None:
    alive(served)
    served.submit()
    health = served.client.get(HEALTH).json()
    for field in ("backend_online", "database_connected", "gpu_available"):
        assert isinstance(health[field], bool), field
    for field in ("memory_usage", "active_tasks", "uptime"):
        assert isinstance(health[field], int | float), field
    assert health["active_tasks"] == 1
    assert health["version"] == __version__
    assert all(isinstance(value, str) for value in health["endpoints"].values())
    assert isinstance(health["message"], str)
    assert health["system_info"]["warnings"] == health["system_info"]["issues"] == []
    assert health["workers"][0]["device"] == "cpu"
    assert None not in health.values()
    if not health["gpu_available"]:
        assert "gpu_memory_usage" not in health
    age = datetime.now(UTC) - datetime.fromisoformat(served.client.get("/api/v1/health").json()["timestamp"])
    assert abs(age.total_seconds()) < 60
    assert abs(served.client.get("/health").json()["timestamp"] - time.time()) < 60


def test_the_port_in_use_is_told(serve: Callable[..., Served]) -> None:
    answer = serve(port=8123).client.get("/api/v1/system/ports").json()
    assert answer == {"backend_port": 8123, "frontend_port": 8123, "status": "ok"}


def test_statistics_are_numbers_and_come_at_once(shared: Served) -> None:
    shared.client.get("/api/v1/system/stats")
    began = time.perf_counter()
    stats = [shared.client.get("/system/stats").json() for _ in range(5)][-1]
    assert time.perf_counter() - began < 5  # five answers; one measuring call alone would take a second each
    for field in ("cpu_percent", "ram_percent", "gpu_percent", "vram_percent", "disk_usage", "memory_percent"):
        assert 0 <= stats[field] <= 100, field
    assert 0 < stats["ram_used_gb"] < stats["ram_total_gb"]
    assert stats["timestamp"].endswith("Z")
    if not stats["gpu_available"]:
        assert [stats[f"{name}"] for name in ("gpu_percent", "vram_used_mb", "vram_total_mb")] == [0, 0, 0]
        native = shared.client.get("/api/v1/system/stats").json()
        assert not {"gpu_percent", "vram_used_mb", "vram_total_mb", "vram_percent"} & set(native)


def test_every_model_is_listed_with_what_it_needs(shared: Served) -> None:
    answer = shared.client.get("/api/v1/models").json()
    models = {model["id"]: model for model in answer["models"]}
    assert set(models) == set(MODELS)
    assert (answer["default"], answer["total_models"]) == (TINY, len(MODELS))
    tiny = models[TINY]
    assert (tiny["status"], tiny["is_available"], tiny["embedded"]) == ("available", True, True)
    assert "reason" not in tiny
    assert tiny["defaults"]["resolution"] == "96x96"
    assert tiny["limits"]["size_multiple"] == 16
    large = models["T2V-A14B"]
    assert (large["status"], large["is_available"]) == ("missing", False)
    assert large["repository"] in large["reason"]
    big = models["TI2V-5B"]
    assert not big["is_available"]
    assert big["reason"]
    assert big["defaults"]["resolution"] == "1280x704"
    assert "guidance_scale_2" not in big["defaults"]
    assert big["limits"]["size_multiple"] == 32
    assert answer["available_models"] == sum(model["is_available"] for model in models.values())
    assert str(shared.services.home.root) not in str(answer)


def test_the_documentation_page_loads_nothing_from_elsewhere(shared: Served) -> None:
    page = shared.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "https://" not in page.text
    assert "http://" not in page.text
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon.png"):
        assert f"/docs/assets/{asset}" in page.text
        assert shared.client.get(f"/docs/assets/{asset}").status_code == 200
    assert_error(shared.client.get("/docs/assets/nothing.js"), 404)
    assert shared.client.get("/openapi.json").json()["info"]["version"] == __version__


@dataclass(frozen=True)
class GivenUp:
    """The state of a supervisor that does not try any more."""

    status: str = "defunct"
    reason: str | None = "the worker ended 5 times with status 1"


class RecordingSupervisor:
    """A supervisor without a process: it notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @property
    def state(self) -> GivenUp:
        return GivenUp()

    def start(self) -> None:
        self.told.append("start")

    def stop(self, grace: float) -> None:
        self.told.append(f"stop {grace:g}")


def test_the_supervisor_is_started_asked_and_stopped(tmp_path: Path) -> None:
    recorder = RecordingSupervisor()
    supervisor: Supervisor = recorder
    settings = load_settings(home=tmp_path, stop_grace_seconds=3)
    with TestClient(create_app(settings, supervisor=supervisor), base_url=ADDRESS) as client:
        assert recorder.told == ["start"]
        body = assert_error(client.get("/ready"), 503)
        assert "defunct" in body["detail"]
        assert "ended 5 times" in body["detail"]
        assert client.get("/live").status_code == 200
    assert recorder.told == ["start", "stop 3"]


def test_a_second_start_finds_the_tasks_of_the_first(serve: Callable[..., Served]) -> None:
    first = serve()
    task_id = first.submit()
    again = Served(first.services.home.root)
    try:
        assert again.client.get(f"/api/v1/queue/{task_id}").json()["status"] == "pending"
    finally:
        again.client.__exit__(None, None, None)
