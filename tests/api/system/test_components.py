"""Every component of the server says how it is; one that fails is shown, and the rest works."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest
from fastapi.testclient import TestClient

from backend.app import create_app
from backend.core.errors.surroundings import StoreUnavailable
from backend.core.settings import load_settings
from backend.store.workers import WorkerState
from tests.api.support import ADDRESS, GOOD, SUBMIT, TINY, Served
from tests.api.system.test_health import GivenUp, RecordingSupervisor, alive

STATUS = "/api/v1/models/integration/status"
OPTIMIZATION = "/api/v1/system/optimization/status"
HEALTH = "/api/v1/system/health"
ORDER = [
    "home",
    "storage",
    "configuration",
    "database",
    "keys",
    "upkeep",
    "hardware",
    "models",
    "loras",
    "inputs",
    "events",
    "downloads",
    "webhooks",
    "workers",
    "health",
    "performance",
    "recheck",
]


def status(served: Served) -> dict[str, Any]:
    answer = served.client.get(STATUS)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def component(served: Served, name: str) -> tuple[str, str]:
    found = status(served)["components"][name]
    return found["status"], found["message"]


def assert_works(served: Served) -> None:
    """The rest of the server takes requests."""
    assert served.client.post(SUBMIT, json=GOOD).status_code == 200
    assert served.client.get("/api/v1/models").status_code == 200
    assert served.client.get("/api/v1/outputs").status_code == 200


def test_every_component_is_there_and_ready(served: Served) -> None:
    alive(served)
    body = status(served)
    assert list(body["components"]) == ORDER
    assert {one["status"] for one in body["components"].values()} == {"ready"}
    assert (body["status"], body["initialized"], body["initialization_errors"]) == ("ready", True, [])
    assert all(one["message"] and one["since"].endswith("Z") for one in body["components"].values())
    assert TINY in body["available_models"]
    assert body["loaded_models"] == []
    assert str(served.services.home.root) not in str(body)


def test_the_worker_is_as_its_heartbeat_says(served: Served) -> None:
    assert component(served, "workers")[0] == "not_started"
    assert served.client.get("/ready").status_code == 503
    served.services.workers.beat("w1", device="cpu", state=WorkerState.LOADING, detail=TINY)
    assert component(served, "workers") == ("starting", f"cpu loading: {TINY}")
    assert status(served)["status"] == "starting"
    served.services.workers.beat("w1", device="cpu", state=WorkerState.IDLE, model=TINY)
    assert component(served, "workers") == ("ready", "cpu idle")
    assert status(served)["loaded_models"] == [TINY]
    assert served.client.get("/ready").status_code == 200


def test_a_supervisor_that_gave_up_is_a_failed_component(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    with TestClient(create_app(settings, supervisor=RecordingSupervisor()), base_url=ADDRESS) as client:
        workers = client.get(STATUS).json()["components"]["workers"]
        assert workers["status"] == "failed"
        assert GivenUp().reason in workers["message"]
        assert workers["message"] in client.get(HEALTH).json()["system_info"]["issues"]


def test_the_health_routes_say_the_same(served: Served) -> None:
    alive(served)
    served.services.home.config_file.write_text("{")
    body, health = status(served), served.client.get(HEALTH).json()
    assert (body["status"], health["status"], health["health_status"]) == ("degraded", "degraded", "warning")
    assert health["system_info"]["warnings"] == [body["components"]["configuration"]["message"]]
    assert served.client.get("/ready").status_code == 200  # tasks can be run all the same
    served.services.home.config_file.unlink()
    assert (status(served)["status"], served.client.get(HEALTH).json()["status"]) == ("ready", "healthy")


def test_a_folder_that_cannot_be_made_is_shown_and_the_rest_works(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "loras").write_text("a file where a folder belongs")
    served = Served(home)
    try:
        assert component(served, "home") == ("degraded", "`loras` in the home folder is not a writable folder")
        assert component(served, "loras")[0] == "degraded"
        assert_works(served)
        (home / "loras").unlink()
        (home / "loras").mkdir()
        assert component(served, "home")[0] == "ready"
    finally:
        served.client.__exit__(None, None, None)


def test_a_home_that_goes_away_is_told_and_not_an_error(served: Served) -> None:
    alive(served)
    root = served.services.home.root
    away = root.rename(root.with_name("away"))
    body = status(served)
    assert (body["status"], body["components"]["home"]["status"]) == ("failed", "failed")
    health = served.client.get(HEALTH)
    assert (health.status_code, health.json()["status"]) == (200, "unhealthy")
    away.rename(root)
    assert status(served)["components"]["home"]["status"] == "ready"


def test_a_start_that_fails_is_an_error_that_stays(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "inputs").write_text("a file where a folder belongs")
    served = Served(home)
    try:
        assert component(served, "inputs") == ("failed", "NotADirectoryError: Not a directory")
        body = status(served)
        assert (body["initialized"], body["initialization_errors"]) == (
            False,
            ["inputs: NotADirectoryError: Not a directory"],
        )
        assert_works(served)
    finally:
        served.client.__exit__(None, None, None)


@pytest.mark.parametrize(
    "content", ["{", '{"optimization": {"vae_tile_size": 9}}', '{"constraints": {"ram_warning_threshold": "much"}}']
)
def test_a_broken_section_of_the_configuration_is_shown_and_the_defaults_hold(served: Served, content: str) -> None:
    served.services.home.config_file.write_text(content)
    state, message = component(served, "configuration")
    assert state == "degraded"
    assert "config.json" in message
    assert served.client.get("/api/v1/system/optimization").json()["vae_tile_size"] == 256
    assert_works(served)


def test_a_failing_gpu_library_is_shown_and_the_rest_works(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_DRIVER_NOT_LOADED)

    monkeypatch.setattr(pynvml, "nvmlInit", fails)
    served = serve()
    state, message = component(served, "hardware")
    assert (state, "NVIDIA" in message) == ("degraded", True)
    profile = served.client.get("/api/v1/system/hardware/profile").json()
    assert profile["findings"] == [message]
    assert profile["architecture_type"] == "cpu"
    assert not {"gpu_model", "vram_gb", "driver"} & set(profile)
    assert_works(served)


def test_a_damaged_model_is_told(served: Served) -> None:
    folder = served.services.home.models / "T2V-A14B"
    folder.mkdir()
    (folder / "model_index.json").write_text('{"vae": ["diffusers", "AutoencoderKLWan"]}')
    state, message = component(served, "models")
    assert (state, "T2V-A14B is damaged" in message) == ("degraded", True)
    shutil.rmtree(folder)
    assert component(served, "models")[0] == "ready"


def test_without_the_database_everything_else_still_answers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    alive(served)

    def gone() -> None:
        raise StoreUnavailable("The database is locked")

    monkeypatch.setattr(served.services.tasks, "counts", gone)
    body = status(served)
    assert body["status"] == "failed"
    assert "The database is locked" in body["components"]["database"]["message"]
    health = served.client.get(HEALTH).json()
    assert (health["status"], health["database_connected"]) == ("unhealthy", False)
    assert served.client.get("/ready").status_code == 503


def test_the_event_tail_is_watched(served: Served) -> None:
    assert component(served, "events")[0] == "ready"
    portal = served.client.portal
    assert portal is not None
    portal.call(served.services.sockets.stop)
    assert component(served, "events")[0] == "failed"
    assert_works(served)


def test_the_older_status_has_the_shape_that_clients_read(served: Served) -> None:
    alive(served)
    body = served.client.get(OPTIMIZATION).json()
    assert body["system_integration"]["initialized"] is True
    assert body["system_integration"]["components"] == dict.fromkeys(ORDER, True)
    assert body["optimization_settings"] == {"quantization": "auto", "enable_offload": True, "vae_tile_size": 256}
    assert body["hardware_profile"]["cpu_cores"] >= 1
    assert body["model_paths"][TINY] == "embedded"
    assert "T2V-A14B" not in body["model_paths"]


def test_the_machine_is_told_as_it_is(shared: Served) -> None:
    body = shared.client.get("/api/v1/system/hardware/profile").json()
    assert 0 < body["total_memory_gb"] <= body["installed_memory_gb"]
    assert 0 < body["disk_free_gb"] < body["disk_total_gb"]
    assert len(body["cards"]) == (1 if body["architecture_type"] == "cuda" else 0)
    assert body["findings"] == body["changes"] == []
