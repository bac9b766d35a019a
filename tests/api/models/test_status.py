"""Where the models stand: on disk, in workers' memory, in the queue, in the gallery."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from backend.core.catalogue.table import MODELS, find_model
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.store.workers import WorkerState
from tests.api.support import TINY, Served, assert_error

STATUS = "/api/v1/models/status"


def test_a_fresh_server_has_the_embedded_models_and_says_so_everywhere(served: Served) -> None:
    everything = served.client.get(STATUS).json()
    here = {name for name, model in everything["models"].items() if model["is_available"]}
    assert set(everything["models"]) == set(MODELS)
    assert here == {spec.id for spec in MODELS.values() if spec.embedded}
    assert (everything["available_models"], everything["total_models"]) == (len(here), len(MODELS))
    totals = served.client.get("/api/v1/models/summary").json()["models_summary"]
    assert (totals["available_models"], totals["missing_models"]) == (len(here), len(MODELS) - len(here))
    assert (totals["loaded_models"], totals["corrupted_models"]) == (0, 0)
    health = served.client.get("/api/v1/models/health").json()
    assert health["system_health"]["models_healthy"] == len(here)
    assert health["recommendations"] == []  # a model that nobody fetched is no fault


@pytest.mark.parametrize("name", ["T2V-A14B", "t2v-A14B", "t2v", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "t2v-A14B@2.2.0"])
def test_one_model_is_found_by_any_of_its_names(served: Served, name: str) -> None:
    model = served.client.get(f"{STATUS}/{name.replace('/', '_')}").json()
    assert (model["model_id"], model["status"], model["is_available"]) == ("T2V-A14B", "missing", False)
    assert find_model("T2V-A14B").repo_id in model["error_message"]
    assert "size_mb" not in model


def test_an_unknown_model_is_refused(served: Served) -> None:
    assert_error(served.client.get(f"{STATUS}/stable-diffusion"), 422, "unknown_model")


def test_a_model_is_loaded_while_a_living_worker_holds_it(served: Served) -> None:
    workers = served.services.workers
    workers.beat("w1", device="cpu", state=WorkerState.IDLE, model=TINY)
    workers.beat("w2", device="cpu", state=WorkerState.LOADING)
    model = served.client.get(f"{STATUS}/{TINY}").json()
    assert (model["is_loaded"], model["loaded_by"]) == (True, ["w1"])
    workers.beat("w1", device="cpu", state=WorkerState.IDLE, model="tiny-i2v-a14b")
    assert served.client.get(f"{STATUS}/{TINY}").json()["is_loaded"] is False
    workers.remove("w1")
    assert served.client.get(f"{STATUS}/tiny-i2v-a14b").json()["is_loaded"] is False


def test_a_model_is_in_use_while_a_task_needs_it_and_its_videos_are_counted(served: Served) -> None:
    fresh = served.client.get(f"{STATUS}/detailed").json()["models"][TINY]
    assert (fresh["in_use"], fresh["usage_frequency"]) == (False, 0)
    assert not {"last_used", "average_generation_time"} & set(fresh)
    served.submit()
    assert served.client.get(f"{STATUS}/{TINY}").json()["in_use"] is True
    served.complete(served.claim())
    served.complete_one()
    used = served.client.get(f"{STATUS}/detailed").json()["models"][TINY]
    assert (used["in_use"], used["usage_frequency"], used["average_generation_time"]) == (False, 2, 1.25)
    newest = served.services.outputs.list(limit=1)[0].created_at
    assert newest is not None
    assert used["last_used"][:19] == newest.isoformat()[:19]


def test_a_damaged_model_is_corrupted_and_its_health_says_what_to_do(serve: Callable[..., Served]) -> None:
    served = serve()
    folder = served.services.home.models / "T2V-A14B"
    shutil.copytree(EMBEDDED_MODELS / TINY, folder)
    assert served.client.get(f"{STATUS}/T2V-A14B").json()["status"] == "available"
    for weights in (folder / "transformer_2").glob("*.safetensors"):
        weights.unlink()
    model = served.client.get(f"{STATUS}/detailed").json()["models"]["T2V-A14B"]
    assert (model["availability_status"], model["corruption_detected"], model["is_valid"]) == ("corrupted", True, False)
    assert model["model_path"] == "models/T2V-A14B"
    health = served.client.get("/api/v1/models/health").json()
    ill = health["model_health"]["T2V-A14B"]
    assert (ill["health_status"], ill["is_healthy"]) == ("corrupted", False)
    assert "transformer_2" in ill["issues"][0]
    assert ill["repair_suggestions"]
    assert health["recommendations"] == [f"T2V-A14B: {ill['issues'][0]}"]
    assert str(served.services.home.root) not in str(health)
