"""The LoRA routes as older clients call them, on both path styles: list, upload, look at, delete."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from backend.core.catalogue.table import MODELS
from backend.core.catalogue.transformer import WanShape
from backend.models.folder.manager import EMBEDDED_MODELS
from backend.models.lora.files import ModelShapes
from backend.models.lora.library import LoraLibrary
from tests.api.support import GOOD, SUBMIT, TINY, Served, assert_error
from tests.support.lora_files import comfyui_file, kohya_file, random_adapter, write_lora

PREFIXES = ("/api/v1/lora", "/lora")


@pytest.fixture(scope="module")
def shape() -> WanShape:
    shape = ModelShapes(EMBEDDED_MODELS).of(MODELS[TINY])
    assert shape is not None
    return shape


@pytest.fixture(scope="module")
def content(shape: WanShape) -> bytes:
    tensors, metadata = kohya_file(random_adapter(shape))
    return save(tensors, metadata | {"modelspec.trigger_phrase": "glow, ring"})


def upload(
    served: Served, raw: bytes, filename: str = "style.safetensors", prefix: str = PREFIXES[0], **fields: str
) -> Any:
    return served.client.post(f"{prefix}/upload", files={"file": (filename, raw)}, data=fields)


def mine(served: Served, prefix: str = PREFIXES[0]) -> list[dict[str, Any]]:
    """The list without what ships."""
    return [one for one in served.client.get(prefix).json()["loras"] if not one["embedded"]]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_lora_from_upload_to_delete(served: Served, content: bytes, prefix: str) -> None:
    answer = upload(served, content, prefix=prefix)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert {"success", "message", "lora_name", "file_path", "size_mb", "name", "filename", "path"} <= set(body)
    assert (body["success"], body["lora_name"], body["filename"]) == (True, "style", "style.safetensors")

    listed = served.client.get(f"{prefix}/list").json()
    assert listed == served.client.get(prefix).json()
    assert listed["total_count"] == len(listed["loras"])
    (lora,) = (one for one in listed["loras"] if one["name"] == "style")
    needed = {"name", "filename", "path", "size_mb", "modified_time", "is_loaded", "is_applied", "current_strength"}
    assert needed | {"created_at", "compatible_models"} <= set(lora)
    assert lora["modified_time"].endswith("Z")
    assert TINY in lora["compatible_models"]
    assert (lora["is_loaded"], lora["is_applied"], lora["current_strength"]) == (False, False, 0.0)
    assert str(served.services.home.root) not in json.dumps(listed)
    assert served.client.get(f"{prefix}/style").json() == lora

    status = served.client.get(f"{prefix}/style/status").json()
    assert {
        "name": "style",
        "exists": True,
        "is_loaded": False,
        "is_applied": False,
        "current_strength": 0.0,
    }.items() <= status.items()
    unknown = served.client.get(f"{prefix}/nobody/status")
    assert (unknown.status_code, unknown.json()["exists"]) == (200, False)

    memory = served.client.get(f"{prefix}/style/memory-impact").json()
    assert memory["lora_name"] == memory["name"] == "style"
    assert memory["memory_impact"] == "low"
    assert memory["can_load"] is memory["compatible_with_current_setup"] is True
    assert memory["estimated_memory_mb"] == memory["estimated_vram_increase_mb"] > 0

    deleted = served.client.delete(f"{prefix}/style")
    assert (deleted.status_code, set(deleted.json())) == (200, {"message"})
    assert mine(served, prefix) == []
    assert_error(served.client.delete(f"{prefix}/style"), 404, "lora_missing")


@pytest.mark.parametrize("how", ["json prompt", "json base_prompt", "form base_prompt", "form prompt"])
def test_preview_shows_the_prompt_with_the_trigger_words(served: Served, content: bytes, how: str) -> None:
    upload(served, content)
    kind, field = how.split()
    sent = {"json": {field: "a red ring"}} if kind == "json" else {"data": {field: "a red ring"}}
    body = served.client.post("/api/v1/lora/style/preview", **sent).json()
    assert body == {
        "lora_name": "style",
        "base_prompt": "a red ring",
        "enhanced_prompt": "a red ring, glow",
        "style_indicators": ["glow", "ring"],
        "preview_note": "The LoRA's trigger words are added to the prompt; nothing was generated",
    }
    assert served.services.tasks.list() == []


def test_preview_in_a_multipart_form(served: Served, content: bytes) -> None:
    upload(served, content)
    answer = served.client.post("/api/v1/lora/style/preview", files={"base_prompt": (None, "a circle")})
    assert answer.json()["enhanced_prompt"] == "a circle, glow, ring"


def test_what_preview_refuses(served: Served, content: bytes) -> None:
    upload(served, content)
    url = "/api/v1/lora/style/preview"
    for body in ({}, {"prompt": " "}, {"prompt": 7}, {"prompt": "x" * 2001}):
        assert_error(served.client.post(url, json=body), 422)
    for raw in (b"{", b"[]", b"\xff"):
        assert_error(served.client.post(url, content=raw, headers={"content-type": "application/json"}), 400)
    assert_error(served.client.post(url, content=b"x"), 400)
    assert_error(served.client.post("/api/v1/lora/nobody/preview", json={"prompt": "x"}), 404, "lora_missing")
    assert_error(served.client.get("/api/v1/lora/nobody/memory-impact"), 404, "lora_missing")
    assert_error(served.client.get("/api/v1/lora/nobody"), 404, "lora_missing")


def test_an_unknown_lora_is_404_in_a_path_and_422_in_a_body(shared: Served) -> None:
    for prefix in ("/api/v1/lora", "/lora"):
        for method, path in (("GET", ""), ("GET", "/memory-impact"), ("DELETE", "")):
            assert_error(shared.client.request(method, f"{prefix}/nobody{path}"), 404, "lora_missing")
    for body in ({"loras": [{"id": "nobody"}]}, {"lora_path": "nobody"}, {"preset": "nobody"}):
        assert_error(shared.client.post(SUBMIT, json=GOOD | body), 422, "lora_not_found")


def test_a_lora_with_a_similar_name_is_offered_as_a_request_that_is_taken(served: Served, content: bytes) -> None:
    assert upload(served, content, "style.safetensors").status_code == 200
    body = GOOD | {"loras": [{"id": "stile", "strength": 0.5}]}
    (action,) = assert_error(served.client.post(SUBMIT, json=body), 422, "lora_not_found")["actions"]
    assert action == {"action": "resubmit", "changes": {"loras": [{"id": "style", "strength": 0.5}]}}
    assert served.client.post(SUBMIT, json=body | action["changes"]).status_code == 200


def test_what_upload_refuses(served: Served, content: bytes, shape: WanShape) -> None:
    assert_error(upload(served, content, "style.pt"), 422, "lora_invalid")
    assert_error(upload(served, b"\x80\x04pickle" * 10), 422, "lora_invalid")
    assert_error(upload(served, content[:-1]), 422, "lora_invalid")
    assert_error(upload(served, content, name="x" * 101), 422)
    assert_error(served.client.post("/api/v1/lora/upload", json={"file": {}, "name": "x"}), 422)
    assert_error(served.client.post("/api/v1/lora/upload", data={"file": "text"}), 422)
    assert_error(served.client.post("/api/v1/lora/upload", files={"file": (None, "text")}), 422)
    assert_error(served.client.post("/api/v1/lora/upload", files={"other": ("a.safetensors", content)}), 422)
    assert mine(served) == []
    assert upload(served, content).status_code == 200
    assert upload(served, content).status_code == 200
    other = save(*kohya_file(random_adapter(shape, seed=4)))
    assert_error(upload(served, other), 409, "lora_exists")


@pytest.mark.parametrize("filename", ["../../../evil.safetensors", "..\\evil.safetensors", "/abs/evil.safetensors"])
def test_a_file_name_never_leads_out_of_the_folder(served: Served, content: bytes, filename: str) -> None:
    before = {path for path in served.services.home.root.parent.rglob("*") if path.is_file()}
    body = upload(served, content, filename).json()
    after = {path for path in served.services.home.root.parent.rglob("*") if path.is_file()}
    assert body["id"] == "evil"
    assert {path.name for path in after - before} <= {"evil.safetensors", ".digests.json"}
    assert (served.services.home.loras / "evil.safetensors").is_file()


@pytest.mark.parametrize("lora_id", ["..", "%2e%2e%2fwan22.db", "..%5cx", "a%00b", "%F0%9F%98%80"])
def test_strange_ids_are_just_unknown(served: Served, lora_id: str) -> None:
    for method, path in (("GET", ""), ("GET", "/memory-impact"), ("DELETE", "")):
        assert served.client.request(method, f"/api/v1/lora/{lora_id}{path}").status_code in (404, 405)


def test_both_halves_of_a_pair_are_one_lora(served: Served, shape: WanShape) -> None:
    for seed, side in enumerate(("high", "low")):
        raw = save(*comfyui_file(random_adapter(shape, seed=seed)))
        body = upload(served, raw, f"duo_{side}_noise.safetensors").json()
    assert (body["id"], body["message"].count("one LoRA for both experts")) == ("duo", 1)
    (lora,) = mine(served)
    assert lora["is_pair"]
    assert [(one["filename"], one["expert"], one["format"]) for one in lora["files"]] == [
        ("duo_high_noise.safetensors", "high", "comfyui"),
        ("duo_low_noise.safetensors", "low", "comfyui"),
    ]
    assert served.client.delete("/api/v1/lora/duo").status_code == 200
    assert mine(served) == []


def test_a_running_task_is_seen_in_the_list(served: Served, content: bytes) -> None:
    upload(served, content)
    answer = served.client.post(SUBMIT, json=GOOD | {"lora_path": "style", "lora_strength": 0.0})
    assert answer.status_code == 200, answer.text
    assert served.client.get("/api/v1/lora/style/status").json()["is_applied"] is False
    task = served.claim()
    assert task.request["loras"][0]["strength"] == 0.0
    status = served.client.get("/api/v1/lora/style/status").json()
    assert (status["is_applied"], status["is_loaded"], status["current_strength"]) == (True, True, 0.0)
    served.complete(task)
    assert served.client.get("/api/v1/lora/style/status").json()["is_applied"] is False


def test_a_wrong_base_is_refused_before_anything_is_queued(served: Served) -> None:
    raw = save(*comfyui_file(random_adapter(WanShape(3072, 14336, 1, 48, 48, 4096), modules=("attn1.to_q",))))
    assert upload(served, raw, "five.safetensors").status_code == 200
    error = assert_error(served.client.post(SUBMIT, json=GOOD | {"lora_path": "five"}), 422, "lora_incompatible")
    assert "TI2V-5B" in error["detail"]
    assert_error(served.client.post(SUBMIT, json=GOOD | {"lora_path": "nobody"}), 422, "lora_not_found")
    assert served.count() == 0


@pytest.mark.parametrize("name", ["夜景", "Été ✨"])
def test_a_lora_is_known_by_its_original_name(served: Served, content: bytes, name: str) -> None:
    body = upload(served, content, f"{name}.safetensors").json()
    assert body["title"] == name
    assert body["id"].isascii()
    assert served.client.get(f"/api/v1/lora/{name}").json()["id"] == body["id"]
    answer = served.client.post(SUBMIT, json=GOOD | {"loras": [{"id": name}]})
    assert answer.json()["parameters"]["loras"][0]["id"] == body["id"]


@pytest.mark.parametrize("spoiled", ["dora_scale", "lokr_w1"])
def test_a_preset_is_refused_when_its_lora_will_not_be_applied(served: Served, shape: WanShape, spoiled: str) -> None:
    tensors, metadata = comfyui_file(random_adapter(shape))
    path = served.services.home.loras / "fast.safetensors"
    preset = {"wan22.preset": json.dumps({"steps": 4, "guidance_scale": 1.0})}
    path.write_bytes(save(tensors, metadata | preset))
    wish = {name: value for name, value in GOOD.items() if name not in ("steps", "guidance_scale")} | {"preset": "fast"}
    answer = served.client.post(SUBMIT, json=wish)
    assert (answer.status_code, answer.json()["parameters"]["steps"]) == (200, 4)
    silent = wish | {"loras": [{"id": "fast", "strength": 0}]}
    assert "must not be 0" in assert_error(served.client.post(SUBMIT, json=silent), 422)["detail"]
    path.write_bytes(save(tensors | {f"diffusion_model.blocks.0.ffn.0.{spoiled}": torch.ones(4)}, metadata | preset))
    error = assert_error(served.client.post(SUBMIT, json=wish), 422, "lora_incompatible")
    assert spoiled in error["detail"]
    plain = {**GOOD, "loras": [{"id": "fast"}]}
    assert served.client.post(SUBMIT, json=plain).status_code == 200


def test_a_damaged_file_in_the_folder_is_listed_with_its_problem(served: Served, content: bytes) -> None:
    (served.services.home.loras / "bad.safetensors").write_bytes(content[:-5])
    (lora,) = mine(served)
    assert "cut off" in lora["problem"]
    assert lora["compatible_models"] == []
    assert_error(served.client.post(SUBMIT, json=GOOD | {"lora_path": "bad"}), 422, "lora_invalid")


def test_a_lora_of_another_program_is_listed_used_and_never_deleted(
    served: Served, shape: WanShape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = write_lora(tmp_path / "ComfyUI" / "glow.safetensors", comfyui_file(random_adapter(shape)))

    def another_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    with monkeypatch.context() as other:
        other.setattr(os, "link", another_disk)
        LoraLibrary(served.services.home).adopt(theirs)  # as `wan22 models adopt` does beside a running server
    (lora,) = mine(served)
    assert (lora["name"], TINY in lora["compatible_models"]) == ("glow", True)
    assert str(tmp_path / "ComfyUI") not in json.dumps(lora)
    answer = served.client.post(SUBMIT, json=GOOD | {"loras": [{"id": "glow"}]})
    assert answer.status_code == 200, answer.text
    (use,) = served.services.tasks.get(answer.json()["task_id"]).request["loras"]
    assert use["files"][0]["name"] == "glow.safetensors"
    assert served.client.delete("/api/v1/lora/glow").status_code == 200
    assert (mine(served), theirs.is_file()) == ([], True)


def test_what_ships_cannot_be_deleted(served: Served) -> None:
    for lora in served.client.get("/api/v1/lora").json()["loras"]:
        assert lora["embedded"]
        assert lora["problem"] is None if "problem" in lora else True
        assert_error(served.client.delete(f"/api/v1/lora/{lora['id']}"), 409, "state_conflict")


def test_an_upload_may_be_as_large_as_a_lora_but_not_larger(served: Served) -> None:
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for path, size, expected in (
        ("/api/v1/lora/upload", 502 * 2**20, 413),
        ("/lora/upload", 502 * 2**20, 413),
        ("/api/v1/generation/submit", 26 * 2**20, 422),
    ):
        answer = served.client.post(path, content=b"", headers=headers | {"content-length": str(size)})
        assert answer.status_code == expected, path
    large = b"\0" * (30 * 2**20)
    assert_error(upload(served, large), 422, "lora_invalid")
