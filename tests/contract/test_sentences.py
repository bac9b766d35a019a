"""The words and status codes that earlier clients compare, each asked for over real HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.api.support import make_png
from tests.contract.conftest import Earlier
from tests.support.server import QUICK

SUBMIT, GENERATE = "/api/v1/generation/submit", "/api/v1/generate"
TEXT = QUICK
IMAGE = QUICK | {"model_type": "tiny-i2v-a14b"}
LARGE = b"\x89PNG\r\n\x1a\n" + bytes(10 * 1024**2)
TOO_LARGE = "Image file too large. Maximum size is 10MB"
NO_IMAGE = "T2V mode does not accept image input. Use I2V or TI2V for image-based generation."
STRENGTH = "LoRA strength must be between 0.0 and 2.0"


def refusal(response: httpx2.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()
    assert body["detail"] == body["message"]
    assert body["suggestions"]
    assert response.headers["x-request-id"] == body["request_id"]
    return body


@pytest.mark.parametrize(
    "path",
    [
        SUBMIT,
        "/generation/submit",
        GENERATE,
        "/api/v1/generation/estimate",
        "/prompt/enhance",
        "/queue/reorder",
        "/api/v1/models/download",
        "/api/v1/lora/tiny_chalk/preview",
        "/api/v1/analytics/errors",
        "/api/v1/recovery/trigger",
    ],
)
def test_json_that_cannot_be_read_is_called_so_everywhere(earlier: Earlier, path: str) -> None:
    for text in (b'{"prompt": ', b"\xff", b"{'prompt': 1}"):
        response = earlier.server.client.post(path, content=text, headers={"Content-Type": "application/json"})
        assert refusal(response, 400)["detail"] == "Invalid JSON request"


@pytest.mark.parametrize("path", [SUBMIT, GENERATE])
@pytest.mark.parametrize("strength", [2.5, -0.1, "2.01", "nan"])
def test_a_strength_out_of_range_has_its_own_sentence(earlier: Earlier, path: str, strength: object) -> None:
    body = TEXT | {"lora_path": "tiny_chalk", "lora_strength": strength}
    assert refusal(earlier.server.client.post(path, json=body), 422)["detail"] == STRENGTH


#: The path, the fields, the file, the status and the beginning of the sentence.
IMAGES: list[tuple[str, dict[str, Any], bytes, int, str]] = [
    (SUBMIT, IMAGE, LARGE, 422, TOO_LARGE),
    (SUBMIT, IMAGE, LARGE * 3, 422, TOO_LARGE),
    (GENERATE, IMAGE, LARGE, 400, TOO_LARGE),
    (GENERATE, IMAGE, LARGE * 3, 400, TOO_LARGE),
    (SUBMIT, IMAGE, b"no picture", 422, "Invalid image file"),
    (GENERATE, IMAGE, b"no picture", 400, "Invalid image file"),
    (SUBMIT, IMAGE, b"GIF89a" + bytes(64), 422, "Invalid image format"),
    (GENERATE, IMAGE, make_png(32, 32), 400, "The image has 32x32 pixels"),
    # What the mode says goes before what is wrong with the file or anything else.
    (GENERATE, TEXT, make_png(64, 64), 400, NO_IMAGE),
    (GENERATE, TEXT, b"no picture", 400, NO_IMAGE),
    (GENERATE, TEXT, LARGE, 400, NO_IMAGE),
    (GENERATE, TEXT | {"resolution": "wide"}, make_png(64, 64), 400, NO_IMAGE),
    (GENERATE, TEXT | {"model_type": "T2V-A14B"}, make_png(64, 64), 400, NO_IMAGE),
    (SUBMIT, TEXT, make_png(64, 64), 422, "tiny-t2v-a14b makes video from text alone"),
]


@pytest.mark.parametrize(("path", "fields", "file", "status", "sentence"), IMAGES, ids=range(len(IMAGES)))
def test_an_image_that_cannot_be_used(
    earlier: Earlier, path: str, fields: dict[str, Any], file: bytes, status: int, sentence: str
) -> None:
    form = {name: str(value) for name, value in fields.items()}
    response = earlier.server.client.post(path, data=form, files={"image": ("a.png", file, "image/png")})
    assert refusal(response, status)["detail"].startswith(sentence)


def test_a_prompt_matters_more_than_an_image(earlier: Earlier) -> None:
    response = earlier.server.client.post(SUBMIT, data={"model_type": "tiny-i2v-a14b"}, files={"image": LARGE})
    assert refusal(response, 422)["detail"] == "Prompt is required"


def test_a_lora_is_in_the_queue_as_it_was_sent(earlier: Earlier) -> None:
    client = earlier.server.client
    path = next(one["path"] for one in client.get("/lora").json()["loras"] if one["name"] == "tiny_chalk")
    for strength in (0, 0.5):
        queued = client.post(SUBMIT, json=TEXT | {"loraPath": path, "loraStrength": strength}).json()
        assert (queued["parameters"]["lora_path"], queued["parameters"]["lora_strength"]) == (path, strength)
        tasks = {task["id"]: task for task in client.get("/queue").json()["tasks"]}
        task = tasks[queued["task_id"]]
        assert (task["lora_path"], task["lora_strength"]) == (path, strength)
        assert client.post(f"/queue/{task['id']}/cancel", json={}).status_code == 200


@pytest.mark.parametrize("path", [SUBMIT, GENERATE])
def test_minutes_are_whole_and_at_least_one_or_absent(earlier: Earlier, path: str) -> None:
    client = earlier.server.client
    answer = client.post(path, json=TEXT).json()
    task = client.get(f"/api/v1/generate/{answer['task_id']}").json()
    for one in (answer, task):
        minutes = one.get("estimated_time_minutes", 1)
        assert type(minutes) is int
        assert minutes >= 1


def test_who_asks_for_the_health_is_shown(earlier: Earlier) -> None:
    client, origin = earlier.server.client, "http://localhost:3000"
    seen = client.get("/api/v1/system/health", headers={"Origin": origin}).json()["connectivity"]
    assert (seen["request_origin"], seen["host_header"]) == (origin, client.base_url.netloc.decode())
    for body in (client.get("/api/v1/system/health").json(), client.get("/system/health").json()):
        assert [name for name, value in body.items() if value is None] == []
