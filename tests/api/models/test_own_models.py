"""A model of the user's own, added while the server runs, is a model like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from backend.core.paths import Home
from backend.core.requests.forms import GenerationRequest
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.own.configuration import ModelConfigurationManager
from backend.models.own.model_entry import ModelEntry
from backend.models.own.registration import OwnModels
from tests.api.support import GOOD, SUBMIT, Served, assert_error
from tests.commands.support import wan22
from tests.support.server import LiveServer

DEFAULTS = {"steps": 3, "width": 64, "height": 64, "num_frames": 5, "guidance_scale": 1.0, "guidance_scale_2": 1.0}
TINY = EMBEDDED_MODELS / "tiny-t2v-a14b"
EXPERTS = {"high": "transformer", "low": "transformer_2"}


def _add(home: Home, model_id: str = "mine", folder: Path = TINY, **values: object) -> None:
    """Add a model as another process does it."""
    entry = ModelEntry.read({"base": "tiny-t2v-a14b", "title": "Mine", "defaults": DEFAULTS} | values)
    OwnModels(home, ModelConfigurationManager(home)).add(model_id, entry, folder)


def _get(served: Served, path: str) -> Any:
    answer = served.client.get(f"/api/v1{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_appears_everywhere_at_once(served: Served) -> None:
    assert_error(served.client.get("/api/v1/models/status/mine"), 422, "unknown_model")
    _add(served.services.home, aliases=["my-own"])
    status = _get(served, "/models/status/my_own")
    assert (status["model_id"], status["status"], status["is_available"]) == ("mine", "available", True)
    assert "mine" in _get(served, "/models/status")["models"]
    assert "mine" in _get(served, "/models/summary")["models"]
    assert _get(served, "/models/health")["model_health"]["mine"]["is_healthy"]
    (info,) = [one for one in _get(served, "/models")["models"] if one["id"] == "mine"]
    assert (info["title"], info["base"], info["embedded"]) == ("Mine", "tiny-t2v-a14b", False)
    assert info["defaults"]["steps"] == 3
    assert str(TINY) not in json.dumps([status, info])
    verified = served.client.post("/api/v1/models/verify/mine").json()
    assert (verified["is_valid"], verified["integrity_status"]) == (True, "unknown")


def test_a_request_for_it_gets_its_defaults(served: Served) -> None:
    _add(served.services.home)
    answer = served.client.post(SUBMIT, json=GOOD | {"model_type": "Mine"}).json()
    request = GenerationRequest.from_json(served.services.tasks.get(answer["task_id"]).request)
    assert (request.model, request.steps, request.resolution, request.num_frames) == ("mine", 3, "64x64", 5)
    estimate = served.client.post("/api/v1/generation/estimate", json=GOOD | {"model_type": "mine"})
    assert estimate.status_code == 200, estimate.text
    assert _get(served, "/models/status/mine")["in_use"] is True
    assert _get(served, "/queue")["queue"][0]["model_type"] == "t2v"
    assert_error(served.client.post(SUBMIT, json=GOOD | {"model_type": "mine", "steps": 101}), 422, "invalid_request")


def test_loras_for_its_base_fit_it(served: Served) -> None:
    _add(served.services.home)
    (chalk,) = [one for one in _get(served, "/lora")["loras"] if one["name"] == "tiny_chalk"]
    assert {"tiny-t2v-a14b", "mine"} <= set(chalk["compatible_models"])
    body = GOOD | {"model_type": "mine", "lora_path": "tiny_chalk"}
    assert served.client.post(SUBMIT, json=body).status_code == 200


@pytest.mark.parametrize(("dtype", "words"), [(np.int8, "int8 (I8)"), (np.uint8, "uint8 (U8)")])
def test_weights_in_a_form_that_is_not_supported_are_never_valid(
    served: Served, tmp_path: Path, dtype: type[np.generic], words: str
) -> None:
    folder = shutil.copytree(TINY, tmp_path / "eight")
    served.services.home.config_file.write_text(
        json.dumps({"models": {"eight": {"base": "tiny-t2v-a14b", "folder": str(folder)}}})
    )
    assert _get(served, "/models/status/eight")["is_valid"] is True
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    name = "blocks.0.ffn.net.2.weight"
    save_file(tensors | {name: np.zeros(tensors[name].shape, dtype)}, path)
    status = _get(served, "/models/status/eight")
    assert (status["status"], status["is_valid"], status["is_available"]) == ("unsupported", False, False)
    assert words in status["error_message"]
    answer = served.client.post(SUBMIT, json=GOOD | {"model_type": "eight"})
    assert_error(answer, 409, "model_not_supported")
    assert words in answer.json()["message"]


def test_its_files_are_not_deleted_over_the_api(served: Served) -> None:
    _add(served.services.home)
    assert_error(served.client.delete("/api/v1/models/mine"), 409, "model_not_available")
    assert (TINY / "model_index.json").is_file()


def test_broken_entries_are_told_and_nothing_stops(served: Served) -> None:
    assert "configuration_faults" not in _get(served, "/models/status")
    served.services.home.config_file.write_text(json.dumps({"models": {"mine": {"base": "sora"}}}))
    (fault,) = _get(served, "/models/status")["configuration_faults"]
    assert fault.startswith("config.json, line 1, column 13: `models.mine` is ignored: base must be one of")
    assert served.client.post(SUBMIT, json=GOOD).status_code == 200
    served.services.home.config_file.write_text("{")
    assert _get(served, "/models/status")["configuration_faults"] == [
        "config.json is not valid JSON at line 1, column 2"
    ]
    assert served.client.post(SUBMIT, json=GOOD).status_code == 200


def test_other_defaults_of_a_built_in_model_are_those_of_the_next_request(served: Served) -> None:
    served.services.home.config_file.write_text(json.dumps({"models": {"tiny-t2v-a14b": {"defaults": {"steps": 6}}}}))
    task = served.services.tasks.get(served.submit())
    assert task.request["steps"] == 6


@pytest.mark.timeout(300)
def test_models_are_added_to_a_running_server_and_make_videos(
    live_server: Callable[..., LiveServer], tmp_path: Path
) -> None:
    server = live_server()
    arguments = [f"--default={key}={value}" for key, value in DEFAULTS.items()]
    done = wan22("models", "add", "mine", str(TINY), "--base", "tiny", "--copy", *arguments, home=server.home)
    assert done.returncode == 0, done.stderr
    asked = {"model_type": "mine", "prompt": "a red circle moving right on a navy background", "seed": 7}
    answer = server.client.post(SUBMIT, json=asked)
    assert answer.status_code == 200, answer.text
    task_id = answer.json()["task_id"]
    server.wait(task_id, "completed")
    made = server.client.get(f"/api/v1/outputs/{task_id}").json()

    loose = {name: tmp_path / f"mine_{name}_noise.safetensors" for name in EXPERTS}
    for name, file in loose.items():
        shutil.copy(TINY / EXPERTS[name] / "diffusion_pytorch_model.safetensors", file)
    files = [f"--{name}={file}" for name, file in loose.items()]
    done = wan22("models", "add", "loose", "--base", "tiny", *files, *arguments, home=server.home)
    assert done.returncode == 0, done.stderr
    second = server.client.post(SUBMIT, json=asked | {"model_type": "loose"}).json()["task_id"]
    server.wait(second, "completed")
    frames = server.client.get(f"/api/v1/outputs/{second}").json()["metadata"]["result"]["frames_sha256"]
    assert frames == made["metadata"]["result"]["frames_sha256"]  # the same weights, however they came here
    assert server.client.get("/api/v1/models/status/loose").json()["is_loaded"] is True

    assert (made["model"], made["model_type"], made["resolution"]) == ("mine", "T2V-A14B", "64x64")
    request = made["generation_params"]
    assert (request["model"], request["steps"], request["num_frames"]) == ("mine", 3, 5)
    removed = wan22("models", "remove", "mine", "-y", home=server.home)
    assert removed.returncode == 0, removed.stderr
    assert server.client.post(SUBMIT, json=asked).status_code == 422
    assert (TINY / "model_index.json").is_file()
