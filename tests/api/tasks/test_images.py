"""Requests that start from images or from earlier videos: stored images, `auto`, extend, redecode, variations."""

from __future__ import annotations

import io
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backend.core.domain import Task
from backend.services.media.video_encoder import VideoEncoder, last_frame
from tests.api.support import GOOD, SUBMIT, TINY, Served, assert_error, make_png

I2V = "tiny-i2v-a14b"
INPUTS = "/api/v1/inputs"


def send(served: Served, fields: dict[str, Any], **images: bytes) -> Any:
    """Submit a form with images."""
    files = {name: (f"{name}.png", raw, "image/png") for name, raw in images.items()}
    return served.client.post(SUBMIT, data=fields, files=files)


def store(served: Served, raw: bytes) -> dict[str, Any]:
    """Store an image and return the answer."""
    response = served.client.post(INPUTS, files={"image": ("a.png", raw, "image/png")})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def write_video(path: Path, frames: int = 5, size: int = 96) -> None:
    """Write a clip that goes from dark to bright green."""
    levels = np.linspace(60, 180, frames).astype(np.uint8)
    clip = np.zeros((frames, size, size, 3), np.uint8)
    clip[..., 1] = levels[:, None, None]
    with VideoEncoder(path, size, size, 8.0) as encoder:
        encoder.write(clip)
        encoder.finish({})


def finish_with_video(served: Served, task: Task) -> None:
    """Finish a claimed task with a real clip."""
    path = served.services.home.video_of(task.id)
    write_video(path)
    served.complete(task, path.read_bytes())


#: Ways to name this machine or its network, and schemes that read files; PORT is a listener's.
ADDRESSES = (
    "http://127.0.0.1:PORT/a.png",
    "http://127.1:PORT/a.png",
    "http://[::ffff:127.0.0.1]:PORT/a.png",
    "http://2130706433:PORT/a.png",
    "http://0177.0.0.1:PORT/a.png",
    "http://example.org@127.0.0.1:PORT/a.png",
    "http://x\\@127.0.0.1:PORT/",
    "http://localhost.:PORT/a.png",
    "http://169.254.169.254/latest/meta-data/",
    "//127.0.0.1:PORT/a.png",
    "file:///etc/passwd",
    "gopher://127.0.0.1:PORT/_x",
)


@pytest.mark.parametrize(
    "field", ["image", "end_image", "image_id", "image_url", "start_image", "extends", "lora_path"]
)
def test_22_an_address_in_a_request_is_refused_and_nothing_is_fetched(served: Served, field: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        for address in ADDRESSES:
            value = address.replace("PORT", str(listener.getsockname()[1]))
            request = GOOD | {field: value}
            for answer in (served.client.post(SUBMIT, json=request), served.client.post(SUBMIT, data=request)):
                assert answer.status_code in (400, 404, 422), (address, answer.text)
                assert_error(answer, answer.status_code)
                assert "root:" not in answer.text
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert served.client.get("/api/v1/queue").json()["total_tasks"] == 0


def test_an_image_is_stored_once_and_shown_again(served: Served) -> None:
    stored = store(served, make_png(80, 120))
    assert (stored["width"], stored["height"]) == (80, 120)
    assert store(served, make_png(80, 120)) == stored
    shown = served.client.get(stored["url"])
    assert shown.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(shown.content)) as image:
        assert (image.size, image.getpixel((3, 3))) == ((80, 120), (200, 30, 40))
    assert_error(served.client.get(f"{INPUTS}/{'0' * 64}"), 404, "input_not_found")
    assert_error(served.client.get(f"{INPUTS}/..%2f..%2fwan22.db"), 404)
    assert_error(served.client.post(INPUTS, files={"image": ("a.png", b"GIF89a", "image/png")}), 422, "invalid_image")


def test_an_upload_says_what_was_changed(served: Served) -> None:
    raw = make_png(4200, 400)
    notes = ["image of 4200x400 was reduced to 4096x390"]
    stored = store(served, raw)
    assert (stored["width"], stored["height"], stored["adjustments"]) == (4096, 390, notes)
    answer = send(served, GOOD | {"model_type": I2V}, image=make_png(96, 96), end_image=raw).json()
    assert "end_image of 4200x400 was reduced to 4096x390" in answer["adjustments"]
    assert "end_image of 4200x400 was reduced to 4096x390" in served.services.tasks.get(answer["task_id"]).adjustments
    estimate = send(served, GOOD | {"model_type": I2V, "dry_run": "true"}, image=raw).json()
    assert notes[0] in estimate["adjustments"]


