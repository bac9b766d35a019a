"""What a request will take is said before it is queued, and what cannot fit is refused with what would."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter

from backend.core.catalogue.architecture import architecture_of
from backend.core.catalogue.table import MODELS
from backend.core.planning.hardware import GIB, Gpu, HardwareProfile, detect_hardware
from backend.core.planning.machine import Machine
from backend.store.workers import Equipment, WorkerState
from tests.api.support import GOOD, SUBMIT, TINY, Served, assert_error, make_png

ESTIMATE = "/api/v1/generation/estimate"
PNG = ("start.png", make_png(1280, 704), "image/png")


def profile(vram: int | None, ram: int, name: str = "NVIDIA GeForce RTX 4090") -> HardwareProfile:
    """A machine with one card; memory in GiB."""
    gpu = Gpu(0, name, None if vram is None else vram * GIB, 0, None, (8, 9))
    return replace(detect_hardware(), memory_total=ram * GIB, memory_limit=None, gpus=(gpu,))


def install(served: Served, model: str, *, share: float = 1.0) -> None:
    """Put a folder where the files of a large model belong, of that share of its size; nobody opens them here."""
    folder = served.services.home.models / model
    (folder / "transformer").mkdir(parents=True)
    with (folder / "transformer" / "model.safetensors").open("wb") as weights:
        weights.truncate(int(share * MODELS[model].weights_gb * 1e9))  # a hole: takes no room
    (folder / "model_index.json").write_text(json.dumps({"transformer": ["diffusers", "WanTransformer3DModel"]}))


def test_an_estimate_says_everything_and_queues_nothing(served: Served) -> None:
    answer = served.client.post(ESTIMATE, json=GOOD | {"seed": 7, "num_frames": 6})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["fits"], body["queued"], body["available"]) == (True, False, True)
    assert body["detected_model_type"] == TINY
    assert body["parameters"]["num_frames"] == 5
    assert any("num_frames 6 became 5" in note for note in body["adjustments"])
    assert (body["tokens"], body["forward_passes"]) == (2 * 6 * 6, 40)
    assert "vram" not in body["plan"]
    assert body["plan"]["seconds"]["basis"] == "estimated"
    assert body["machine"]["kind"] == "cpu"
    assert len(body["options"]) == 24
    assert all(option["reason"] for option in body["options"])
    assert served.count() == 0


def test_an_estimate_says_what_the_model_does_not_read_of_the_prompt(served: Served) -> None:
    answer = served.client.post(ESTIMATE, json=GOOD | {"prompt": "a red xylophone", "num_frames": 6}).json()
    (note,) = answer["prompt_notes"]
    assert "does not know: xylophone" in note
    assert note in answer["adjustments"]
    assert len(answer["adjustments"]) > 1, "the frames, too, are said there"
    assert 0 < answer["prompt_tokens"] < answer["prompt_tokens_read"]
    long = served.client.post(ESTIMATE, json=GOOD | {"prompt": "a red circle " * 40}).json()
    assert long["prompt_tokens"] > long["prompt_tokens_read"]
    assert any("is cut off before" in one for one in long["prompt_notes"])


def test_a_dry_run_of_submit_is_the_same_in_json_and_in_a_form(served: Served) -> None:
    wanted = GOOD | {"seed": 7, "steps": 4}
    estimate = served.client.post(ESTIMATE, json=wanted).json()
    assert served.client.post(SUBMIT, json=wanted | {"dry_run": True}).json() == estimate
    assert served.client.post(SUBMIT, data=wanted | {"dry_run": "true"}).json() == estimate
    assert served.client.post("/generation/submit", json=wanted | {"dry_run": True}).json() == estimate
    assert served.count() == 0
    assert served.client.post(SUBMIT, json=wanted | {"dry_run": False}).json()["task_id"]


def test_a_continuation_can_be_weighed_too_and_the_older_route_says_that_it_cannot(served: Served) -> None:
    assert_error(served.client.post("/api/v1/generate", json=GOOD | {"dry_run": True}), 422, "invalid_request")
    path = f"/api/v1/outputs/{'0' * 32}/extend"
    assert_error(served.client.post(path, json={"dry_run": True}), 404, "output_not_found")
    assert served.count() == 0


@pytest.mark.parametrize("changes", [{"steps": 0}, {"prompt": ""}, {"model_type": "T2V-A15B"}, {"resolution": "big"}])
def test_what_submit_refuses_an_estimate_refuses(served: Served, changes: dict[str, Any]) -> None:
    first = assert_error(served.client.post(ESTIMATE, json=GOOD | changes), 422)
    second = assert_error(served.client.post(SUBMIT, json=GOOD | changes), 422)
    assert first["detail"] == second["detail"]


def test_a_model_that_is_not_here_is_weighed_before_it_is_fetched(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(24, 64))
    body = served.client.post(ESTIMATE, json=GOOD | {"model_type": "T2V-A14B", "resolution": "832x480"}).json()
    assert (body["available"], body["fits"]) == (False, True)
    assert body["plan"]["placement"] in ("expert-swap", "block-stream")
    assert 0 < body["plan"]["vram"]["value"] < 24
    assert body["tokens"] == 32_760
    assert body["tflop"] == pytest.approx(80 * 1678.4, rel=1e-4)
    assert body["machine"]["compute_capability"] == "8.9"
    assert any("VRAM of 24.0 GiB" in option["reason"] for option in body["options"])


def test_what_cannot_fit_is_refused_with_a_request_that_is_taken(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(8, 32))
    install(served, "TI2V-5B")
    wanted = GOOD | {"model_type": "TI2V-5B"}
    body = assert_error(served.client.post(SUBMIT, json=wanted), 422, "does_not_fit")
    assert "VRAM of 8.0 GiB" in body["detail"]
    fitting = body["details"]["would_fit"]
    assert fitting["resolution"] in body["suggestions"][0]
    first, second = body["actions"]
    assert first["action"] == "resubmit"
    assert all(fitting[name] == value != wanted.get(name) for name, value in first["changes"].items())
    assert served.client.post(ESTIMATE, json=wanted | first["changes"]).json()["fits"] is True
    assert second == {"action": "resubmit", "changes": {"force": True}}
    assert served.count() == 0
    weighed = served.client.post(ESTIMATE, json=wanted).json()
    assert weighed["fits"] is False
    assert "plan" not in weighed
    assert weighed["would_fit"] == fitting
    taken = served.client.post(SUBMIT, json=wanted | fitting)
    assert taken.status_code == 200, taken.text
    assert taken.json()["parameters"]["resolution"] == fitting["resolution"]
    assert served.count() == 1


def test_what_workers_found_out_counts_and_not_what_the_machine_looks_like(serve: Callable[..., Served]) -> None:
    looks = profile(24, 32)
    served = serve(workers_on=looks)
    install(served, "TI2V-5B")
    wanted = GOOD | {"model_type": "TI2V-5B", "seed": 7}
    before = served.client.post(ESTIMATE, json=wanted).json()
    assert (before["machine"]["kind"], before["fits"]) == ("cuda", True)
    wide = replace(Machine.of(looks), float32=True)
    found = Equipment("it passed its trial", precision="float32", machine=wide)
    served.services.workers.beat("w1", device="cuda:0", state=WorkerState.IDLE, equipment=found)
    twice = served.client.post(ESTIMATE, json=wanted).json()
    for usual, more in zip(before["options"], twice["options"], strict=True):
        assert usual["name"].replace("bf16", "fp32") == more["name"]
        assert more["ram_pageable"]["value"] > usual["ram_pageable"]["value"]
    found = Equipment("no card can be used", machine=Machine.of(looks, "cpu"))
    served.services.workers.beat("w1", device="cpu", state=WorkerState.IDLE, equipment=found)
    after = served.client.post(ESTIMATE, json=wanted).json()
    assert (after["machine"]["kind"], after["machine"].get("vram_gib"), after["fits"]) == ("cpu", None, False)
    assert served.client.post(SUBMIT, json=wanted | {"dry_run": True}).json() == after
    assert_error(served.client.post(SUBMIT, json=wanted), 422, "does_not_fit")
    analysis = served.client.get("/api/v1/optimization/analysis").json()
    assert analysis["machine"]["kind"] == "cpu"
    limit = served.client.post("/api/v1/system/optimization", json={"max_vram_usage_gb": 12})
    assert "no card whose memory" in assert_error(limit, 422)["detail"]
    (worker,) = served.client.get("/api/v1/system/health").json()["workers"]
    assert "machine" not in worker
    served.services.workers.remove("w1")
    assert served.client.post(SUBMIT, json=wanted).status_code == 200


def test_a_refusal_goes_on_to_another_model_when_no_size_fits(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(24, 8))
    install(served, "I2V-A14B")
    answer = served.client.post(SUBMIT, data=GOOD | {"model_type": "I2V-A14B"}, files={"image": PNG})
    fitting = assert_error(answer, 422, "does_not_fit")["details"]["would_fit"]
    assert fitting["model_type"] != "I2V-A14B"
    again = served.client.post(ESTIMATE, data=GOOD | fitting, files={"image": PNG}).json()
    assert again["fits"] is True


@pytest.mark.parametrize(("model", "vram", "ram"), [("T2V-A14B", 8, 16), ("TI2V-5B", 4, 8)])
@pytest.mark.parametrize("installed", [True, False], ids=["installed", "not installed"])
def test_estimate_and_submit_agree(
    serve: Callable[..., Served], model: str, vram: int, ram: int, installed: bool
) -> None:
    served = serve(workers_on=profile(vram, ram))
    if installed:
        install(served, model)
    wanted = GOOD | {"model_type": model}
    weighed = served.client.post(ESTIMATE, json=wanted).json()
    assert weighed["fits"] is False
    refusal = assert_error(served.client.post(SUBMIT, json=wanted), 422, "does_not_fit")
    assert any("force" in step for step in refusal["suggestions"])
    assert served.count() == 0
    forced = served.client.post(SUBMIT, json=wanted | {"force": True})
    assert forced.status_code == 200, forced.text
    assert any("forced although" in note and "does not fit" in note for note in forced.json()["adjustments"])
    as_form = served.client.post(SUBMIT, data=wanted | {"force": "true"})
    assert as_form.status_code == 200, as_form.text


@pytest.mark.parametrize("model", ["T2V-A14B", "TI2V-5B"])
def test_what_submit_takes_an_estimate_does_not_reject(serve: Callable[..., Served], model: str) -> None:
    served = serve()  # no worker has said what it computes on
    wanted = GOOD | {"model_type": model}
    assert served.client.post(ESTIMATE, json=wanted).json()["fits"] is True
    taken = served.client.post(SUBMIT, json=wanted)
    assert taken.status_code == 200, taken.text
    assert not any("forced" in note for note in taken.json()["adjustments"])


def test_plans_are_named_by_the_precision_that_computes(serve: Callable[..., Served]) -> None:
    body = serve().client.post(ESTIMATE, json=GOOD).json()
    assert (body["plan"]["name"], body["plan"]["storage"]) == ("resident-fp32", "fp32")
    assert "bf16" not in body["message"]
    card = serve(workers_on=profile(24, 64)).client.post(ESTIMATE, json=GOOD).json()
    assert (card["plan"]["name"], card["plan"]["storage"]) == ("resident-bf16", "bf16")


def test_nothing_is_refused_where_the_memory_or_the_machine_is_unknown(serve: Callable[..., Served]) -> None:
    for served in (serve(workers_on=profile(None, 512)), serve()):
        install(served, "T2V-A14B")
        assert served.client.post(SUBMIT, json=GOOD | {"model_type": "T2V-A14B"}).status_code == 200


def install_packed(served: Served, model: str) -> None:
    """Put a folder where a large model belongs, with GGUF experts of the right names and shapes, and no numbers."""
    spec, home = MODELS[model], served.services.home
    for expert in ("transformer", "transformer_2")[: spec.experts]:
        folder = home.models / model / expert
        folder.mkdir(parents=True)
        writer = GGUFWriter(folder / "wan-Q4_0.gguf", arch="wan")
        size = 0
        for name, shape in architecture_of(spec).transformer.parameters().items():
            matrix = len(shape) == 2 and name.endswith(".weight")
            kind = GGMLQuantizationType.Q4_0 if matrix else GGMLQuantizationType.F32
            block, block_bytes = GGML_QUANT_SIZES[kind]
            taken = prod(shape) // block * block_bytes
            stored = (*shape[:-1], shape[-1] // block * block_bytes) if matrix else shape
            writer.add_tensor_info(name, stored, np.dtype(np.uint8 if matrix else np.float32), taken, kind)
            size += -(-taken // 32) * 32
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        with (folder / "wan-Q4_0.gguf").open("ab") as weights:
            weights.truncate(weights.tell() + 32 + size)
    (home.models / model / "model_index.json").write_text(
        json.dumps({"transformer": ["diffusers", "WanTransformer3DModel"]})
    )


def test_experts_that_are_quantised_in_their_files_are_weighed_as_they_are(serve: Callable[..., Served]) -> None:
    wanted = GOOD | {"model_type": "T2V-A14B", "resolution": "832x480"}
    plans = []
    for served, put in (
        (serve(workers_on=profile(24, 64)), install),
        (serve(workers_on=profile(24, 64)), install_packed),
    ):
        put(served, "T2V-A14B")
        body = served.client.post(ESTIMATE, json=wanted).json()
        assert body["fits"] is True
        plans.append({(one["name"], one["tiled_decode"], one["text_encoder_on_cpu"]): one for one in body["options"]})
    plain, packed = plans
    for key, one in packed.items():
        if one["storage"] == "fp8":
            assert "quantised" in one["reason"]
            assert not one["fits"]
        else:
            assert one["disk"]["value"] < 0.6 * plain[key]["disk"]["value"]
            assert one["vram"]["value"] < plain[key]["vram"]["value"] or one["placement"] == "block-stream"
    # Two experts of 14 billion numbers in 4.5 bits instead of 16.
    key = ("resident-bf16", True, True)
    saved = plain[key]["vram"]["value"] - packed[key]["vram"]["value"]
    assert saved == pytest.approx(2 * 14.3e9 * (16 - 4.5) / 8 / GIB, rel=0.05)
    assert packed["expert-swap-bf16", True, True]["fits"]
    assert not plain["expert-swap-bf16", True, True]["fits"]
    serve_fp8 = served.client.post("/api/v1/system/optimization", json={"quantization": "fp8"})
    assert serve_fp8.status_code == 200
    assert served.client.post(ESTIMATE, json=wanted).json()["fits"] is True, "what is quantised cannot be rounded"


def test_files_of_another_structure_are_not_judged_by_the_table(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(8, 16))
    install(served, "T2V-A14B", share=0.01)
    assert served.client.post(SUBMIT, json={"model_type": "T2V-A14B", "prompt": "a cat"}).status_code == 200


def test_the_tiny_models_are_never_refused(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=replace(profile(1, 1), gpus=()))
    largest = GOOD | {"resolution": "256x256", "num_frames": 65}
    assert served.client.post(ESTIMATE, json=largest).json()["fits"] is True
    assert served.client.post(SUBMIT, json=largest).status_code == 200


def test_an_unknown_card_has_no_seconds(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=profile(48, 128, "NVIDIA Something Else"))
    body = served.client.post(ESTIMATE, json=GOOD | {"model_type": "TI2V-5B"}).json()
    assert body["fits"] is True
    assert "seconds" not in body["plan"]


def test_finished_tasks_make_the_seconds_measured(served: Served) -> None:
    served.submit(seed=1)
    task = served.claim()
    seconds = {"denoise_high": 3.0, "denoise_low": 1.0, "decode": 0.5}
    served.complete(task, device="cpu", result={"quality": "ok", "loras": [], "seconds": seconds})
    plan = served.client.post(ESTIMATE, json=GOOD | {"seed": 2}).json()["plan"]
    assert plan["seconds"]["basis"] == "measured"
    assert plan["seconds"]["value"] == pytest.approx(4.5, abs=0.25)  # and the prompt and the end of the file
    assert "load_seconds" not in plan
    assert plan["disk"]["basis"] == "estimated"
