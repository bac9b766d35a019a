"""What clients of the earlier application read, where it differs from what one would build today."""

from __future__ import annotations

from typing import Any

import pytest

from backend.api.tasks.shapes import minutes
from tests.api.support import GOOD, SUBMIT, TINY, Served

DETECT = "/api/v1/generation/models/detect"
#: They do not send the header of clients that know our models.
THEIRS = {"Wan22-Model-Ids": ""}


def test_a_lora_out_of_range_is_refused_in_the_words_that_they_compare(served: Served) -> None:
    answer = served.client.post(SUBMIT, json=GOOD | {"lora_path": "tiny_chalk", "lora_strength": 2.5})
    assert answer.status_code == 422
    assert answer.json()["message"] == "LoRA strength must be between 0.0 and 2.0"


def test_the_lora_of_a_task_is_in_the_queue_as_it_was_sent(served: Served) -> None:
    plain = served.submit()
    styled = served.submit(lora_path="tiny_chalk", lora_strength=0.0)
    tasks = {task["id"]: task for task in served.client.get("/api/v1/queue").json()["tasks"]}
    assert (tasks[styled]["lora_path"], tasks[styled]["lora_strength"]) == ("tiny_chalk", 0.0)
    assert tasks[plain].get("lora_path") is None


def test_the_health_answer_repeats_who_asked_and_for_whom(served: Served) -> None:
    served.client.headers["Origin"] = "http://testserver"
    connectivity = served.client.get("/api/v1/system/health").json()["connectivity"]
    assert connectivity["request_origin"] == "http://testserver"
    assert connectivity["host_header"] == served.client.base_url.netloc.decode()


def test_the_last_moments_are_a_minute_or_nothing() -> None:
    assert [minutes(seconds) for seconds in (None, 0.0, 0.4, 61.0)] == [None, 1, 1, 2]


def _earlier(served: Served, **changes: object) -> dict[str, Any]:
    """Submit as the form of the earlier page does when nothing in it was touched."""
    body = {"model_type": "auto", "prompt": GOOD["prompt"], "resolution": "1280x720", "steps": 50} | changes
    answer = served.client.post(SUBMIT, json=body | {"lora_path": "", "lora_strength": 1.0}, headers=THEIRS)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_default_way_of_the_earlier_page_ends_in_a_task_of_a_model_that_is_here(served: Served) -> None:
    answer = _earlier(served)
    assert (answer["detected_model_type"], answer["model"]) == ("T2V-A14B", TINY)
    assert answer["parameters"]["resolution"] == "336x192"
    assert "resolution 1280x720 became 336x192, the nearest of tiny-t2v-a14b" in answer["adjustments"]
    task = served.client.get("/queue", headers=THEIRS).json()["tasks"][0]
    assert (task["model_type"], task["model"], task["steps"]) == ("T2V-A14B", TINY, 50)
    polled = served.client.get("/api/v1/queue/poll", headers=THEIRS).json()["active_tasks"][0]
    assert (polled["model_type"], polled["model"]) == ("T2V-A14B", TINY)


@pytest.mark.parametrize("resolution", ["1920x1080", "854x480", "1024x576", "8x8"])
def test_each_size_of_the_earlier_page_becomes_one_that_the_model_makes(served: Served, resolution: str) -> None:
    assert resolution in " ".join(_earlier(served, resolution=resolution)["adjustments"])


def test_the_earlier_page_detects_families(served: Served) -> None:
    def detect(headers: dict[str, str], **query: str) -> dict[str, Any]:
        asked = served.client.get(DETECT, params={"prompt": "a circle"} | query, headers=headers)
        return dict(asked.json())

    theirs = detect(THEIRS, has_image="true")
    assert (theirs["detected_model_type"], theirs["model"]) == ("I2V-A14B", "tiny-i2v-a14b")
    assert theirs["alternatives"] == ["TI2V-5B"]
    ours = detect({}, has_image="true")
    assert (ours["detected_model_type"], ours["model"]) == ("tiny-i2v-a14b", "tiny-i2v-a14b")


def test_the_earlier_gallery_shows_families(served: Served) -> None:
    made = served.complete_one()
    for path in ("/outputs", f"/api/v1/outputs/{made}"):
        shown = [served.client.get(path, headers=headers).json() for headers in (THEIRS, {})]
        theirs, ours = (answer.get("videos", [answer])[0] for answer in shown)
        assert (theirs["model_type"], theirs["model"]) == ("T2V-A14B", TINY)
        assert (ours["model_type"], ours["model"]) == (TINY, TINY)


def test_a_client_that_knows_our_models_sees_their_ids_and_is_told_their_sizes(served: Served) -> None:
    assert served.client.post(SUBMIT, json=GOOD | {"model_type": "auto", "resolution": "1280x720"}).status_code == 422
    named = served.client.post(SUBMIT, json=GOOD | {"model_type": "tiny"}, headers=THEIRS).json()
    assert named["detected_model_type"] == named["model"] == TINY
    assert served.client.get("/api/v1/queue").json()["tasks"][0]["model_type"] == TINY


def test_a_key_covers_the_same_request_of_both_kinds_of_clients(served: Served) -> None:
    body = GOOD | {"model_type": "auto", "client_request_id": "one"}
    ours = served.client.post(SUBMIT, json=body).json()
    assert served.client.post(SUBMIT, json=body, headers=THEIRS).json()["task_id"] == ours["task_id"]
