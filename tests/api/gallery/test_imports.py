"""Files that users bring, over HTTP: their settings come back, and clips get into the gallery or leave nothing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from PIL import Image

from backend.core.record import RunRecord, RunResult
from backend.core.requests.forms import GenerationRequest
from backend.services.foreign import gallery_import
from backend.services.media.poster import thumbnail
from tests.api.support import SUBMIT, Served, assert_error, make_png
from tests.services.foreign.clip_files import SIDES, clip, own_record
from tests.services.foreign.test_settings import TWO_EXPERTS, WANTED
from tests.support.server import LiveServer, wait_for

INSPECT, IMPORT, OUTPUTS = "/api/v1/outputs/inspect", "/api/v1/outputs/import", "/api/v1/outputs"


def send(client: httpx2.Client, path: str, file: Path | bytes, name: str = "x.mp4", **more: Any) -> httpx2.Response:
    content = file if isinstance(file, bytes) else file.read_bytes()
    return client.post(path, files={"file": (name, content)}, **more)


def folders(served: Served) -> list[str]:
    home = served.services.home
    return sorted(path.name for folder in (home.outputs, home.work) for path in folder.iterdir())


@pytest.fixture
def own(served: Served, tmp_path: Path) -> Path:
    """A clip as our worker writes it, of a request with nothing left to defaults."""
    image = served.client.post("/api/v1/inputs", files={"image": ("a.png", make_png(96, 96))}).json()["id"]
    changes = {"model_type": "tiny-i2v-a14b", "image_id": image, "seed": 4711, "steps": 5, "fps": 11, "crf": 20}
    task = served.services.tasks.get(served.submit(**changes, negative_prompt="fog", guidance_scale=2.5))
    result = RunResult(frames=9, quality="ok", seconds={})
    request = GenerationRequest.from_json(task.request)
    record = RunRecord.of(task.id, request, result, device="cpu", weights_sha256="ab" * 32, libraries={})
    return clip(tmp_path / "own.mp4", tags={"wan22": json.dumps(record.to_json())})


def test_our_own_clip_gives_its_settings_back_and_they_make_the_same_request(served: Served, own: Path) -> None:
    answer = send(served.client, INSPECT, own).json()
    assert (answer["origin"], answer["exact"], answer["missing"], answer["kind"]) == ("wan22", True, [], "clip")
    (task,) = served.services.tasks.list()
    assert answer["task_id"] == task.id
    queued = served.client.post(SUBMIT, json=answer["settings"])
    assert queued.status_code == 200, queued.text
    assert served.services.tasks.get(queued.json()["task_id"]).request == task.request
    assert send(served.client, "/outputs/inspect", own).json() == answer
    assert folders(served) == []


def test_what_the_settings_need_and_the_server_lacks_is_named(serve: Callable[..., Served], own: Path) -> None:
    answer = send(serve().client, INSPECT, own).json()
    assert not answer["exact"]
    assert [one["field"] for one in answer["missing"]] == ["image_id"]
    assert answer["settings"]["image_id"] == answer["missing"][0]["id"]


def test_the_still_picture_gives_the_settings_back_too(served: Served, own: Path) -> None:
    settings = send(served.client, INSPECT, own).json()
    (task,) = served.services.tasks.list()
    record = RunRecord.of(
        task.id,
        GenerationRequest.from_json(task.request),
        RunResult(),
        device="cpu",
        weights_sha256=None,
        libraries={},
    )
    still = send(served.client, INSPECT, thumbnail(np.zeros((96, 96, 3), np.uint8), record), "a.jpg").json()
    assert (still["kind"], still["settings"]) == ("picture", settings["settings"])


def test_a_clip_of_comfyui_is_described_in_our_words(served: Served, tmp_path: Path) -> None:
    answer = send(served.client, INSPECT, clip(tmp_path / "a.mp4", tags={"prompt": json.dumps(TWO_EXPERTS)})).json()
    assert (answer["origin"], answer["exact"]) == ("comfyui", False)
    assert answer["settings"] == WANTED
    assert answer["missing"] == [{"field": "loras", "id": "style", "message": "There is no LoRA of this name here"}]


def test_settings_that_no_submit_would_take_are_left_out(served: Served, tmp_path: Path) -> None:
    graph = json.loads(json.dumps(TWO_EXPERTS))
    del graph["3"]
    graph["10"]["inputs"]["sampler_name"] = "x" * 100
    answer = send(served.client, INSPECT, clip(tmp_path / "a.mp4", tags={"prompt": json.dumps(graph)})).json()
    assert "scheduler" not in answer["settings"]
    asked = served.client.post("/api/v1/generation/estimate", json=answer["settings"])
    assert asked.status_code == 200, asked.text


def test_an_imported_clip_is_in_the_gallery_and_in_nothing_else(served: Served, tmp_path: Path) -> None:
    file = clip(tmp_path / "a.mp4", tags={"prompt": json.dumps(TWO_EXPERTS)})
    answer = send(served.client, IMPORT, file, "../../evil.mp4")
    assert answer.status_code == 200, answer.text
    video, found = answer.json()["video"], answer.json()["found"]
    assert answer.json()["new"]
    assert found["settings"] == WANTED
    assert (video["imported"], video["mock"], video["prompt"]) == (True, False, WANTED["prompt"])
    assert (video["resolution"], video["num_frames"], video["fps"]) == ("{}x{}".format(*SIDES), 9, 16.0)
    assert video["filename"] == f"{video['id']}.mp4"
    assert video["placeholder"]
    assert folders(served) == [f"{video['id']}.mp4", f"{video['id']}_thumb.jpg"]
    assert served.client.get(video["video_url"]).content == file.read_bytes()
    still = Image.open(io.BytesIO(served.client.get(video["thumbnail_url"]).content))
    assert still.size == SIDES
    for query in ({"imported": True}, {"search": "cat rain"}, {"model": "T2V-A14B"}, {"mock": False}):
        assert [one["id"] for one in served.client.get(OUTPUTS, params=query).json()["videos"]] == [video["id"]], query
    assert served.client.get(OUTPUTS, params={"imported": False}).json()["videos"] == []
    # Nobody asked for it, and it says nothing about this machine.
    assert served.client.get("/api/v1/queue").json()["total_tasks"] == 0
    assert served.client.get(f"/api/v1/queue/{video['id']}").status_code == 404
    assert served.client.get("/v1/videos").json()["data"] == []
    assert served.services.ended.of_last(24, 10).tasks == []
    assert served.services.usage.of_last(7).records == ()
    assert served.services.outputs.uses() == {}
    # It can be used like any other.
    assert served.client.post(f"{OUTPUTS}/{video['id']}/redecode", json={}).json()["error"] == "latents_not_kept"
    extended = served.client.post(
        f"{OUTPUTS}/{video['id']}/extend", json={"model_type": "tiny-i2v-a14b", "prompt": "a red circle"}
    )
    assert extended.status_code == 200, extended.text
    assert extended.json()["parameters"]["extends"] == video["id"]
    assert served.client.delete(f"{OUTPUTS}/{video['id']}", params={"permanent": True}).status_code == 200
    assert folders(served) == []


def test_a_clip_that_is_there_already_is_not_stored_again(served: Served, tmp_path: Path) -> None:
    file = clip(tmp_path / "a.mp4")
    first, second = (send(served.client, IMPORT, file).json() for _ in range(2))
    assert (first["new"], second["new"]) == (True, False)
    assert second["video"]["id"] == first["video"]["id"] == second["found"]["video_id"]
    assert send(served.client, INSPECT, file).json()["video_id"] == first["video"]["id"]


def test_a_repeated_import_has_one_answer(served: Served, tmp_path: Path) -> None:
    file, headers = clip(tmp_path / "a.mp4"), {"Idempotency-Key": "one"}
    first, second = (send(served.client, IMPORT, file, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"


def test_a_clip_belongs_to_the_key_that_sent_it(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve(api_key="operators-key")
    boss = {"Authorization": "Bearer operators-key"}
    anna, bert = (
        {"Authorization": "Bearer " + served.client.post("/api/v1/keys", headers=boss, json=body).json()["key"]}
        for body in ({"name": "anna", "scopes": ["generate"]}, {"name": "bert", "scopes": ["generate"]})
    )
    reader = {"name": "reader", "scopes": ["read"]}
    reads = {"Authorization": "Bearer " + served.client.post("/api/v1/keys", headers=boss, json=reader).json()["key"]}
    file = clip(tmp_path / "a.mp4", tags={"wan22": own_record({"prompt": "x"})})
    assert send(served.client, IMPORT, file).status_code == 401
    assert_error(send(served.client, IMPORT, file, headers=reads), 403, "scope_missing")
    mine = send(served.client, IMPORT, file, headers=anna).json()["video"]["id"]
    assert served.client.get(f"{OUTPUTS}/{mine}", headers=bert).status_code == 404
    theirs = send(served.client, INSPECT, file, headers=bert).json()
    assert "video_id" not in theirs, "that another key has the same clip is nobody's business"
    assert send(served.client, IMPORT, file, headers=bert).json()["video"]["id"] != mine


@pytest.mark.parametrize("path", [INSPECT, IMPORT])
def test_what_is_no_clip_is_refused_and_leaves_nothing(served: Served, path: str, tmp_path: Path) -> None:
    playlist = b"#EXTM3U\n#EXTINF:1,\nhttp://169.254.169.254/\n"
    body = assert_error(send(served.client, path, playlist), 422, "clip_refused")
    assert "169.254" not in body["detail"]
    assert_error(send(served.client, path, clip(tmp_path / "a.avi", codec="magicyuv", form="avi")), 422, "clip_refused")
    assert_error(served.client.post(path, files={"other": ("x.mp4", b"x")}), 422)
    assert_error(served.client.post(path, data={"file": "x"}, files={}), 422)
    assert_error(served.client.post(path, json={"file": "/etc/passwd"}), 422)
    assert folders(served) == []


def test_a_picture_is_no_clip_for_the_gallery(served: Served) -> None:
    assert_error(send(served.client, IMPORT, make_png(64, 64), "a.png"), 422, "clip_refused")
    assert send(served.client, INSPECT, make_png(64, 64), "a.png").json()["origin"] == "none"


def test_a_file_beyond_the_limit_is_refused(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    announced = {"Content-Length": str(600 * 2**20), "Content-Type": "multipart/form-data; boundary=x"}
    assert_error(served.client.post(IMPORT, content=b"--x", headers=announced), 413, "body_too_large")
    monkeypatch.setattr(gallery_import, "MAX_CLIP_BYTES", 1000)
    assert_error(send(served.client, IMPORT, clip(tmp_path / "a.mp4")), 413, "body_too_large")
    assert folders(served) == []


@pytest.mark.parametrize(
    ("point", "kept"), [("import.before_commit", False), ("import.after_commit", True), ("import.renamed", True)]
)
def test_a_killed_import_leaves_nothing_or_a_whole_clip(point: str, kept: bool, tmp_path: Path) -> None:
    server = LiveServer(tmp_path / "home", WAN22_WORKER="false", WAN22_FAULTS=f"{point}=kill")
    file = clip(tmp_path / "a.mp4")
    try:
        with pytest.raises(httpx2.TransportError):
            send(server.client, IMPORT, file)
        wait_for(lambda: server.process.poll() is not None, what="the end of the server")
        assert any(server.home.joinpath("outputs").iterdir())
        server._env.pop("WAN22_FAULTS")
        server.start()
        videos = server.client.get(OUTPUTS).json()["videos"]
        assert len(videos) == kept
        names = sorted(path.name for path in server.home.joinpath("outputs").iterdir())
        assert names == [name for one in videos for name in (f"{one['id']}.mp4", f"{one['id']}_thumb.jpg")]
        for one in videos:
            assert server.client.get(one["video_url"]).content == file.read_bytes()
            assert server.client.get(one["thumbnail_url"]).status_code == 200
    finally:
        server.stop()
