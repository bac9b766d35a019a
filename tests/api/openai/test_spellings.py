"""How a request for a video may be spelled, and what is refused by name."""

from __future__ import annotations

import base64
import json
from typing import Any

import openai
import pytest

from backend.api.http.gate import MAX_FORM_BYTES
from tests.api.support import TINY, Served, assert_error, make_png

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

VIDEOS = "/v1/videos"
PROMPT = "a red circle moving right on a navy background"
PNG = make_png(64, 64)
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
#: What each spelling becomes in the request of the task.
UNDERSTOOD: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"size": "64x96", "seconds": "1"}, {"width": 64, "height": 96, "num_frames": 9}),
    ({"seconds": 2, "fps": 4}, {"num_frames": 9, "fps": 4.0}),
    ({"width": 96, "height": 64, "num_frames": 5}, {"width": 96, "height": 64, "num_frames": 5}),
    ({"num_inference_steps": 3, "flow_shift": 4.5, "negative_prompt": "blue"}, {"steps": 3, "flow_shift": 4.5}),
    ({"infer_steps": 3, "target_video_length": 5, "target_fps": 4}, {"steps": 3, "num_frames": 5, "fps": 4.0}),
    ({"guidance_scale": 3, "guidance_scale_2": 2}, {"guidance_scale": 3.0, "guidance_scale_2": 2.0}),
    ({"guidance_scale_high": 3, "guidance_scale_low": 2}, {"guidance_scale": 3.0, "guidance_scale_2": 2.0}),
    ({"extra_params": '{"seed": 9, "steps": 2}'}, {"seed": 9, "steps": 2}),
    ({"extra_body": {"seed": 9}, "steps": 2}, {"seed": 9, "steps": 2}),
    ({"n": 1, "user": "ann", "enable_teacache": False, "enhance_prompt": "false"}, {}),
    ({"seed": None, "size": "", "keep_latents": True, "crf": 30}, {"keep_latents": True, "crf": 30}),
]
LORA = "tiny_chalk"
#: Requests, the name that the refusal points to, and its code.
REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"num_infrence_steps": 3}, "num_infrence_steps", "unknown_field"),
    ({"a b": 3}, "(unnamed)", "unknown_field"),
    ({"boundary_ratio": 0.9}, "boundary_ratio", "not_offered"),
    ({"enable_upscaling": True}, "enable_upscaling", "not_offered"),
    ({"num_outputs_per_prompt": 2}, "num_outputs_per_prompt", "not_offered"),
    ({"output_path": "/etc/passwd"}, "output_path", "not_offered"),
    ({"quality": "high"}, "quality", "not_offered"),
    ({"steps": 3, "num_inference_steps": 3}, "num_inference_steps", "invalid_request"),
    ({"extra_params": "{seed"}, "extra_params", "invalid_request"),
    ({"extra_params": {"unheard_of": 1}}, "unheard_of", "unknown_field"),
    ({"extra_params": {"seed": 1}, "seed": 1}, "seed", "invalid_request"),
    ({"width": 64}, "height", "invalid_request"),
    ({"size": "64by64"}, "size", "invalid_request"),
    ({"size": 64}, "size", "invalid_request"),
    ({"seconds": "soon"}, "seconds", "invalid_request"),
    ({"seconds": 1, "num_frames": 5}, "seconds", "invalid_request"),
    ({"num_inference_steps": 100_000}, "num_inference_steps", "invalid_request"),
    ({"model": "sora-2"}, "model", "unknown_model"),
    ({"prompt": ""}, "prompt", "invalid_request"),
    ({"prompt": " "}, "prompt", "invalid_request"),
    ({"lora": {"name": "none-such"}}, "lora", "lora_not_found"),
    ({"loras": [{"name": "a", "colour": 1}]}, "loras", "unknown_field"),
    ({"lora_strength": 1}, "lora_strength", "invalid_request"),
    ({"input_reference": {"image_url": "http://127.0.0.1/a.png"}}, "input_reference", "invalid_image"),
    ({"image_path": "/etc/passwd"}, "image_path", "invalid_image"),
    ({"reference_url": "data:image/png;base64,***"}, "reference_url", "invalid_image"),
    ({"input_reference": {"file_id": "ab" * 32}}, None, "input_not_found"),
    ({"input_reference": {"colour": 1}}, "input_reference", "unknown_field"),
    ({"input_reference": [DATA_URL, DATA_URL]}, "input_reference", "not_offered"),
    ({"input_reference": DATA_URL, "reference_url": DATA_URL}, "reference_url", "invalid_request"),
    ({"input_reference": DATA_URL}, "input_reference", "image_not_accepted"),
    ({"model": "tiny-i2v-a14b"}, "input_reference", "image_required"),
]


@pytest.mark.parametrize(("fields", "request_"), UNDERSTOOD, ids=lambda value: str(value)[:60])
@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_spellings_of_other_servers_are_understood(
    clean: Served, fields: dict[str, Any], request_: dict[str, Any], form: bool
) -> None:
    fields = {"prompt": PROMPT, "model": TINY} | fields
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
    sent = {"files": {name: (None, text) for name, text in texts.items() if text != "null"}} if form else None
    answer = clean.client.post(VIDEOS, **(sent or {"json": fields}))
    assert answer.status_code == 200, answer.text
    task = clean.services.tasks.get(answer.json()["id"])
    assert {name: task.request[name] for name in request_} == request_


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_is_not_understood_is_refused_by_name(
    shared: Served, fields: dict[str, Any], param: str | None, code: str
) -> None:
    answer = shared.client.post(VIDEOS, json={"prompt": PROMPT, "model": TINY} | fields)
    error = assert_error(answer, 404 if code == "input_not_found" else 400, code)
    assert error["param"] == param
    assert shared.count() == 0