@pytest.mark.parametrize("field", ["image", "end_image"])
def test_an_empty_file_is_an_error_and_an_unnamed_one_no_file(shared: Served, field: str) -> None:
    before = shared.count()
    for model in (I2V, TINY, "auto"):
        answer = assert_error(send(shared, GOOD | {"model_type": model}, **{field: b""}), 422, "invalid_image")
        assert "empty" in answer["detail"]
    assert shared.count() == before
    empty = {"image": ("a.png", b"", "image/png")}
    assert_error(shared.client.post(INPUTS, files=empty), 422, "invalid_image")
    # What a browser sends for a file input without a file.
    body = b"".join(
        b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), str(value).encode())
        for name, value in GOOD.items()
    )
    body += b'--x\r\nContent-Disposition: form-data; name="image"; filename=""\r\nContent-Type: '
    body += b"application/octet-stream\r\n\r\n\r\n--x--\r\n"
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert shared.client.post(SUBMIT, content=body, headers=form).status_code == 200


def test_a_form_with_an_image_gets_the_model_and_the_size_that_fit_it(served: Served) -> None:
    answer = send(served, GOOD | {"model_type": "auto"}, image=make_png(400, 200)).json()
    assert answer["detected_model_type"] == I2V
    assert "an image was given" in answer["reasons"]
    width, height = map(int, answer["parameters"]["resolution"].split("x"))
    assert width == 2 * height
    assert any("by the shape of the image" in note for note in answer["adjustments"])
    task = served.services.tasks.get(answer["task_id"])
    assert served.services.inputs.load(task.request["image"]).shape == (200, 400, 3)


def test_the_id_of_a_stored_image_does_in_json_what_the_file_does_in_a_form(served: Served) -> None:
    start, end = store(served, make_png(96, 96)), store(served, make_png(96, 96, (0, 200, 0)))
    body = GOOD | {"model_type": I2V, "image_id": start["id"], "end_image_id": end["id"], "seed": 4}
    by_id = served.client.post(SUBMIT, json=body).json()["parameters"]
    by_file = send(
        served,
        GOOD | {"model_type": I2V, "seed": "4"},
        image=make_png(96, 96),
        end_image=make_png(96, 96, (0, 200, 0)),
    ).json()["parameters"]
    assert by_id == by_file
    assert (by_id["image"], by_id["end_image"]) == (start["id"], end["id"])
    missing = served.client.post(SUBMIT, json=GOOD | {"model_type": I2V, "image_id": "ab" * 32})
    assert_error(missing, 404, "input_not_found")
    both = send(served, GOOD | {"model_type": I2V, "image_id": start["id"]}, image=make_png(96, 96))
    assert_error(both, 422, "invalid_request")


@pytest.mark.parametrize(
    ("model", "images", "code"),
    [
        (I2V, {}, "image_required"),
        (I2V, {"end_image"}, "image_required"),
        (TINY, {"image"}, "image_not_accepted"),
        ("TI2V-5B", {"image", "end_image"}, "image_not_accepted"),
        ("FastWan2.2-TI2V-5B", {"image"}, "image_not_accepted"),
        ("auto", {"end_image"}, "image_required"),
    ],
)
def test_images_that_do_not_go_with_the_model_queue_nothing(
    shared: Served, model: str, images: set[str], code: str
) -> None:
    before = shared.count()
    sent = {name: make_png(96, 96) for name in images}
    assert_error(send(shared, GOOD | {"model_type": model}, **sent), 422, code)
    assert shared.count() == before


def test_an_image_goes_with_its_last_task_and_video(serve: Callable[..., Served]) -> None:
    served = serve(keep_uploads_hours=1e-9)
    answer = send(served, GOOD | {"model_type": I2V}, image=make_png(96, 96)).json()
    file = served.services.home.input_of(answer["parameters"]["image"])
    served.complete(served.claim())
    served.client.post("/api/v1/queue/clear")
    assert file.is_file()  # the video in the gallery came from it
    served.client.delete(f"/api/v1/outputs/{answer['task_id']}")
    assert file.is_file()  # the video can be restored from the trash
    served.client.delete(f"/api/v1/outputs/{answer['task_id']}", params={"permanent": True})
    assert not file.exists()


