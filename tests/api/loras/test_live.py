"""LoRAs on a real server: the clip changes, the receipt is in it, and a LoRA that went away is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import save

from backend.core.catalogue.table import MODELS
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.lora.files import ModelShapes
from tests.support.lora_files import comfyui_file, kohya_file, lightx2v_file, random_adapter
from tests.support.server import LiveServer

pytestmark = pytest.mark.timeout(300)
TINY = MODELS["tiny-t2v-a14b"]


def upload(server: LiveServer, name: str, content: tuple[dict[str, torch.Tensor], dict[str, str]]) -> None:
    files = {"file": (f"{name}.safetensors", save(*content))}
    response = server.client.post("/api/v1/lora/upload", files=files)
    assert response.status_code == 200, response.text


def result_of(server: LiveServer, task_id: str) -> dict[str, Any]:
    server.wait(task_id, "completed", seconds=150.0)
    output: dict[str, Any] = server.client.get(f"/api/v1/outputs/{task_id}").json()
    return output


def test_loras_from_upload_to_video(live_server: Callable[..., LiveServer]) -> None:
    server = live_server()
    shape = ModelShapes(EMBEDDED_MODELS).of(TINY)
    assert shape is not None
    for seed, side in enumerate(("high", "low")):
        upload(server, f"duo_{side}_noise", kohya_file(random_adapter(shape, seed=seed)))
    upload(server, "full", lightx2v_file(random_adapter(shape, seed=2, full=True)))
    tensors, metadata = comfyui_file(random_adapter(shape, seed=3))
    upload(server, "partial", (tensors | {"diffusion_model.blocks.0.self_attn.q.dora_scale": torch.ones(4)}, metadata))
    upload(server, "doomed", comfyui_file(random_adapter(shape, seed=4)))

    loras = {
        "plain": [],
        "duo": [{"id": "duo", "strength": 0.5, "strength_2": 0.25}],
        "both": [{"id": "duo"}, {"id": "full", "strength": 0.3}],
        "partial": [{"id": "partial"}],
        "zero": [{"id": "full", "strength": 0.0}],
    }
    tasks = {name: server.submit(loras=wanted) for name, wanted in loras.items()}
    refused = {"loras": [{"id": "partial"}], "on_lora_failure": "fail"}
    answer = server.client.post("/api/v1/generation/submit", json={"model_type": TINY.id, "prompt": "x"} | refused)
    assert (answer.status_code, answer.json()["error"]) == (422, "lora_incompatible")
    # These wait behind the others while their file goes away.
    skipped = server.submit(loras=[{"id": "doomed"}])
    failed = server.submit(loras=[{"id": "doomed"}], on_lora_failure="fail")
    assert server.client.delete("/api/v1/lora/doomed").status_code == 200

    outputs = {name: result_of(server, task_id) for name, task_id in tasks.items()}
    results = {name: output["metadata"]["result"] for name, output in outputs.items()}
    frames = {name: result["frames_sha256"] for name, result in results.items()}
    assert len({frames["plain"], frames["duo"], frames["both"]}) == 3
    assert frames["partial"] == frames["zero"] == frames["plain"]

    (duo,) = results["duo"]["loras"]
    assert (duo["outcome"], duo["strength"]) == ("applied", {"high": 0.5, "low": 0.25})
    assert [(file["expert"], file["format"]) for file in duo["files"]] == [("high", "kohya"), ("low", "kohya")]
    assert all(count["unmatched"] == 0 < count["matched"] for file in duo["files"] for count in file["keys"].values())
    assert [one["id"] for one in results["both"]["loras"]] == ["duo", "full"]
    (partial,) = results["partial"]["loras"]
    assert partial["outcome"] == "skipped"
    assert "dora_scale" in partial["reason"]
    assert any("partial" in warning for warning in outputs["partial"]["warnings"])

    gone = result_of(server, skipped)
    assert gone["metadata"]["result"]["loras"][0]["outcome"] == "skipped"
    assert any("doomed" in warning for warning in gone["warnings"])
    assert gone["metadata"]["result"]["frames_sha256"] == frames["plain"]
    task = server.wait(failed, "failed", seconds=150.0)
    assert "doomed" in str(task)
    events = server.client.get(f"/api/v1/queue/{failed}/events").json()["events"]
    assert "lora_not_applied" in str(events)