@pytest.mark.parametrize(
    "lora",
    [
        {"lora": {"name": LORA, "scale": 0.5, "int_id": 1}},
        {"lora": {"name": "mine", "path": f"loras/{LORA}.safetensors", "scale": 0.5}},
        {"loras": [{"path": LORA, "high": 0.5}]},
        {"loras": f'[{{"id": "{LORA}", "strength": 0.5}}]'},
        {"lora_name": LORA, "lora_strength": 0.5},
    ],
    ids=["name", "path", "high", "text", "lightx2v"],
)
def test_loras_are_named_as_elsewhere(clean: Served, lora: dict[str, Any]) -> None:
    answer = clean.client.post(VIDEOS, json={"prompt": PROMPT, "model": TINY} | lora)
    assert answer.status_code == 200, answer.text
    used = clean.services.tasks.get(answer.json()["id"]).request["loras"]
    assert [(one["id"], one["strength"], one["strength_2"]) for one in used] == [(LORA, 0.5, 0.5)]


def test_the_library_spells_nested_fields_its_own_way(clean: Served) -> None:
    form = {"prompt": (None, PROMPT), "model": (None, TINY)}
    nested = form | {"extra_params[seed]": (None, "9"), "extra_params[steps]": (None, "2")}
    answer = clean.client.post(VIDEOS, files=nested)
    assert answer.status_code == 200, answer.text
    assert clean.services.tasks.get(answer.json()["id"]).request["seed"] == 9
    lost = clean.client.post(VIDEOS, files=form | {"loras[][path]": (None, "a")})
    assert assert_error(lost, 400)["param"] == "loras"
    twice = clean.client.post(VIDEOS, data={"prompt": [PROMPT, PROMPT]})
    assert assert_error(twice, 400)["param"] == "prompt"


@pytest.mark.parametrize("spelling", ["file", "url", "object", "text", "id", "list", "reference_url"])
def test_an_image_is_sent_in_every_way(clean: Served, spelling: str) -> None:
    fields: dict[str, Any] = {"prompt": PROMPT, "model": "tiny-i2v-a14b", "size": "64x64"}
    stored = clean.services.inputs.store(PNG).id
    if spelling == "file":
        answer = clean.client.post(VIDEOS, data=fields, files={"input_reference": ("a.png", PNG, "image/png")})
    else:
        image = {
            "url": {"input_reference": DATA_URL},
            "object": {"input_reference": {"image_url": DATA_URL}},
            "text": {"image_reference": json.dumps({"image_url": {"url": DATA_URL}})},
            "id": {"input_reference": {"file_id": stored}},
            "list": {"input_references": [{"image_url": DATA_URL}]},
            "reference_url": {"reference_url": DATA_URL},
        }[spelling]
        answer = clean.client.post(VIDEOS, json=fields | image)
    assert answer.status_code == 200, answer.text
    assert clean.services.tasks.get(answer.json()["id"]).request["image"] == stored


def test_an_image_of_the_largest_size_fits_a_field_and_more_is_refused_while_it_arrives(shared: Served) -> None:
    noise = b"\x89PNG\r\n\x1a\n" + b"\xff" * (10 * 1024**2 - 8)  # no picture, but of the largest size
    large = "data:image/png;base64," + base64.b64encode(noise).decode()
    fields = {"prompt": PROMPT, "model": "tiny-i2v-a14b"}
    for sent in (
        {"json": fields | {"input_reference": large}},
        {"files": {name: (None, text) for name, text in (fields | {"reference_url": large}).items()}},
    ):
        assert_error(shared.client.post(VIDEOS, **sent), 400, "invalid_image")
    arrived = 0

    def endless() -> Any:
        nonlocal arrived
        while arrived <= MAX_FORM_BYTES:
            arrived += 1024**2
            yield b" " * 1024**2

    headers = {"Content-Type": "application/json"}
    assert_error(shared.client.post(VIDEOS, content=endless(), headers=headers), 413, "body_too_large")


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        (b"{", "application/json", "malformed_body"),
        (b"[]", "application/json", "malformed_body"),
        (b'{"prompt": NaN}', "application/json", "malformed_body"),
        (b"prompt", "text/plain", "malformed_body"),
        (b"x", "multipart/form-data; boundary=y", "malformed_body"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(shared: Served, body: bytes, kind: str, code: str) -> None:
    assert_error(shared.client.post(VIDEOS, content=body, headers={"Content-Type": kind}), 400, code)


def test_the_envelope_is_there_for_every_kind_of_error(shared: Served, shared_client: openai.OpenAI) -> None:
    assert assert_error(shared.client.get("/v1/nothing"), 404)["type"] == "invalid_request_error"
    assert assert_error(shared.client.put(VIDEOS), 405)["code"] == "method_not_allowed"
    assert assert_error(shared.client.get(VIDEOS, params={"limt": "1"}), 400)["param"] == "limt"
    with pytest.raises(openai.BadRequestError) as caught:
        shared_client.videos.list(limit=1000)
    assert (caught.value.param, caught.value.code) == ("limit", "invalid_request")
    outside = shared.client.get("/api/v1/queue/nothing").json()
    assert outside["error"] == "task_not_found"