def test_variations_are_tasks_whose_seeds_follow_each_other(served: Served) -> None:
    body = GOOD | {"variations": 3, "seed": 2**32 - 2, "client_request_id": "three"}
    answer = served.client.post(SUBMIT, json=body).json()
    assert answer["task_ids"][0] == answer["task_id"]
    seeds = [served.services.tasks.get(task_id).request["seed"] for task_id in answer["task_ids"]]
    assert seeds == [2**32 - 2, 2**32 - 1, 0]
    assert [served.claim().id for _ in range(3)] == answer["task_ids"]
    again = served.client.post(SUBMIT, json=body).json()
    assert again["task_ids"] == answer["task_ids"]
    assert served.count() == 3
    for wrong in (0, 17, "many", 1.5):
        assert_error(served.client.post(SUBMIT, json=GOOD | {"variations": wrong}), 422)


def test_an_extension_starts_from_the_last_frame_and_keeps_what_is_not_said(served: Served) -> None:
    first = served.submit(fps=12.0, num_frames=9, steps=4)
    finish_with_video(served, served.claim())
    answer = served.client.post(f"/api/v1/outputs/{first}/extend", json={"seed": 5}).json()
    assert answer["detected_model_type"] == I2V
    task = served.services.tasks.get(answer["task_id"])
    request = task.request
    assert (request["prompt"], request["fps"], request["seed"]) == (GOOD["prompt"], 12.0, 5)
    assert (request["width"], request["height"], request["num_frames"]) == (96, 96, 9)
    assert request["extends"] == first
    start = served.services.inputs.load(request["image"])
    assert np.array_equal(start, last_frame(served.services.home.video_of(first)))
    assert np.abs(start.astype(int) - (0, 180, 0)).mean() < 6
    body = {"prompt": "it stops", "num_frames": 5}
    other = served.client.post(f"/api/v1/outputs/{first}/extend", json=body).json()
    assert other["parameters"]["prompt"] == "it stops"
    assert other["parameters"]["num_frames"] == 5
    timed = served.client.post(f"/api/v1/outputs/{first}/extend", json={"seconds": 1}).json()
    assert timed["parameters"]["num_frames"] == 13
    assert_error(served.client.post("/api/v1/outputs/nobody/extend", json={}), 404, "output_not_found")
    refused = served.client.post(f"/api/v1/outputs/{first}/extend", json={"model_type": TINY})
    assert_error(refused, 422, "image_not_accepted")
    assert_error(served.client.post(f"/api/v1/outputs/{first}/extend", json={"steps": 0}), 422)


def test_a_long_chain_of_extensions_is_warned_of(served: Served) -> None:
    last = served.submit()
    finish_with_video(served, served.claim())
    notes: list[str] = []
    for _ in range(4):
        answer = served.client.post(f"/api/v1/outputs/{last}/extend", json={}).json()
        last, notes = answer["task_id"], answer["adjustments"]
        drifts = [note for note in notes if "drift" in note]
        finish_with_video(served, served.claim())
    assert drifts == [note for note in notes if "clip 5 of a chain" in note] != []


def test_kept_latents_are_decoded_again_with_other_settings_of_the_file(served: Served) -> None:
    first = served.submit(keep_latents=True, seed=3)
    served.complete(served.claim())
    shown = served.client.get(f"/api/v1/outputs/{first}").json()
    assert shown["has_latents"] is False
    refused = served.client.post(f"/api/v1/outputs/{first}/redecode", json={"crf": 30})
    assert_error(refused, 404, "latents_not_kept")
    served.services.home.latents_of(first).write_bytes(b"kept")
    assert served.client.get(f"/api/v1/outputs/{first}").json()["has_latents"] is True
    answer = served.client.post(f"/api/v1/outputs/{first}/redecode", json={"crf": 30, "fps": 24}).json()
    again = served.services.tasks.get(answer["task_id"]).request
    before = served.services.tasks.get(first).request
    changed = {name for name in again if again[name] != before[name]}
    assert changed == {"crf", "fps", "keep_latents", "latents_of"}
    assert (again["crf"], again["fps"], again["latents_of"]) == (30, 24.0, first)
    for wrong in ({"crf": 52}, {"fps": 0}, {"fps": "nan"}, {"steps": 3}):
        assert_error(served.client.post(f"/api/v1/outputs/{first}/redecode", json=wrong), 422)
    served.client.delete(f"/api/v1/outputs/{first}", params={"permanent": True})
    assert not served.services.home.latents_of(first).exists()


def test_where_no_model_takes_an_image_the_answer_says_what_is_here(
    served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(served.services.models, "_embedded", tmp_path)
    body = assert_error(send(served, GOOD | {"model_type": "auto"}, image=make_png(96, 96)), 422, "image_not_accepted")
    assert "No installed model takes an image" in body["detail"]
