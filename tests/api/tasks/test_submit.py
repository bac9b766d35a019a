"""Submitting: what is accepted and how it is answered; what is refused, with nothing queued."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from backend.core.planning.hardware import detect_hardware
from backend.core.requests.forms import RequestDraft
from backend.services.generation_service import GenerationService
from backend.services.submission import Submission
from tests.api.support import GOOD, SUBMIT, TINY, Served, assert_error, make_png

PNG = ("start.png", make_png(96, 96), "image/png")


def test_the_answer_is_the_union_that_clients_know(served: Served) -> None:
    answer = served.client.post(SUBMIT, json=GOOD | {"seed": 7, "steps": 4}).json()
    assert answer["success"] is True
    assert answer["status"] == "pending"
    assert answer["detected_model_type"] == TINY
    assert answer["queue_position"] == 1
    assert answer["adjustments"] == []
    assert "estimated_time" not in answer  # nothing was ever measured on this home
    parameters = answer["parameters"]
    assert (parameters["seed"], parameters["steps"], parameters["model_type"]) == (7, 4, TINY)
    assert (parameters["lora_path"], parameters["lora_strength"]) == ("", 1.0)
    assert None not in parameters.values()
    task = served.services.tasks.get(answer["task_id"])
    assert task.request["seed"] == 7


def test_a_model_of_one_expert_or_auto_or_an_alias_is_understood(served: Served) -> None:
    for name in ("auto", "AUTO", "tiny", "Tiny-T2V-A14B", "tiny_t2v_a14b"):
        answer = served.client.post(SUBMIT, json=GOOD | {"model_type": name})
        assert answer.json()["detected_model_type"] == TINY, answer.text


def test_a_form_with_numbers_as_text_means_the_same_as_json(served: Served) -> None:
    fields = {"model_type": TINY, "prompt": "a blue ring", "steps": "4", "seed": "7", "num_frames": "5", "fps": "8.0"}
    as_form = served.client.post(SUBMIT, data=fields).json()["parameters"]
    as_multipart = served.client.post(SUBMIT, data=fields, files={"image": ("", b"", "image/png")}).json()["parameters"]
    as_json = served.client.post(SUBMIT, json=fields).json()["parameters"]
    numbers: dict[str, Any] = {"steps": 4, "seed": 7, "num_frames": 5, "fps": 8.0}
    as_numbers = served.client.post(SUBMIT, json=fields | numbers).json()["parameters"]
    assert as_form == as_multipart == as_json == as_numbers


def test_camel_case_names_are_understood(served: Served) -> None:
    body = {"modelType": TINY, "prompt": "a blue ring", "loraPath": "", "loraStrength": 0.0, "clientRequestId": "one"}
    answer = served.client.post(SUBMIT, json=body).json()
    assert answer["parameters"]["lora_strength"] == 0.0
    again = served.client.post(SUBMIT, json=GOOD | {"prompt": "a blue ring", "client_request_id": "one"})
    assert again.json()["task_id"] == answer["task_id"]


def test_empty_form_fields_mean_the_default(served: Served) -> None:
    fields = GOOD | {"steps": "", "seed": " ", "resolution": "", "scheduler": "", "lora_path": "", "image": ""}
    parameters = served.client.post(SUBMIT, data=fields).json()["parameters"]
    assert parameters["steps"] == 20
    assert parameters["resolution"] == "96x96"


def test_sizes_and_frames_are_snapped_and_said(served: Served) -> None:
    answer = served.client.post(SUBMIT, json=GOOD | {"resolution": "70x90", "num_frames": 6}).json()
    assert answer["parameters"]["resolution"] == "64x96"
    assert answer["parameters"]["num_frames"] == 5
    assert any("70x90" in note and "64x96" in note for note in answer["adjustments"])
    assert any("num_frames 6 became 5" in note for note in answer["adjustments"])
    task = served.client.get(f"/api/v1/queue/{answer['task_id']}").json()
    assert task["adjustments"] == answer["adjustments"]


def test_what_a_distillation_fixed_is_said_and_its_sampler_belongs_to_it(served: Served) -> None:
    body = GOOD | {"model_type": "fastwan", "resolution": "1280x704", "steps": 20, "guidance_scale": 5.0}
    answer = served.client.post(SUBMIT, json=body).json()
    assert [answer["parameters"][name] for name in ("steps", "guidance_scale", "scheduler")] == [3, 1.0, "dmd"]
    assert any("steps 20 became 3" in note for note in answer["adjustments"])
    count = served.count()
    for wrong in (body | {"scheduler": "unipc"}, GOOD | {"scheduler": "dmd"}):
        assert "distilled" in assert_error(served.client.post(SUBMIT, json=wrong), 422, "invalid_request")["detail"]
    assert served.count() == count


def test_what_is_not_offered_is_said_not_done(served: Served) -> None:
    answer = served.client.post(SUBMIT, json=GOOD | {"enable_prompt_enhancement": True}).json()
    assert any("enhancement" in note for note in answer["adjustments"])
    assert served.services.tasks.get(answer["task_id"]).prompt == GOOD["prompt"]


def test_a_repeated_key_returns_the_first_task(served: Served) -> None:
    first = served.client.post(SUBMIT, json=GOOD, headers={"Idempotency-Key": "k-1"}).json()
    again = served.client.post(SUBMIT, json=GOOD, headers={"Idempotency-Key": "k-1"}).json()
    named = served.client.post(SUBMIT, json=GOOD | {"client_request_id": "k-1"}).json()
    assert first["task_id"] == again["task_id"] == named["task_id"]
    assert first["parameters"]["seed"] == again["parameters"]["seed"]
    other = served.client.post(SUBMIT, json=GOOD | {"prompt": "a blue ring"}, headers={"Idempotency-Key": "k-1"})
    assert_error(other, 409, "idempotency_conflict")
    assert served.count() == 1


def test_a_key_outlives_the_clearing_of_the_queue(served: Served) -> None:
    keyed = {"Idempotency-Key": "k-2"}
    first = served.client.post(SUBMIT, json=GOOD, headers=keyed).json()
    served.client.post(f"/api/v1/queue/{first['task_id']}/cancel")
    served.client.post("/api/v1/queue/clear")
    again = served.client.post(SUBMIT, json=GOOD, headers=keyed)
    assert (again.status_code, again.json()["task_id"]) == (200, first["task_id"])
    assert again.json().get("queue_position") is None
    assert served.count() == 0
    other = served.client.post(SUBMIT, json=GOOD | {"steps": 3}, headers=keyed)
    assert_error(other, 409, "idempotency_conflict")


def test_a_seed_of_minus_one_is_drawn(served: Served) -> None:
    seeds = {served.client.post(SUBMIT, json=GOOD | {"seed": -1}).json()["parameters"]["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert min(seeds) >= 0
    body = assert_error(served.client.post(SUBMIT, json=GOOD | {"seed": 2**32}), 422, "invalid_request")
    assert "nearest" not in body["details"]


@pytest.mark.parametrize(
    ("sent", "frames"), [({"seconds": 1}, 9), ({"seconds": 2.1, "fps": 8}, 17), ({"seconds": 0.5, "fps": 16}, 9)]
)
def test_a_length_may_be_in_seconds(served: Served, sent: dict[str, float], frames: int) -> None:
    answer = served.client.post(
        SUBMIT, json={name: one for name, one in GOOD.items() if name != "num_frames"} | sent
    ).json()
    assert answer["parameters"]["num_frames"] == frames
    assert any(f"became {frames} frames" in note for note in answer["adjustments"])
    both = served.client.post(SUBMIT, json=GOOD | {"num_frames": 9, "seconds": 1})
    assert "not both" in assert_error(both, 422, "invalid_request")["detail"]


def test_a_request_may_leave_the_model_to_the_server(served: Served) -> None:
    answer = served.client.post(SUBMIT, json={"prompt": GOOD["prompt"]})
    assert answer.json()["detected_model_type"] == "tiny-t2v-a14b"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("width", "resolution"),
        ("num_inference_steps", "steps"),
        ("guidence_scale", "guidance_scale"),
        ("n", "variations"),
    ],
)
def test_an_unknown_field_is_answered_with_the_one_that_was_meant(served: Served, name: str, meant: str) -> None:
    body = assert_error(served.client.post(SUBMIT, json=GOOD | {name: 8}), 422, "invalid_request")
    assert f"did you mean {meant}" in body["detail"]


def test_a_long_prompt_is_taken_and_what_the_model_cuts_off_is_said(served: Served) -> None:
    long = "a red circle moving right on a navy background " * 30
    answer = served.client.post(SUBMIT, json=GOOD | {"prompt": long}).json()
    assert any("271 tokens and the model reads 64" in note for note in answer["adjustments"]), answer["adjustments"]
    short = served.client.post(SUBMIT, json=GOOD).json()
    assert not any("tokens" in note for note in short["adjustments"])
    old = served.client.post("/api/v1/generate", json=GOOD | {"prompt": long})
    assert "500" in assert_error(old, 422, "invalid_request")["detail"]


@pytest.mark.parametrize("syntax", ["(red:1.3)", "__colour__", "{red|blue}", "<lora:neon:0.8>", "((red))"])
def test_syntax_of_other_programs_is_noted(served: Served, syntax: str) -> None:
    answer = served.client.post(SUBMIT, json=GOOD | {"prompt": f"a {syntax} circle"}).json()
    assert any(syntax in note and "plain text" in note for note in answer["adjustments"])
    plain = served.client.post(SUBMIT, json=GOOD | {"prompt": "a red circle (slowly), 16:9, [calm]"}).json()
    assert not any("plain text" in note for note in plain["adjustments"])


def test_urgent_tasks_stand_before_older_ones(served: Served) -> None:
    served.submit()
    urgent = served.client.post(SUBMIT, json=GOOD | {"priority": "high"}).json()
    assert urgent["queue_position"] == 1
    assert served.claim().id == urgent["task_id"]


@pytest.mark.parametrize("model", ["T2V-A14B", "t2v", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", "TI2V-5B"])
def test_a_model_that_nobody_would_fetch_is_refused_with_what_it_needs(
    serve: Callable[..., Served], model: str
) -> None:
    served = serve(auto_download=False)
    body = assert_error(served.client.post(SUBMIT, json=GOOD | {"model_type": model}), 409, "model_not_available")
    assert body["details"]["model"] in body["detail"]
    assert any(TINY in step for step in body["suggestions"])
    assert {"action": "download", "model_type": body["details"]["model"]} in body["actions"]
    assert {"action": "resubmit", "changes": {"model_type": TINY}} in body["actions"]
    assert body["details"]["repository"] in body["detail"]
    assert served.count() == 0


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no prompt": ({"prompt": None}, 422, "prompt"),
    "empty prompt": ({"prompt": ""}, 422, "Prompt cannot be empty"),
    "blank prompt": ({"prompt": " \n\t "}, 422, "Prompt cannot be empty"),
    "long prompt": ({"prompt": "x" * 2001}, 422, "at most 2000"),
    "prompt of another type": ({"prompt": 7}, 422, "prompt"),
    "prompt as a list": ({"prompt": ["a"]}, 422, "prompt"),
    "NUL in the prompt": ({"prompt": "a\x00b"}, 422, "control characters"),
    "unknown model": ({"model_type": "T2V-A15B"}, 422, "Must be one of"),
    "empty model": ({"model_type": ""}, 422, "Must be one of"),
    "path as model": ({"model_type": "../../etc/passwd"}, 422, "Must be one of"),
    "model of another type": ({"model_type": 5}, 422, "model_type"),
    "no steps": ({"steps": 0}, 422, "between 1 and 100"),
    "too many steps": ({"steps": 101}, 422, "between 1 and 100"),
    "negative steps": ({"steps": -1}, 422, "between 1 and 100"),
    "half a step": ({"steps": 2.5}, 422, "steps"),
    "steps in words": ({"steps": "many"}, 422, "steps"),
    "true steps": ({"steps": True}, 422, "not true or false"),
    "false seed": ({"seed": False}, 422, "not true or false"),
    "negative seed": ({"seed": -2}, 422, "Seed"),
    "seed of 33 bits": ({"seed": 2**32}, 422, "Seed"),
    "seed of 60 bits": ({"seed": 2**60}, 422, "Seed must be between 0 and 4294967295"),
    "seed of 1000 digits": ({"seed": 10**1000}, 422, "Seed"),
    "no frames": ({"num_frames": 0}, 422, "num_frames must be between 1 and 65"),
    "a billion frames": ({"num_frames": 10**9}, 422, "num_frames must be between 1 and 65"),
    "size in words": ({"resolution": "big"}, 422, "WIDTHxHEIGHT"),
    "size of zero": ({"resolution": "0x64"}, 422, "positive"),
    "negative size": ({"resolution": "-64x64"}, 422, "WIDTHxHEIGHT"),
    "size too large": ({"resolution": "4096x4096"}, 422, "nearest size it can make is 256x256"),
    "size of 20 digits": ({"resolution": "99999999999999999999x64"}, 422, "WIDTHxHEIGHT"),
    "size as a number": ({"resolution": 720}, 422, "resolution"),
    "guidance too high": ({"guidance_scale": 21}, 422, "between 0.0 and 20.0"),
    "infinite text guidance": ({"guidance_scale": "inf"}, 422, "guidance_scale"),
    "text that is no number": ({"fps": "nan"}, 422, "fps"),
    "too fast": ({"fps": 1000}, 422, "Fps"),
    "huge whole number as fps": ({"fps": 10**400}, 422, "fps"),
    "unknown scheduler": ({"scheduler": "ddim"}, 422, "scheduler"),
    "unknown priority": ({"priority": "now"}, 422, "priority"),
    "LoRA too strong": ({"lora_strength": 2.1}, 422, "LoRA strength must be between 0.0 and 2.0"),
    "unknown LoRA": ({"lora_path": "anime.safetensors"}, 422, "LoRA"),
    "LoRA outside": ({"lora_path": "/etc/passwd"}, 422, "LoRA"),
    "unknown field": ({"guidence_scale": 5}, 422, "guidence_scale"),
    "image as an object": ({"image": {}}, 422, "multipart/form-data"),
    "image as text": ({"image": "data:image/png;base64,AAAA"}, 422, "multipart/form-data"),
    "end image as an object": ({"end_image": {"a": 1}}, 422, "multipart/form-data"),
    "empty key": ({"client_request_id": "a b"}, 422, "idempotency key"),
}


@pytest.mark.parametrize(("changes", "status", "says"), REFUSED.values(), ids=list(REFUSED))
def test_a_bad_request_is_refused_and_nothing_is_queued(
    shared: Served, changes: dict[str, Any], status: int, says: str
) -> None:
    before = shared.count()
    body = assert_error(shared.client.post(SUBMIT, json=GOOD | changes), status)
    assert says in body["detail"]
    assert shared.count() == before


def test_a_missing_field_is_named_in_the_words_clients_know(shared: Served) -> None:
    without = {key: value for key, value in GOOD.items() if key != "prompt"}
    body = assert_error(shared.client.post(SUBMIT, json=without), 422)
    assert body["detail"] == "Prompt is required"
    assert body["details"] == [{"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}]


def test_an_unknown_name_is_repeated_only_when_it_is_plain(shared: Served) -> None:
    for name in ("<script>", "a b", "x" * 41, "", "a\nb"):
        body = assert_error(shared.client.post(SUBMIT, json=GOOD | {name: 1}), 422)
        assert body["details"][0]["loc"] == ["body", "(unnamed)"]
        assert "script" not in str(body)


def _raw(field: str) -> bytes:
    return b'{"model_type": "tiny", "prompt": "a", ' + field.encode() + b"}"


HOSTILE: dict[str, bytes] = {
    "NaN": _raw('"fps": NaN'),
    "Infinity": _raw('"fps": -Infinity'),
    "1e400": _raw('"fps": 1e400'),
    "1e400 as a whole number": _raw('"steps": 1e400'),
    "5000 digits": _raw('"seed": ' + "9" * 5000),
    "half a surrogate pair": b'{"model_type": "tiny", "prompt": "\\ud800"}',
    "half a surrogate pair as a name": _raw('"\\udfff": 1'),
    "half a surrogate pair as the model": b'{"model_type": "\\ud800", "prompt": "a"}',
    "escaped NUL": b'{"model_type": "tiny", "prompt": "a\\u0000"}',
    "NUL in the model": b'{"model_type": "tiny\\u0000", "prompt": "a"}',
    "NUL in the key": _raw('"client_request_id": "a\\u0000"'),
    "100,000 brackets": b'{"model_type": "tiny", "prompt": ' + b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "repeated name": b'{"model_type": "tiny", "prompt": "a", "prompt": "b"}',
    "not UTF-8": b'{"model_type": "tiny", "prompt": "\xff\xfe"}',
    "empty": b"",
    "a list": b"[]",
    "a word": b'"tiny"',
    "null": b"null",
    "cut off": b'{"model_type": "tiny", "prompt": "a"',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_json_is_refused_without_an_echo(shared: Served, body: bytes) -> None:
    before = shared.count()
    response = shared.client.post(SUBMIT, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert_error(response, response.status_code)
    assert "NaN" not in response.text
    assert "ud800" not in response.text
    assert "udfff" not in response.text
    assert shared.count() == before


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "multipart/form-data", "application/jsonx"]
)
def test_a_body_of_another_type_is_refused(shared: Served, content_type: str) -> None:
    before = shared.count()
    response = shared.client.post(SUBMIT, content=json.dumps(GOOD).encode(), headers={"Content-Type": content_type})
    assert_error(response, 400, "malformed_body")
    assert shared.count() == before


def test_images_are_refused_where_none_belongs(shared: Served) -> None:
    before = shared.count()
    for field in ("image", "end_image"):
        body = assert_error(shared.client.post(SUBMIT, data=GOOD, files={field: PNG}), 422, "image_not_accepted")
        assert TINY in body["detail"]
    assert_error(shared.client.post(SUBMIT, data=GOOD, files={"negative_prompt": PNG}), 422)
    assert_error(shared.client.post(SUBMIT, data=GOOD | {"model_type": "I2V-A14B"}), 422, "image_required")
    assert shared.count() == before


def test_a_form_cannot_be_used_to_fill_memory(shared: Served) -> None:
    before = shared.count()
    large = ("a.png", bytes(10 * 1024**2 + 1), "image/png")
    body = assert_error(shared.client.post(SUBMIT, data=GOOD, files={"image": large}), 422, "invalid_image")
    assert "10MB" in body["detail"]
    assert_error(shared.client.post(SUBMIT, data={f"f{i}": "1" for i in range(100)}, files={"image": PNG}), 400)
    assert_error(shared.client.post(SUBMIT, data=GOOD | {"prompt": "x" * 100_000}, files={"image": PNG}), 400)
    files = [("image", PNG) for _ in range(9)]
    assert_error(shared.client.post(SUBMIT, data=GOOD, files=files), 400)
    assert shared.count() == before


def test_the_older_generate_route_keeps_its_status_codes(served: Served) -> None:
    post = served.client.post
    answer = post("/api/v1/generate", data=GOOD).json()
    assert answer["status"] == "pending"
    assert set(answer) <= {"task_id", "status", "message", "estimated_time_minutes"}
    shown = served.client.get(f"/api/v1/generate/{answer['task_id']}").json()
    assert (shown["id"], shown["status"], shown["resolution"]) == (answer["task_id"], "pending", "96x96")
    assert_error(post("/api/v1/generate", data=GOOD | {"prompt": ""}), 422)
    assert_error(post("/api/v1/generate", data=GOOD | {"prompt": "   "}), 400)
    assert_error(post("/api/v1/generate", data=GOOD | {"resolution": "big"}), 400)
    assert_error(post("/api/v1/generate", data=GOOD | {"resolution": "0x0"}), 400)
    for image in (PNG, b"no picture"):  # the mode is judged first
        refused = assert_error(post("/api/v1/generate", data=GOOD, files={"image": image}), 400)
        assert refused["message"].startswith("T2V mode does not accept image input.")
    refused = assert_error(post("/api/v1/generate", data=GOOD | {"model_type": "I2V-A14B"}), 400)
    assert refused["message"] == "Image is required for I2V mode"
    assert_error(post("/api/v1/generate", data=GOOD | {"steps": "101"}), 422)
    assert_error(served.client.get("/api/v1/generate/none"), 404, "task_not_found")
    assert served.count() == 1


def test_detect_says_which_model_auto_means(shared: Served) -> None:
    path = "/api/v1/generation/models/detect"
    answer = shared.client.get(path, params={"prompt": "a red circle", "has_image": "false"}).json()
    assert answer["detected_model_type"] == TINY
    assert answer["explanation"]
    assert answer["requirements"]["requires_image"] is False
    assert answer["requirements"]["max_resolution"] == "256x256"
    assert answer["requirements"]["recommended_steps"] == 20
    with_image = shared.client.get(path, params={"prompt": "a", "has_image": "true"}).json()
    assert with_image["detected_model_type"] == "tiny-i2v-a14b"
    assert with_image["requirements"]["requires_image"] is True
    both = shared.client.get(path, params={"prompt": "a", "has_image": "true", "has_end_image": "true"}).json()
    assert both["requirements"]["supports_end_image"] is True
    assert_error(shared.client.get(path), 422)
    assert_error(shared.client.get(path, params={"prompt": "a", "has_image": "maybe"}), 422)


def _finished(served: Served, seconds: float, **changes: object) -> None:
    """A task of which each half of the denoising took so long."""
    served.submit(**changes)
    phases = {"encode": 0.1, "denoise_high": seconds, "denoise_low": seconds, "decode": 0.5}
    record = {"quality": "ok", "loras": [], "seconds": phases}
    served.complete(served.claim(), device="cpu", result=record)


def test_the_time_until_done_is_that_of_the_queue_ahead(served: Served) -> None:
    _finished(served, 2.0)
    first = served.client.post(SUBMIT, json=GOOD).json()
    assert first["estimated_time"] == pytest.approx(4.6, abs=0.3)
    assert first["estimated_time_basis"] == "measured"
    second = served.client.post(SUBMIT, json=GOOD | {"variations": 3}).json()
    assert second["estimated_time"] == pytest.approx(2 * first["estimated_time"], abs=0.2)
    shorter = served.client.post(SUBMIT, json=GOOD | {"steps": 2, "priority": "high"}).json()
    assert shorter["estimated_time"] < 0.5 * first["estimated_time"]
    running = served.claim()
    assert running.id == shorter["task_id"]
    served.report(running, 0.5, step=1, left=1.5)
    last = served.client.post(SUBMIT, json=GOOD | {"priority": "high"}).json()
    assert last["estimated_time"] == pytest.approx(1.5 + first["estimated_time"], abs=0.2)
    short = served.client.post("/api/v1/generate", json=GOOD).json()
    assert short["estimated_time_minutes"] == 1


def test_nothing_is_said_while_a_task_ahead_is_unknown(served: Served) -> None:
    _finished(served, 2.0)
    served.submit(model_type="tiny-ti2v-5b")
    assert "estimated_time" not in served.client.post(SUBMIT, json=GOOD).json()


def test_on_the_machine_that_runs_the_tasks_a_first_estimate_is_said_to_be_one(serve: Callable[..., Served]) -> None:
    served = serve(workers_on=replace(detect_hardware(), gpus=()))
    answer = served.client.post(SUBMIT, json=GOOD).json()
    assert answer["estimated_time"] > 0
    assert answer["estimated_time_basis"] == "estimated"


def test_readers_do_not_wait_behind_writers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """More writers than the server has threads for requests wait for a database that is locked."""
    release, waiting = threading.Event(), threading.Semaphore(0)
    real = GenerationService.submit

    def wait(service: GenerationService, draft: RequestDraft) -> Submission:
        waiting.release()
        release.wait(60)
        return real(service, draft)

    monkeypatch.setattr(GenerationService, "submit", wait)
    with ThreadPoolExecutor(60) as clients:
        sent = [clients.submit(served.client.post, SUBMIT, json=GOOD) for _ in range(60)]
        try:
            assert all(waiting.acquire(timeout=60) for _ in range(16))
            assert not waiting.acquire(timeout=0.5), "the others wait without a thread"
            assert served.client.get("/api/v1/queue").json()["total_tasks"] == 0
            assert not any(one.done() for one in sent)
        finally:
            release.set()
        assert {one.result(60).status_code for one in sent} == {200}
    assert served.count() == 60
